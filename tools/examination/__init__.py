"""What `tools/doctor.py` is made of."""
