"""Statistics of few runs: Agarwal et al. 2021 (arXiv 2108.13264), section 4; numpy only."""

from collections.abc import Callable, Sequence

import numpy as np

Scores = Sequence[np.ndarray]  # of each task, one number per run
RESAMPLES = 2000
LEVEL = 0.95


def interquartile_mean(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """The mean without the lowest and the highest quarter, rounded down, along one axis."""
    count = scores.shape[axis]
    cut = count // 4
    middle = np.sort(scores, axis=axis).take(range(cut, count - cut), axis=axis)
    return middle.mean(axis)


def probability_of_improvement(ours: Scores, theirs: Scores) -> float:
    """How likely a run of ours is above one of theirs, ties counting half; the mean over tasks.

    In each task the statistic of Mann and Whitney (1947), eq. 1, as a share of all pairs.
    """
    shares = [
        float(np.mean((own[:, None] > other) + 0.5 * (own[:, None] == other)))
        for own, other in zip(ours, theirs, strict=True)
    ]
    return sum(shares) / len(shares)


def resampled(scores: Scores, generator: np.random.Generator) -> list[np.ndarray]:
    """As many runs, drawn with replacement within each task."""
    return [runs[generator.integers(len(runs), size=len(runs))] for runs in scores]


def interval(
    statistic: Callable[..., np.ndarray | float], *groups: Scores, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles 2.5 and 97.5 of the statistic over stratified bootstrap samples of each group."""
    generator = np.random.default_rng(seed)
    found = [
        statistic(*(resampled(scores, generator) for scores in groups)) for _ in range(RESAMPLES)
    ]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(np.asarray(found), [tail, 100 - tail], axis=0)
    return low, high


def pooled(scores: Scores) -> np.ndarray:
    """The interquartile mean over all runs of all tasks; of curves, (runs, steps), at each step."""
    return interquartile_mean(np.concatenate(scores), axis=0)


def steps_to(steps: np.ndarray, values: np.ndarray, threshold: float) -> int | None:
    """The first step at which the curve is at the threshold or above; None where it never is."""
    reached = np.flatnonzero(values >= threshold)
    return int(steps[reached[0]]) if len(reached) else None
