"""Observations -> parameters of policies, and values; torch only."""
