"""What `tools/tune.py` is made of."""
