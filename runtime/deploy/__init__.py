"""Trained policies outside training: loaded, exported, filmed."""
