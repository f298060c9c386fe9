"""Metrics of an update, with the numbers among them in one vector."""

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

    Two dozen tensors a step, one by one, would cost the log a twentieth of a small update's time.
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
    """`step` with its 0-d metrics as one vector, whose key is the tuple of their names."""

    def packed(*arguments: Any) -> dict[Any, Tensor]:
        names, vector, arrays = split_scalars(step(*arguments))
        return {names: vector, **arrays}

    return packed


def split_scalars(metrics: Mapping[str, Tensor]) -> tuple[Any, Tensor, dict[str, Tensor]]:
    """The names (K) of the 0-d metrics, their vector (K,), and the metrics with dimensions."""
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
    """The metrics of several steps as one; of those with dimensions, the last step's."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.vectors: list[Tensor] = []  # (K,) of each step
        self.arrays: dict[str, Tensor] = {}

    def add(self, metrics: Mapping[str, Tensor], left_out: Tensor | None = None) -> None:
        """Takes those of a step, which has none where the 0-d bool `left_out` is up."""
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
        """Means, or extremes by the names' endings, of the steps that have a value: not NaN."""
        table = torch.stack(self.vectors)
        values = dict(zip(self.names, table.nanmean(0).unbind(), strict=True))
        for name, column in zip(self.names, table.unbind(1), strict=True):
            if name.endswith("_min"):
                values[name] = column.nan_to_num(torch.inf, torch.inf, -torch.inf).amin()
            elif name.endswith("_max"):
                values[name] = column.nan_to_num(-torch.inf, torch.inf, -torch.inf).amax()
        return values | self.arrays
