"""On-policy storage: T steps of N environments, handed out once and forgotten."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from data.transition import Transition


class Rollout:
    """Collects `n_steps` transitions of (N, ·) and yields them as one Transition of (T, N, ·).

    The arrays are allocated at the first transition and reused: what `batches` hands out is valid
    until the next `add`.
    """

    warming_up = False

    def __init__(self, n_steps: int, device: torch.device | str = "cpu") -> None:
        self.n_steps = n_steps
        self.device = torch.device(device)
        self.filled = 0
        self._fields: list[Tensor] = []
        self._rows: list[list[Tensor]] = []  # views of them, one list for each step

    def add(self, transition: Transition) -> None:
        """Stores one step of all environments; every field, `latent` among them, is needed."""
        fields = [field for field in transition if field is not None]
        assert len(fields) == len(transition)
        if not self._fields:
            self._fields = [
                torch.zeros((self.n_steps, *field.shape), dtype=field.dtype, device=self.device)
                for field in fields
            ]
            self._rows = [list(row) for row in zip(*self._fields, strict=True)]
        torch._foreach_copy_(self._rows[self.filled], fields)
        self.filled += 1

    def batches(self) -> Iterator[Transition]:
        """One Transition (T, N, ·) when `n_steps` have been added; nothing before."""
        if self.filled == self.n_steps:
            self.filled = 0
            yield Transition(*self._fields)

    def state_dict(self) -> dict[str, Any]:
        return {"fields": [field[: self.filled] for field in self._fields if self.filled]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.filled = 0
        self._fields = []
        for row in zip(*state["fields"], strict=True):
            self.add(Transition(*row))
