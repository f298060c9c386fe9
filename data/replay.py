"""Off-policy storage: a ring of transitions, sampled uniformly."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from data.transition import Transition


class Replay:
    """Ring buffer of single transitions; `batches` yields what the update ratio allows.

    Args:
        capacity: transitions kept.
        batch_size: transitions per batch.
        learning_starts: transitions to collect, with uniform actions, before the first batch.
        updates_per_step: batches per environment step, counted over all environments; 0.5 is one
            batch every second step.
        generator: draws the indices; its device is the storage's.
    """

    def __init__(
        self,
        capacity: int,
        batch_size: int,
        learning_starts: int,
        updates_per_step: float,
        generator: torch.Generator,
    ) -> None:
        self.capacity = capacity
        self.batch_size = batch_size
        self.learning_starts = learning_starts
        self.updates_per_step = updates_per_step
        self.generator = generator
        self.added = 0  # transitions ever added; the write position is added % capacity
        self.sampled = 0  # batches ever handed out
        self._fields: list[Tensor] = []

    @property
    def warming_up(self) -> bool:
        return self.added < self.learning_starts

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, transition: Transition) -> None:
        """Stores N transitions, overwriting the oldest; `latent` is dropped."""
        rows = [row for row in transition._replace(latent=None) if row is not None]
        if not self._fields:
            self._fields = [
                torch.empty(
                    (self.capacity, *row.shape[1:]), dtype=row.dtype, device=self.generator.device
                )
                for row in rows
            ]
        count = len(transition.reward)
        start = self.added % self.capacity
        if start + count <= self.capacity:
            for stored, row in zip(self._fields, rows, strict=True):
                stored[start : start + count].copy_(row)
        else:
            index = torch.arange(start, start + count) % self.capacity
            for stored, row in zip(self._fields, rows, strict=True):
                stored[index.to(stored.device)] = row.to(stored.device)
        self.added += count

    def batches(self) -> Iterator[Transition]:
        """Batches (B, ·) until `updates_per_step` is met; none while warming up."""
        if self.warming_up:
            return
        owed = int((self.added - self.learning_starts + 1) * self.updates_per_step)
        while self.sampled < owed:
            self.sampled += 1
            yield self.sample()

    def sample(self) -> Transition:
        """One batch (B, ·), uniform with replacement over what is stored."""
        index = torch.randint(
            len(self), (self.batch_size,), generator=self.generator, device=self.generator.device
        )
        return Transition(*(field.index_select(0, index) for field in self._fields))

    def state_dict(self) -> dict[str, Any]:
        return {
            "added": self.added,
            "sampled": self.sampled,
            "generator": self.generator.get_state(),
            "fields": [field[: len(self)] for field in self._fields],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.added = state["added"]
        self.sampled = state["sampled"]
        self.generator.set_state(state["generator"])
        self._fields = []
        for kept in state["fields"]:
            field = torch.empty(
                (self.capacity, *kept.shape[1:]), dtype=kept.dtype, device=self.generator.device
            )
            field[: len(kept)] = kept
            self._fields.append(field)
