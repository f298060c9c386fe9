"""How a command becomes a run, or many."""
