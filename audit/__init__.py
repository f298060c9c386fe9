"""Whether a density is the distribution of its samples."""
