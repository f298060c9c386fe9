"""Off-policy storage: a ring of transitions, sampled uniformly."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.seeding import restore_generator
from data.transition import Rows, Spec, Transition


def ring_rows(capacity: int, count: int) -> int:
    """Rows of the ring: the capacity and one more step, in whole steps of `count` environments."""
    return (-(-capacity // count) + 1) * count


@dataclass(eq=False)
class Replay:
    """Ring buffer of single transitions; `batches` yields as many as the update ratio allows.

    A batch is `Rows`, which the update reads, so that reading is a part of its graph.

    An observation is stored once. The successor of a row is N rows further, where the next step of
    the same environment is stored. If that step begins with another observation, the successor is
    stored behind the ring, and `pointer` is its row.

    Behind the ring there is space for episodes of one step, the worst case; freed rows are used
    before new ones. The arrays never grow, so a graph may read from them, and `bytes_for` is a
    bound.
    """

    capacity: int  # transitions kept
    batch_size: int  # transitions in each batch
    learning_starts: int  # transitions with uniform actions before the first batch
    updates_per_step: float  # batches per transition; 0.5 is one every second
    generator: torch.Generator  # for the indices; its device is that of the arrays

    def __post_init__(self) -> None:
        self.added = 0  # transitions so far; number n is in row n % ring
        self.sampled = 0  # batches so far
        self.lost = 0  # transitions before this number are damaged on the disk
        self.count = 0  # N, known from the first transition
        self.spare = 0  # steps kept beyond the capacity
        self.ring = 0  # rows
        self.pointer = torch.empty(0)  # (ring,) int32, the row of the successor in `obs`

    @property
    def warming_up(self) -> bool:
        return self.added < self.learning_starts

    def __len__(self) -> int:
        return max(0, min(self.added - self.lost, self.capacity))

    def begin(self, obs: Tensor, fields: list[Tensor]) -> None:
        """Empties the buffer, for rows of these shapes and types, of N environments.

        The arrays are made once; memory is used as they fill.
        """
        self.count = len(obs)
        self.ring = ring_rows(self.capacity + self.spare * self.count, self.count)
        if len(self.pointer) != self.ring:
            device, rows = self.generator.device, [2 * self.ring, *[self.ring] * len(fields)]
            self.obs, *self.fields = (  # (2 ring, O); action, reward, terminated, truncated
                torch.empty((size, *like.shape[1:]), dtype=like.dtype, device=device)
                for size, like in zip(rows, (obs, *fields), strict=True)
            )
            self.pointer = torch.empty(self.ring, dtype=torch.int32, device=device)
            # The same memory, as `add` writes into it.
            self.obs_array, self.pointer_array = map(self.as_array, (self.obs, self.pointer))
            self.field_arrays = [self.as_array(field) for field in self.fields]
        torch.arange(self.ring, out=self.pointer)
        self.pointer.add_(self.count).remainder_(self.ring)
        self.behind = np.zeros(self.ring, np.int32)  # rows of successors behind the ring, or 0
        self.free = array("i")  # rows behind the ring that were used and are free
        self.used = 0  # rows behind the ring that were ever used
        self.last_next_obs: Tensor | None = None  # (N, O) of the last step

    def as_array(self, tensor: Tensor) -> Any:
        """The memory for NumPy, which writes a row in a third of the time; on a GPU the tensor."""
        return tensor.numpy() if self.generator.device.type == "cpu" else tensor

    def example(self, batch: Transition, count: int) -> Rows:
        """The first rows of this batch, in steps of `count`, in a buffer that is empty again."""
        for step in zip(*(field.split(count) for field in batch[:6]), strict=True):
            self.add(Transition(*step))
        self.added = self.count = 0
        return self.at(torch.arange(self.batch_size, device=self.generator.device))

    @staticmethod
    def bytes_for(capacity: int, count: int, spec: Spec) -> int:
        """Largest memory for N = `count` environments: every step ends an episode."""
        fields = spec.action_bytes + 4 + 2  # reward, flags
        successors, older = 4 + 4 + 4, spec.stack - 1  # pointer, behind, free; data/stacks.py
        row = 2 * spec.obs_bytes // spec.stack + fields + successors + 4 * older
        return ring_rows(capacity + older * count, count) * row

    def add(self, transition: Transition) -> None:
        """Stores N transitions without `latent`, overwriting the oldest."""
        obs, action, reward, next_obs, terminated, truncated, _ = transition
        fields = [action, reward, terminated, truncated]
        if not self.count:
            self.begin(obs, fields)
        start = self.added % self.ring
        stop = start + self.count
        after = stop % self.ring
        for index in self.behind[start:stop].nonzero()[0]:
            self.free.append(self.behind[start + index])
            self.behind[start + index] = 0
            self.pointer_array[start + index] = after + index
        last = self.last_next_obs
        if obs is not last:
            if last is not None:
                for index in (obs != last).any(-1).nonzero().flatten().tolist():
                    self.store_successor(self.added - self.count + index, last[index])
            self.obs_array[start:stop] = self.as_array(obs)
        self.obs_array[after : after + self.count] = self.as_array(next_obs)
        for field, values in zip(self.field_arrays, fields, strict=True):
            field[start:stop] = self.as_array(values)
        self.last_next_obs = next_obs
        self.added += self.count

    def store_successor(self, number: int, successor: Tensor) -> None:
        """Stores the successor (O,) of transition `number` behind the ring."""
        if not self.free:
            self.free.append(self.ring + self.used)
            self.used += 1
        row, index = self.free.pop(), number % self.ring
        self.obs_array[row] = self.as_array(successor)
        self.pointer_array[index] = row
        self.behind[index] = row

    def batches(self) -> Iterator[Rows]:
        """Batches (B, ·) until `updates_per_step` is met; none while warming up."""
        if self.warming_up or not len(self):
            return
        owed = int((self.added - self.learning_starts + 1) * self.updates_per_step)
        while self.sampled < owed:
            self.sampled += 1
            yield self.sample()

    def sample(self) -> Rows:
        """One batch (B, ·), uniform with replacement over what is stored."""
        row = torch.randint(
            len(self), (self.batch_size,), generator=self.generator, device=self.generator.device
        )
        oldest = self.added - len(self)
        if oldest:  # which is not in row 0
            row = (row + oldest) % self.ring
        return self.at(row)

    def at(self, row: Tensor) -> Rows:
        """The transitions (B, ·) in these rows (B,) of the ring."""
        return Rows(row, self.obs, self.pointer, *self.fields)

    def state_dict(self) -> dict[str, Any]:
        """All but the rows, see `copy_rows`."""
        state: dict[str, Any] = {
            "capacity": self.capacity,
            "added": self.added,
            "sampled": self.sampled,
            "generator": self.generator.get_state(),
            "count": self.count,
        }
        return {**state, "following": self.last_next_obs} if self.count else state

    @property
    def first_row(self) -> int:
        """The number of the oldest transition that a later batch may need."""
        return max(self.lost, self.added - self.ring + self.count)

    def columns(self) -> dict[str, Tensor]:
        """The arrays (ring, ...) whose rows are saved, by name; `obs` is longer."""
        return {"obs": self.obs, **{f"field{i}": field for i, field in enumerate(self.fields)}}

    def copy_rows(self, start: int, stop: int) -> dict[str, Tensor]:
        """Copies of the rows of transitions number `start` to `stop`, for `restore`.

        They include the successors that these steps stored: those of the step before each.
        """
        device = self.generator.device
        row = torch.arange(start, stop, device=device) % self.ring
        before = np.arange(max(start - self.count, self.added - self.capacity), stop - self.count)
        behind = self.behind[before % self.ring]
        return {
            "numbers": torch.arange(start, stop),
            **{name: column.index_select(0, row) for name, column in self.columns().items()},
            "ends": torch.from_numpy(before[behind > 0]),
            "ended": self.obs.index_select(0, torch.from_numpy(behind[behind > 0]).to(device)),
        }

    def restore(self, state: dict[str, Any], pieces: Iterable[dict[str, Tensor]]) -> None:
        """Restores a `state_dict`, and the results of `copy_rows` for all rows since `first_row`.

        If the first ones are missing, the buffer has fewer transitions.
        """
        self.added, self.sampled = state["added"], state["sampled"]
        restore_generator(self.generator, state["generator"])
        self.count = self.lost = 0
        for piece in pieces:
            if not self.count:
                self.begin(piece["obs"][: state["count"]], [piece[f"field{i}"] for i in range(4)])
                self.lost = int(piece["numbers"][0])
            fresh = (piece["numbers"] >= self.first_row).nonzero().flatten()
            row = (piece["numbers"][fresh] % self.ring).to(self.obs.device)
            for name, column in self.columns().items():
                column[row] = piece[name][fresh].to(column.device)
            for number, successor in zip(piece["ends"].tolist(), piece["ended"], strict=True):
                if number >= self.added - self.capacity:
                    self.store_successor(number, successor)
        if self.lost > max(0, self.added - self.ring + self.count):  # the first are missing
            self.lost += self.spare * self.count
        if self.count:
            after = self.added % self.ring
            self.last_next_obs = state["following"].cpu()
            self.obs[after : after + self.count] = state["following"]
