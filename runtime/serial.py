"""Environments stepped one after another in this process, without copies that nobody needs."""

from collections.abc import Callable
from typing import Any

import numpy as np


class Serial:
    """What Gymnasium's `SyncVectorEnv` does with automatic reset off, at a fraction of its cost.

    The arrays that it returns are its own: valid until the next call.

    Args:
        make: makes one environment, with a Box of observations.
        count: N.
    """

    def __init__(self, make: Callable[[], Any], count: int) -> None:
        self.envs = [make() for _ in range(count)]
        self.single_observation_space: Any = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.shape = self.single_observation_space.shape
        self.obs = np.zeros((count, *self.shape), self.single_observation_space.dtype)
        self.reward = np.zeros(count)
        self.terminated = np.zeros(count, dtype=np.bool_)
        self.truncated = np.zeros(count, dtype=np.bool_)

    def reset(
        self, *, seed: list[int | None], options: dict[str, Any]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Resets those in `options["reset_mask"]`, (N,) bool; observations of all, (N, ...)."""
        for index in map(int, np.flatnonzero(options["reset_mask"])):
            self.store(index, self.envs[index].reset(seed=seed[index], options={})[0])
        return self.obs, {}

    def step(
        self, action: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One action (N, ...) in each: observations, rewards, terminated, truncated, nothing."""
        for index, env in enumerate(self.envs):
            obs, reward, terminated, truncated, _ = env.step(action[index])
            self.store(index, obs)
            self.reward[index] = reward
            self.terminated[index], self.truncated[index] = terminated, truncated
        return self.obs, self.reward, self.terminated, self.truncated, {}

    def store(self, index: int, obs: Any) -> None:
        """Takes an observation over; raises ValueError where its shape is not the space's."""
        if np.shape(obs) != self.shape:  # numpy would stretch it
            raise ValueError(f"observation has shape {np.shape(obs)}, its space {self.shape}")
        self.obs[index] = obs

    def close(self) -> None:
        for env in self.envs:
            env.close()
