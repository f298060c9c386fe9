"""Everything with a side effect: environments, the loop, the run directory, the screen."""
