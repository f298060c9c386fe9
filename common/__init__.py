"""Shared by all floors: errors, seeds, trees of state, metrics, memory limits."""
