"""The one record of experience."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Transition(NamedTuple):
    """One step each: (N, ·) from the environments, (B, ·) from replay, (T, N, ·) from a rollout."""

    obs: Tensor  # (*, O) float32, the bytes of an image, or rows as of `Unpack`
    action: Tensor  # (*, A) float32 in policy units, (*,) int64, or (*, D) int64
    reward: Tensor  # (*,) float32
    next_obs: Tensor  # likewise, the true successor, never the observation after a reset
    terminated: Tensor  # (*,) bool: the task ended here, nothing to bootstrap from
    truncated: Tensor  # (*,) bool: the clock ran out, bootstrap from next_obs but do not chain
    latent: Tensor | None = None  # (*, A) the draw before squashing; replay drops it

    @property
    def leading(self) -> torch.Size:
        """(N,), (B,) or (T, N)."""
        return self.reward.shape

    def read(self) -> "Transition":
        return self


class Rows(NamedTuple):
    """Transitions (B, ·) that still lie in the arrays of a replay; valid until its next `add`."""

    row: Tensor  # (B,) int64, which ones
    obs: Tensor  # (rows, O), successors of ended episodes behind the others
    pointer: Tensor  # (transitions,) the row of `obs` that holds the successor
    action: Tensor  # (transitions, A) or (transitions,), as are those that follow
    reward: Tensor
    terminated: Tensor
    truncated: Tensor

    @property
    def leading(self) -> torch.Size:
        """(B,)."""
        return self.row.shape

    def read(self) -> Transition:
        """Copies of these rows, (B, ·)."""
        row = self.row
        return Transition(
            self.obs.index_select(0, row),
            self.action.index_select(0, row),
            self.reward.index_select(0, row),
            self.obs.index_select(0, self.pointer.index_select(0, row)),
            self.terminated.index_select(0, row),
            self.truncated.index_select(0, row),
        )


Batch = Transition | Rows


@dataclass(frozen=True)
class Spec:
    """Shapes of an environment, as an agent needs them."""

    obs_dim: int
    action_dim: int  # components of a continuous action, or number of discrete actions (at most)
    discrete: bool
    choices: tuple[int, ...] = ()  # several discrete choices at once: how many actions each has
    images: tuple[tuple[int, tuple[int, ...]], ...] = ()  # first component and shape of each
    pixels: bool = False  # an observation is the bytes of one image, kept so until it is read
    bytes: tuple[tuple[int, int], ...] = ()  # of images among other numbers: first, last + 1
    mask: int = 0  # last components of an observation: 1 for each permitted action, else 0
    stack: int = 1  # frames in an observation of pixels, each the bytes of one step

    @property
    def kind(self) -> str:
        if self.choices:
            return "multi_discrete"
        return "discrete" if self.discrete else "continuous"

    @property
    def obs_bytes(self) -> int:
        """Of one observation, as it is stored whole."""
        return 4 * self.obs_dim - 3 * self.image_bytes

    @property
    def image_bytes(self) -> int:
        """Of the images in an observation that are of bytes."""
        return self.obs_dim if self.pixels else sum(stop - start for start, stop in self.bytes)

    @property
    def action_bytes(self) -> int:
        """Of one action, as it is stored."""
        return 8 * max(1, len(self.choices)) if self.discrete else 4 * self.action_dim

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Of the noise of one draw: (A,), (K,) or (D, K)."""
        return (len(self.choices), self.action_dim) if self.choices else (self.action_dim,)
