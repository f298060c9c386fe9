"""Files of a run: its directory and lock, checkpoints, the code that it used."""
