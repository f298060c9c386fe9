"""Whether a density is the distribution of its samples."""

from audit.pairs import check_pairs
from audit.report import Report
from audit.verdict import check

__all__ = ["Report", "check", "check_pairs"]
