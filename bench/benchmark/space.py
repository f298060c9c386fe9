"""An environment of any size that does nothing: for what depends on sizes alone."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

LENGTH = 200


class Space(gymnasium.Env[np.ndarray, Any]):
    """Random observations and rewards.

    Args:
        obs_dim: components of an observation.
        action_dim: components of an action in [-1, 1].
        discrete: so many actions instead.
    """

    def __init__(self, obs_dim: int = 3, action_dim: int = 1, discrete: bool = False) -> None:
        self.observation_space = Box(-10.0, 10.0, (obs_dim,), np.float32)
        box = Box(-1.0, 1.0, (action_dim,), np.float32)
        self.action_space = Discrete(action_dim) if discrete else box

    def observation(self) -> np.ndarray:
        size = self.observation_space.shape
        return self.np_random.standard_normal(size, dtype=np.float32).clip(-10, 10)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.observation(), float(self.np_random.standard_normal()), False, False, {}


gymnasium.register("Space-v0", f"{__name__}:{Space.__name__}", max_episode_steps=LENGTH)
