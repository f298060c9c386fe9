"""Shared by all floors: errors, seeds, trees of state, the clock."""
