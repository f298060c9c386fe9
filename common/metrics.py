"""Metrics of an update, with all numbers in one vector."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]  # (tensors, transitions, constants ...) -> {name: tensor}


@dataclass(eq=False)
class Metrics(Mapping[str, Tensor]):
    """{name: tensor}, whose 0-d tensors are one vector.

    Reading two dozen tensors one by one would take a twentieth of the time of a small update.
    """

    names: tuple[str, ...]  # K
    vector: Tensor  # (K,)
    arrays: dict[str, Tensor]  # those with dimensions

    def __getitem__(self, name: str) -> Tensor:
        if name in self.names:
            return self.vector[self.names.index(name)]
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return chain(self.names, self.arrays)

    def __len__(self) -> int:
        return len(self.names) + len(self.arrays)


def packing(step: Function) -> Function:
    """`step`, which returns its 0-d metrics as one vector; its key is the tuple of their names."""

    def packed(*arguments: Any) -> dict[Any, Tensor]:
        names, vector, arrays = split_scalars(step(*arguments))
        return {names: vector, **arrays}

    return packed


def split_scalars(metrics: Mapping[str, Tensor]) -> tuple[Any, Tensor, dict[str, Tensor]]:
    """Names (K) and vector (K,) of the 0-d metrics, and the others."""
    if isinstance(metrics, Metrics):
        return metrics.names, metrics.vector, metrics.arrays
    names = tuple(name for name, value in metrics.items() if not value.ndim)
    arrays = {name: value for name, value in metrics.items() if value.ndim}
    return names, torch.stack([metrics[name] for name in names]), arrays


class Packed:
    """A step made by `packing`; its results are `Metrics`."""

    def __init__(self, step: Function) -> None:
        self.step = step

    def __call__(self, *arguments: Any) -> Metrics:
        (names, vector), *arrays = self.step(*arguments).items()
        return Metrics(names, vector, dict(arrays))


class MergedMetrics:
    """Metrics of several steps, merged; those with dimensions are of the last step."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.vectors: list[Tensor] = []  # (K,) of each step
        self.arrays: dict[str, Tensor] = {}

    def add(self, metrics: Mapping[str, Tensor], left_out: Tensor | None = None) -> None:
        """Adds the metrics of a step; none if the 0-d bool `left_out` is true."""
        self.names, vector, arrays = split_scalars(metrics)
        if left_out is not None:
            vector = vector.masked_fill(left_out, torch.nan)
            arrays = {
                name: torch.where(left_out, self.arrays.get(name, value), value)
                for name, value in arrays.items()
            }
        self.vectors.append(vector)
        self.arrays = arrays

    def result(self) -> dict[str, Tensor]:
        """Means over the steps without NaN; minima and maxima for names in _min and _max."""
        table = torch.stack(self.vectors)
        values = dict(zip(self.names, table.nanmean(0).unbind(), strict=True))
        for name, column in zip(self.names, table.unbind(1), strict=True):
            if name.endswith("_min"):
                values[name] = column.nan_to_num(torch.inf, torch.inf, -torch.inf).amin()
            elif name.endswith("_max"):
                values[name] = column.nan_to_num(-torch.inf, torch.inf, -torch.inf).amax()
        return values | self.arrays
