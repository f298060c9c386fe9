"""Off-policy storage: a ring of transitions, sampled uniformly."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.seeding import go_on
from data.transition import Rows, Spec, Transition

FIELDS = ("action", "reward", "terminated", "truncated")  # kept beside the observations, in order


def ring_rows(capacity: int, count: int) -> int:
    """The capacity and one more step, in whole steps of `count` environments."""
    return (-(-capacity // count) + 1) * count


def spare_rows(capacity: int, count: int) -> int:
    """Rows behind the ring: as many as there are transitions, each of which may end an episode."""
    return max(capacity, count)


class Ends:
    """The transitions whose successor lies behind the ring, oldest first, and its row.

    A queue. A new row is used only where none is free: memory that no episode needs is never
    touched.

    Args:
        first: the first row behind the ring.
        size: the number of rows there.
    """

    def __init__(self, first: int, size: int) -> None:
        self.first, self.size = first, size
        self.numbers = np.empty(size, np.int64)  # of transitions, entry k at index k % size
        self.rows = np.empty(size, np.int32)  # entries freed .. added, then the rows that are free
        self.added = self.freed = self.used = 0
        self.oldest = math.inf  # number of the oldest transition

    def add(self, number: int) -> int:
        """Takes a row for the successor of transition `number`, above all before it."""
        index = self.added % self.size
        if self.added == self.freed + self.used:  # none is free
            self.rows[index] = self.first + self.used
            self.used += 1
        if self.added == self.freed:
            self.oldest = number
        self.numbers[index] = number
        self.added += 1
        return int(self.rows[index])

    def free(self) -> int:
        """Frees the row of the oldest transition, whose number is returned."""
        number, row = int(self.oldest), self.rows[self.freed % self.size]
        self.rows[(self.freed + self.used) % self.size] = row
        self.freed += 1
        more = self.freed < self.added
        self.oldest = int(self.numbers[self.freed % self.size]) if more else math.inf
        return number

    def between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and rows of those of the transitions `start` to `stop`."""
        entries = range(self.freed, self.added)

        def number(entry: int) -> int:
            return int(self.numbers[entry % self.size])

        first, last = (bisect_left(entries, bound, key=number) for bound in (start, stop))
        indices = np.arange(self.freed + first, self.freed + last) % self.size
        return self.numbers[indices], self.rows[indices]


