"""What the log-probability is made of, read off the last update of a log interval."""

from collections.abc import Mapping

import numpy as np

MOST = 8  # action components, or actions, with a curve of their own
QUANTILES = {"q05": 0.05, "q50": 0.5, "q95": 0.95}


def ledger(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Quantiles of log_prob, share of each action, and the mean of every column of 2-d metrics."""
    values: dict[str, float] = {}
    for name, array in arrays.items():
        if array.ndim == 2:
            means = array.mean(0)[:MOST]
            values |= {f"{name}/{column}": float(mean) for column, mean in enumerate(means)}
        elif name == "policy/log_prob":
            cuts = np.quantile(array, list(QUANTILES.values()))
            values |= {f"{name}_{q}": float(c) for q, c in zip(QUANTILES, cuts, strict=True)}
        elif name == "policy/action" and np.issubdtype(array.dtype, np.integer):
            shares = np.bincount(array)[:MOST] / len(array)
            values |= {f"policy/action_share/{k}": float(share) for k, share in enumerate(shares)}
    return values
