"""What the log-probability is made of, read off the last update of a log interval."""

from collections.abc import Mapping

import numpy as np

MOST = 8  # action components, or actions, with a curve of their own
QUANTILES = {"q05": 0.05, "q50": 0.5, "q95": 0.95}


def ledger(arrays: Mapping[str, np.ndarray], actions: int = 0) -> dict[str, float]:
    """Quantiles of log_prob, share of each action, and the mean of every column of 2-d metrics.

    With so many `actions`, also of those that were not taken.
    """
    values: dict[str, float] = {}
    for name, array in arrays.items():
        if array.ndim == 2:
            means = array.mean(0)[:MOST]
            values |= {f"{name}/{column}": float(mean) for column, mean in enumerate(means)}
        elif name == "policy/log_prob":
            ordered = np.sort(array)
            for ending, share in QUANTILES.items():
                values[f"{name}_{ending}"] = float(ordered[round(share * (len(array) - 1))])
        elif name == "policy/action" and np.issubdtype(array.dtype, np.integer):
            shares = np.bincount(array, minlength=actions)[:MOST] / len(array)
            values |= {f"policy/action_share/{k}": float(share) for k, share in enumerate(shares)}
    return values
