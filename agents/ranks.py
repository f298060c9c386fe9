"""What an update knows of the other processes of its run: averages over all of them."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Ranks(Protocol):
    """The processes that learn one policy together, each from transitions of its own."""

    size: int

    def average(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor's mean over the ranks, the same on all of them."""

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (B, ...) of all ranks, (size B, ...), in one order everywhere."""


class Alone:
    """The only process of a run."""

    size = 1

    def average(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return list(tensors)

    def gather(self, rows: Tensor) -> Tensor:
        return rows
