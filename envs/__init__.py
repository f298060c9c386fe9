"""Environments: from the loop down to Gymnasium, one layer in a file, see docs/architecture.md."""
