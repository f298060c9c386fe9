"""Compiled and captured updates, and whether they agree with the plain ones."""
