"""The one record of experience."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Transition(NamedTuple):
    """What happened: (N, ·) from the environments, (B, ·) from replay, (T, N, ·) from a rollout."""

    obs: Tensor  # (*, O) float32, or the bytes of an image
    action: Tensor  # (*, A) float32 in policy units, (*,) int64, or (*, D) int64
    reward: Tensor  # (*,) float32
    next_obs: Tensor  # (*, O), the true successor, never the observation after a reset
    terminated: Tensor  # (*,) bool: the task ended here, nothing to bootstrap from
    truncated: Tensor  # (*,) bool: the clock ran out, bootstrap from next_obs but do not chain
    latent: Tensor | None = None  # (*, A) the draw before squashing; replay drops it


@dataclass(frozen=True)
class Spec:
    """Shapes of an environment, as an agent needs them."""

    obs_dim: int
    action_dim: int  # components of a continuous action, or number of discrete actions (at most)
    discrete: bool
    choices: tuple[int, ...] = ()  # several discrete choices at once: how many actions each has
    image: tuple[int, ...] = ()  # where an observation is one: its shape, with O numbers in all
    pixels: bool = False  # those are bytes, and kept so until a network reads them

    @property
    def kind(self) -> str:
        if self.choices:
            return "multi_discrete"
        return "discrete" if self.discrete else "continuous"

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Of what one draw needs: (A,), (K,) or (D, K)."""
        return (len(self.choices), self.action_dim) if self.choices else (self.action_dim,)
