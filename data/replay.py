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


def ring_rows(capacity: int, count: int) -> int:
    """The capacity and one more step, in whole steps of `count` environments."""
    return (-(-capacity // count) + 1) * count


def spare_rows(capacity: int, count: int) -> int:
    """Rows behind the ring: as many as there are transitions, each of which may end an episode."""
    return max(capacity, count)


class Ends:
    """Which transitions have their successor behind the ring, oldest first, and in which row.

    A new row is used only where none is free: memory that no episode needs is never touched.

    Args:
        first: the first row behind the ring.
        size: how many there are.
    """

    def __init__(self, first: int, size: int) -> None:
        self.first, self.size = first, size
        self.numbers = np.empty(size, np.int64)  # of transitions, entry k in place k % size
        self.rows = np.empty(size, np.int32)  # entries freed .. added, then those that are free
        self.added = self.freed = self.used = 0
        self.oldest = math.inf  # number of the oldest transition

    def add(self, number: int) -> int:
        """Takes a row for the successor of transition `number`, above all before it."""
        place = self.added % self.size
        if self.added == self.freed + self.used:  # none is free
            self.rows[place] = self.first + self.used
            self.used += 1
        if self.added == self.freed:
            self.oldest = number
        self.numbers[place] = number
        self.added += 1
        return int(self.rows[place])

    def free(self) -> int:
        """Frees the row of the oldest transition, whose number is returned."""
        number, row = int(self.oldest), self.rows[self.freed % self.size]
        self.rows[(self.freed + self.used) % self.size] = row
        self.freed += 1
        more = self.freed < self.added
        self.oldest = int(self.numbers[self.freed % self.size]) if more else math.inf
        return number

    def between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and rows of the transitions `start` to `stop` in it."""
        entries = range(self.freed, self.added)

        def number(entry: int) -> int:
            return int(self.numbers[entry % self.size])

        first, last = (bisect_left(entries, bound, key=number) for bound in (start, stop))
        places = np.arange(self.freed + first, self.freed + last) % self.size
        return self.numbers[places], self.rows[places]


class Replay:
    """Ring buffer of single transitions; `batches` yields what the update ratio allows.

    It yields rows, which the update reads: that way the reading is a part of its graph.

    An observation is stored once. The successor of a row is the row N further, which the next step
    of the same environment fills; where that step begins with another observation, the successor
    lies behind the ring, and `pointer` leads there. So every batch is exact, whatever is added.

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
        self.obs = torch.empty(0)  # (ring + places, O)
        self.pointer = torch.empty(0)  # (ring,) int32, the row of `obs` that holds the successor
        self.links: Any = None  # the same memory, as `add` writes into it
        self.fields: list[Tensor] = []  # action, reward, terminated, truncated, each (ring, ...)
        self.views: list[Any] = []  # the same memory, `obs` first, as `add` writes into it

    @property
    def warming_up(self) -> bool:
        return self.added < self.learning_starts

    def __len__(self) -> int:
        return min(self.added - self.lost, self.capacity)

    def allocate(self, obs: Tensor, kept: list[Tensor]) -> None:
        """Makes the arrays for N rows like these; their memory is taken as they fill.

        Arrays of the right sizes that are there already are used, for a graph may read from them.
        """
        device = self.generator.device
        self.count = len(obs)
        self.ring = ring_rows(self.capacity, self.count)
        spare = spare_rows(self.capacity, self.count)
        rows = self.ring + spare
        sizes = [(rows, *obs.shape[1:]), *((self.ring, *like.shape[1:]) for like in kept)]
        kinds = [like.dtype for like in (obs, *kept)]
        there = (self.obs, *self.fields)
        if [a.shape for a in there] != sizes or [a.dtype for a in there] != kinds:
            self.obs, *self.fields = (
                torch.empty(size, dtype=kind, device=device)
                for size, kind in zip(sizes, kinds, strict=True)
            )
            self.pointer = torch.empty(self.ring, dtype=torch.int32, device=device)
            self.views = [self.plain(array) for array in (self.obs, *self.fields)]
            self.links = self.plain(self.pointer)
        torch.arange(self.ring, out=self.pointer)
        self.pointer.add_(self.count).remainder_(self.ring)
        self.ends = Ends(self.ring, spare)
        self.following: Tensor | None = None  # next_obs (N, O) of the last step

    def plain(self, tensor: Tensor) -> Any:
        """The same memory as an array of NumPy, which writes a row in a third of torch's time.

        Not where the storage is on a GPU, which NumPy cannot see.
        """
        return tensor.numpy() if self.generator.device.type == "cpu" else tensor

    def example(self, batch: Transition, count: int) -> Rows:
        """Rows that hold this batch (B, ·), as if of `count` environments; nothing of it is kept.

        So the observation `count` rows further is the successor; the last ones have their own.
        """
        obs, action, reward, next_obs, terminated, truncated, _ = batch
        kept = [action, reward, terminated, truncated]
        self.allocate(obs[:1].expand(count, *obs.shape[1:]), kept)
        self.obs[count : count + len(obs)] = next_obs
        self.obs[: len(obs)] = obs
        for field, values in zip(self.fields, kept, strict=True):
            field[: len(obs)] = values
        self.count = 0
        return self.at(torch.arange(len(obs), device=obs.device))

    @staticmethod
    def bytes_for(capacity: int, count: int, spec: Spec) -> int:
        """What it takes in memory at most, with N = `count`: where every step ends an episode.

        With long episodes the rows behind the ring are reserved, but hardly any is ever used.
        """
        ring, spare = ring_rows(capacity, count), spare_rows(capacity, count)
        fields = spec.action_bytes + 4 + 2 + 4  # reward, flags, pointer
        ends = 8 + 4  # number and row
        return ring * fields + (ring + spare) * spec.obs_bytes + spare * ends

    def add(self, transition: Transition) -> None:
        """Stores N transitions, overwriting the oldest; `latent` is dropped."""
        obs, action, reward, next_obs, terminated, truncated, _ = transition
        kept = [action, reward, terminated, truncated]
        if not self.count:
            self.allocate(obs, kept)
        start = self.added % self.ring
        stop = start + self.count
        if obs is not self.following:
            self.part(obs)
            self.views[0][start:stop] = self.plain(obs)
        stored, *fields = self.views
        after = stop % self.ring
        stored[after : after + self.count] = self.plain(next_obs)
        for field, values in zip(fields, kept, strict=True):
            field[start:stop] = self.plain(values)
        self.following = next_obs
        self.added += self.count
        while self.ends.oldest < self.added - self.capacity:
            number = self.ends.free()
            self.links[number % self.ring] = (number + self.count) % self.ring

    def part(self, obs: Tensor) -> None:
        """Keeps those successors of the last step that this step's `obs` (N, O) are not."""
        if self.following is None:
            return
        for index in (obs != self.following).any(-1).nonzero().flatten().tolist():
            self.keep(self.added - self.count + index, self.following[index])

    def keep(self, number: int, successor: Tensor) -> None:
        """Stores the successor (O,) of transition `number` behind the ring."""
        row = self.ends.add(number)
        self.views[0][row] = self.plain(successor)
        self.links[number % self.ring] = row

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
        """What transitions number `start` to `stop` added to the storage, with copies of its rows.

        Put together over all numbers it is the storage: `load_state_dict` takes such pieces. The
        ends in it are those noted meanwhile, which a step may only do for the one before.
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
            fields = [piece[f"field{i}"] for i in range(len(piece) - 4)]
            if not self.count:
                self.allocate(piece["obs"][: state["count"]], fields)
                self.lost = int(piece["numbers"][0])
            device = self.generator.device
            fresh = (piece["numbers"] >= self.first_row()).nonzero().flatten()
            row = (piece["numbers"][fresh] % self.ring).to(device)
            for stored, kept in zip([self.obs, *self.fields], [piece["obs"], *fields], strict=True):
                stored[row] = kept[fresh].to(device)
            for number, successor in zip(piece["ends"].tolist(), piece["ended"], strict=True):
                if number >= self.added - self.capacity:
                    self.keep(number, successor)
        if self.count:
            after = self.added % self.ring
            self.obs[after : after + self.count] = state["following"].to(self.obs.device)
            self.following = state["following"].cpu().clone()
