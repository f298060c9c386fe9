"""What `tools/bench.py` is made of: contestants, measurement, report."""
