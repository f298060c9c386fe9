"""A replay of frame stacks that stores each frame once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data.replay import Replay
from data.transition import Rows, Transition


class StackRows(Rows):
    """Rows of a `StackReplay`; `pointer` (transitions, K): K - 1 older frames and the successor."""

    __slots__ = ()

    def places(self) -> tuple[Tensor, Tensor]:
        """Rows of `obs` with the K frames of each, (B K,)."""
        older, successor = self.pointer.index_select(0, self.row).tensor_split([-1], dim=-1)
        frames = torch.cat([older, self.row.unsqueeze(-1).to(older), successor], -1)  # (B, K + 1)
        return frames[:, :-1].flatten(), frames[:, 1:].flatten()


@dataclass(eq=False)
class StackReplay(Replay):
    """A `Replay` of observations (N, K F) that are the last K frames, the newest one last.

    Within an episode the older frames of a row are the rows before it. At its beginning they are
    copies of the first frame, or a constant frame, which is stored in the last row, depending on
    `padding_type` of Gymnasium's FrameStackObservation.
    """

    stack: int  # K

    def __post_init__(self) -> None:
        super().__post_init__()
        self.spare = self.stack - 1
        self.links = torch.empty(0)  # (ring, K) int32, rows of older frames and of the successor
        self.last_stack: Tensor | None = None  # (N, K F), the successors of the last step

    def begin(self, obs: Tensor, fields: list[Tensor]) -> None:
        super().begin(obs, fields)
        if len(self.links) != self.ring:
            self.links = self.pointer.unsqueeze(-1).repeat(1, self.stack)
            self.pointer = self.links[:, -1]
            self.pointer_array = self.as_array(self.pointer)
        self.obs[-1] = 0

    def columns(self) -> dict[str, Tensor]:
        return {**super().columns(), "older": self.older}

    @property
    def older(self) -> Tensor:
        """(ring, K - 1), rows of the older frames."""
        return self.links[:, :-1]

    def newest(self, obs: Tensor) -> Tensor:
        """The newest frames (*, F) of stacks (*, K F)."""
        return obs[..., -(obs.shape[-1] // self.stack) :]

    def add(self, transition: Transition) -> None:
        stacks, following = transition.obs, transition.next_obs
        obs, begun = self.newest(stacks), list(range(len(stacks)))  # copies in a new episode
        if self.count:
            before = (self.added - self.count) % self.ring
            rows = torch.arange(before, before + self.count, device=self.links.device)
            if stacks is self.last_stack:
                assert self.last_next_obs is not None
                obs, begun = self.last_next_obs, []
            else:
                others = stacks.to(rows.device) != self.at(rows).read().next_obs
                begun = others.any(-1).nonzero().flatten().tolist()
        super().add(transition._replace(obs=obs, next_obs=self.newest(following)))
        self.last_stack = following
        start = (self.added - self.count) % self.ring
        if len(begun) < self.count:
            here = slice(start, start + self.count)
            self.older[here, :-1] = self.older[before : before + self.count, 1:]
            self.older[here, -1] = rows
        for index in begun:
            first, *_, last = stacks[index].view(self.stack, -1)
            padded = not torch.equal(first, last)
            self.older[start + index] = len(self.obs) - 1 if padded else start + index
            if padded:
                self.obs[-1] = first

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return {**state, "padding": self.obs[-1].clone()} if self.count else state

    def restore(self, state: dict[str, Any], pieces: Iterable[dict[str, Tensor]]) -> None:
        super().restore(state, pieces)
        if self.count:
            self.obs[-1] = state["padding"]

    def at(self, row: Tensor) -> Rows:
        return StackRows(row, self.obs, self.links, *self.fields)
