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


def numbers_of(rows: np.ndarray, ranges: Ranges) -> np.ndarray:
    """Rows (*, 4 F + I) -> their numbers (*, F)."""
    first = rows.shape[-1] - sum(stop - start for start, stop in ranges)
    return rows[..., :first].copy().view(FLOAT).astype(np.float32)


def unpack(rows: np.ndarray, ranges: Ranges) -> np.ndarray:
    """Rows (*, 4 F + I) -> observations (*, O), float32; observations stay as they are."""
    if rows.dtype != np.uint8:
        return rows
    numbers = numbers_of(rows, ranges)
    images = rows[..., 4 * numbers.shape[-1] :]
    image = np.zeros(numbers.shape[-1] + images.shape[-1], np.bool_)  # which components are of one
    for start, stop in ranges:
        image[start:stop] = True
    obs = np.empty((*rows.shape[:-1], len(image)), np.float32)
    obs[..., ~image] = numbers
    obs[..., image] = images
    return obs
