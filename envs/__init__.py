"""Environments: made, held to their spaces, stepped side by side."""
