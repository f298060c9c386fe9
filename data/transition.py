"""The one record of experience."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Transition(NamedTuple):
    """What happened: (N, ·) from the environments, (B, ·) from replay, (T, N, ·) from a rollout."""

    obs: Tensor  # (*, O) float32
    action: Tensor  # (*, A) float32 in policy units, or (*,) int64
    reward: Tensor  # (*,) float32
    next_obs: Tensor  # (*, O), the true successor, never the observation after a reset
    terminated: Tensor  # (*,) bool: the task ended here, nothing to bootstrap from
    truncated: Tensor  # (*,) bool: the clock ran out, bootstrap from next_obs but do not chain
    latent: Tensor | None = None  # (*, A) the draw before squashing; replay drops it


@dataclass(frozen=True)
class Spec:
    """Shapes of an environment, as an agent needs them."""

    obs_dim: int
    action_dim: int  # components of a continuous action, or number of discrete actions
    discrete: bool
