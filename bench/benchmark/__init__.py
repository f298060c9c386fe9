"""What `bench/bench.py` is made of: contestants, measurement, report."""
