"""Transitions, and the shapes of an environment."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Transition(NamedTuple):
    """Steps: (N, ·) of the environments, (B, ·) of a replay, or (T, N, ·) of a rollout."""

    obs: Tensor  # (*, O) float32, the bytes of an image, or rows as of `Unpack`
    action: Tensor  # (*, A) float32 in policy units, (*,) int64, or (*, D) int64
    reward: Tensor  # (*,) float32
    next_obs: Tensor  # as obs; the true successor, never the observation after a reset
    terminated: Tensor  # (*,) bool: the task ended, the next value is 0
    truncated: Tensor  # (*,) bool: cut by a time limit, the next value is that of next_obs
    latent: Tensor | None = None  # (*, A) the draw before squashing; a replay does not store it

    def read(self) -> "Transition":
        return self


class Rows(NamedTuple):
    """Transitions (B, ·) in the arrays of a replay; valid until its next `add`."""

    row: Tensor  # (B,) int64, their rows
    obs: Tensor  # (rows, O); successors of ended episodes come last
    pointer: Tensor  # (transitions,) the row of the successor in `obs`
    action: Tensor  # (transitions, A) or (transitions,), as all below
    reward: Tensor
    terminated: Tensor
    truncated: Tensor

    def read(self) -> Transition:
        """Copies of these rows, (B, ·)."""
        places = self.places()
        obs, next_obs = (self.obs.index_select(0, p).view(len(self.row), -1) for p in places)
        action, reward, *ends = (field.index_select(0, self.row) for field in self[3:])
        return Transition(obs, action, reward, next_obs, *ends)

    def places(self) -> tuple[Tensor, Tensor]:
        """Rows of `obs` with the observations, and with their successors."""
        return self.row, self.pointer.index_select(0, self.row)


Batch = Transition | Rows


@dataclass(frozen=True)
class Spec:
    """Shapes of an environment, as an agent needs them."""

    obs_dim: int
    action_dim: int  # components of a continuous action, or (largest) number of discrete actions
    discrete: bool
    choices: tuple[int, ...] = ()  # several discrete choices at once: how many actions each has
    images: tuple[tuple[int, tuple[int, ...]], ...] = ()  # first component and shape of each
    pixels: bool = False  # an observation is the bytes of one image, converted by the networks
    bytes: tuple[tuple[int, int], ...] = ()  # images of bytes among other numbers: first, last + 1
    mask: int = 0  # last components of an observation: 1 for a permitted action, else 0
    stack: int = 1  # frames in an observation of pixels, each the bytes of one step

    @property
    def kind(self) -> str:
        if self.choices:
            return "multi_discrete"
        return "discrete" if self.discrete else "continuous"

    @property
    def obs_bytes(self) -> int:
        """Size of an observation."""
        return 4 * self.obs_dim - 3 * self.image_bytes

    @property
    def image_bytes(self) -> int:
        """Size of the images of bytes in an observation."""
        return self.obs_dim if self.pixels else sum(stop - start for start, stop in self.bytes)

    @property
    def action_bytes(self) -> int:
        """Size of an action."""
        return 8 * max(1, len(self.choices)) if self.discrete else 4 * self.action_dim

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one draw: (A,), (K,) or (D, K)."""
        return (len(self.choices), self.action_dim) if self.choices else (self.action_dim,)
