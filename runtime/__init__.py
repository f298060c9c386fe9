"""A run: its parts, loop, schedule, checkpoints and logs; launching, acceleration, deployment."""