class Replay:
    """Ring buffer of single transitions; `batches` yields as many as the update ratio allows.

    A batch is `Rows`, which the update reads: that way the reading is a part of its graph.

    An observation is stored once. The successor of a row is the row N further, which the next step
    of the same environment fills; where that step begins with another observation, the successor
    lies behind the ring, where `pointer` leads. So every batch is exact.

    Behind the ring is room for episodes of a single step, the worst case. The arrays never grow: a
    graph may read from them, and `bytes_for` is all that they will ever take.

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
        self.added = 0  # transitions ever added; number n lies in row n % ring
        self.sampled = 0  # batches ever handed out
        self.lost = 0  # transitions before this number are damaged on the disk
        self.count = 0  # N, known from the first transition
        self.ring = 0  # rows: capacity and one more step, in whole steps
        self.obs = torch.empty(0)  # (ring + spare, O)
        self.pointer = torch.empty(0)  # (ring,) int32, the row of `obs` that holds the successor
        self.fields: list[Tensor] = []  # of `FIELDS`, each (ring, ...)
        self.obs_array: Any = None  # the same memory as the three above, as `add` writes into it
        self.pointer_array: Any = None
        self.field_arrays: list[Any] = []
        self.last_next_obs: Tensor | None = None  # (N, O) of the last step

    @property
    def warming_up(self) -> bool:
        return self.added < self.learning_starts

    def __len__(self) -> int:
        return min(self.added - self.lost, self.capacity)

    def allocate(self, count: int, obs: Tensor, fields: list[Tensor]) -> None:
        """Makes the arrays for N = `count` and rows like these; their memory is taken as they fill.

        Arrays of the right sizes that are there already are used, for a graph may read from them.
        """
        device = self.generator.device
        self.ring = ring_rows(self.capacity, count)
        rows = self.ring + spare_rows(self.capacity, count)
        sizes = [(rows, *obs.shape[1:]), *((self.ring, *like.shape[1:]) for like in fields)]
        kinds = [like.dtype for like in (obs, *fields)]
        there = (self.obs, *self.fields)
        if [a.shape for a in there] != sizes or [a.dtype for a in there] != kinds:
            self.obs, *self.fields = (
                torch.empty(size, dtype=kind, device=device)
                for size, kind in zip(sizes, kinds, strict=True)
            )
            self.pointer = torch.empty(self.ring, dtype=torch.int32, device=device)
            self.obs_array = self.as_array(self.obs)
            self.pointer_array = self.as_array(self.pointer)
            self.field_arrays = [self.as_array(field) for field in self.fields]
        torch.arange(self.ring, out=self.pointer)
        self.pointer.add_(count).remainder_(self.ring)

    def begin(self, obs: Tensor, fields: list[Tensor]) -> None:
        """Becomes an empty storage for rows like these, of N environments."""
        self.count = len(obs)
        self.allocate(self.count, obs, fields)
        self.ends = Ends(self.ring, spare_rows(self.capacity, self.count))
        self.last_next_obs = None

    def as_array(self, tensor: Tensor) -> Any:
        """The same memory as an array of NumPy, which writes a row in a third of torch's time.

        Not where the storage is on a GPU, which NumPy cannot see.
        """
        return tensor.numpy() if self.generator.device.type == "cpu" else tensor

    def example(self, batch: Transition, count: int) -> Rows:
        """Rows that hold this batch (B, ·), as if of `count` environments; nothing of it is kept.

        So the observation `count` rows further is the successor; the last ones have their own. It
        has to be made before the first transition is added.
        """
        obs, action, reward, next_obs, terminated, truncated, _ = batch
        fields = [action, reward, terminated, truncated]
        self.allocate(count, obs, fields)
        self.obs[count : count + len(obs)] = next_obs
        self.obs[: len(obs)] = obs
        for field, values in zip(self.fields, fields, strict=True):
            field[: len(obs)] = values
        return self.at(torch.arange(len(obs), device=obs.device))

    @staticmethod
    def bytes_for(capacity: int, count: int, spec: Spec) -> int:
        """The most memory it takes, with N = `count`: where every step ends an episode.

        With long episodes the rows behind the ring are reserved, but hardly any is ever used.
        """
        ring, spare = ring_rows(capacity, count), spare_rows(capacity, count)
        fields = spec.action_bytes + 4 + 2 + 4  # reward, flags, pointer
        ends = 8 + 4  # number and row
        return ring * fields + (ring + spare) * spec.obs_bytes + spare * ends

    def add(self, transition: Transition) -> None:
        """Stores N transitions, overwriting the oldest; `latent` is dropped."""
        obs, action, reward, next_obs, terminated, truncated, _ = transition
        fields = [action, reward, terminated, truncated]
        if not self.count:
            self.begin(obs, fields)
        start = self.added % self.ring
        stop = start + self.count
        if obs is not self.last_next_obs:
            self.store_successors(obs)
            self.obs_array[start:stop] = self.as_array(obs)
        after = stop % self.ring
        self.obs_array[after : after + self.count] = self.as_array(next_obs)
        for field, values in zip(self.field_arrays, fields, strict=True):
            field[start:stop] = self.as_array(values)
        self.last_next_obs = next_obs
        self.added += self.count
        while self.ends.oldest < self.added - self.capacity:
            number = self.ends.free()
            self.pointer_array[number % self.ring] = (number + self.count) % self.ring

    def store_successors(self, obs: Tensor) -> None:
        """Stores behind the ring those of the last step that this step's `obs` (N, O) are not."""
        last = self.last_next_obs
        if last is None:
            return
        for index in (obs != last).any(-1).nonzero().flatten().tolist():
            self.store_successor(self.added - self.count + index, last[index])

    def store_successor(self, number: int, successor: Tensor) -> None:
        """Stores the successor (O,) of transition `number` behind the ring."""
        row = self.ends.add(number)
        self.obs_array[row] = self.as_array(successor)
        self.pointer_array[number % self.ring] = row

    def batches(self) -> Iterator[Rows]:
        """Batches (B, ·) until `updates_per_step` is met; none while warming up."""
        if self.warming_up:
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
        if oldest:  # it is not in row 0
            row = (row + oldest) % self.ring
        return self.at(row)

    def at(self, row: Tensor) -> Rows:
        """The transitions (B, ·) in these rows (B,) of the ring."""
        return Rows(row, self.obs, self.pointer, *self.fields)

    def rows(self, start: int, stop: int) -> dict[str, Tensor]:
        """Copies of the rows of transitions number `start` to `stop`, with numbers and successors.

        `load_state_dict` takes such pieces. The successors are those stored meanwhile: each step
        stores those of the one before.
        """
        device = self.generator.device
        row = torch.arange(start, stop, device=device) % self.ring
        first, last = start - self.count, stop - self.count
        numbers, behind = map(torch.from_numpy, self.ends.between(first, last))
        return {
            "numbers": torch.arange(start, stop),
            "obs": self.obs.index_select(0, row),
            **{f"field{i}": field.index_select(0, row) for i, field in enumerate(self.fields)},
            "ends": numbers,
            "ended": self.obs.index_select(0, behind.to(device)),
        }

    def first_row(self) -> int:
        """The number of the oldest transition that a later batch may need."""
        return max(self.lost, self.added - self.ring + self.count)

    def state_dict(self) -> dict[str, Any]:
        """All but the rows, which are `rows(first_row(), added)`."""
        state: dict[str, Any] = {
            "capacity": self.capacity,
            "added": self.added,
            "sampled": self.sampled,
            "generator": self.generator.get_state(),
            "count": self.count,
        }
        if self.count:
            after = self.added % self.ring
            state["following"] = self.obs[after : after + self.count]
        return state

    def load_state_dict(self, state: dict[str, Any], pieces: Iterable[dict[str, Tensor]]) -> None:
        """Restores the state and the pieces of `rows` that hold all since `first_row`.

        Where the first of them are missing, so are their transitions.
        """
        self.added = state["added"]
        self.sampled = state["sampled"]
        go_on(self.generator, state["generator"])
        self.count = self.lost = 0
        for piece in pieces:
            fields = [piece[f"field{i}"] for i in range(len(FIELDS))]
            if not self.count:
                self.begin(piece["obs"][: state["count"]], fields)
                self.lost = int(piece["numbers"][0])
            device = self.generator.device
            fresh = (piece["numbers"] >= self.first_row()).nonzero().flatten()
            row = (piece["numbers"][fresh] % self.ring).to(device)
            for stored, kept in zip([self.obs, *self.fields], [piece["obs"], *fields], strict=True):
                stored[row] = kept[fresh].to(device)
            for number, successor in zip(piece["ends"].tolist(), piece["ended"], strict=True):
                if number >= self.added - self.capacity:
                    self.store_successor(number, successor)
        if self.count:
            after = self.added % self.ring
            self.obs[after : after + self.count] = state["following"].to(self.obs.device)
            self.last_next_obs = state["following"].cpu().clone()
