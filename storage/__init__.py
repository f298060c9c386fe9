"""What a run keeps on disk: checkpoints, its directory, its lock, where it came from."""
