"""Observations in which images of bytes lie among other numbers: one row of bytes each.

First the numbers, as float32, 4 bytes each, the lowest first; then the images, in their order. The
networks read such rows by `Unpack` (networks/normalizer.py).
"""

from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np

Ranges = Sequence[tuple[int, int]]  # (first, last + 1) of each image's components
FLOAT = np.dtype("<f4")


def pieces(obs: np.ndarray, ranges: Ranges) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Views of observations (*, O): of the numbers between the images, and of the images."""
    edges = pairwise([0, *chain.from_iterable(ranges), obs.shape[-1]])
    views = [obs[..., start:stop] for start, stop in edges]
    return views[::2], views[1::2]


def pack(numbers: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The rows (*, 4 F + I) of numbers (*, F) and the bytes of images (*, I)."""
    return np.concatenate([numbers.astype(FLOAT).view(np.uint8), images], -1)
