"""Environment copies stepped one after another in this process."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np


class Serial:
    """Gymnasium's `SyncVectorEnv` without automatic reset, and without copies that nobody needs.

    What it returns is its own: valid until the next call.

    Args:
        makes: one for each copy, which checks what it returns (`envs.border.Checked`).
    """

    def __init__(self, makes: Sequence[Callable[[], Any]]) -> None:
        self.envs: list[Any] = []
        with ExitStack() as undo:  # where one cannot be made, those before it are closed
            undo.callback(self.close)
            for make in makes:
                self.envs.append(make())
            undo.pop_all()
        self.single_observation_space: Any = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        space, count = self.single_observation_space, len(self.envs)
        self.obs = np.zeros((count, *space.shape), space.dtype)
        self.reward = np.zeros(count)
        self.terminated = np.zeros(count, dtype=np.bool_)
        self.truncated = np.zeros(count, dtype=np.bool_)

    @property
    def limit(self) -> int | None:
        """Steps after which Gymnasium's TimeLimit truncates an episode; None without one."""
        steps = "_max_episode_steps"
        found = self.envs[0].has_wrapper_attr(steps) and self.envs[0].get_wrapper_attr(steps)
        return int(found) if found else None

    def reset(self, seed: list[int | None], options: dict[str, Any]) -> tuple[np.ndarray, None]:
        """Resets those in `options["reset_mask"]`, (N,) bool; the observations of all, (N, ...)."""
        for index in map(int, np.flatnonzero(options["reset_mask"])):
            self.obs[index] = self.envs[index].reset(seed=seed[index], options={})[0]
        return self.obs, None

    def step(
        self, action: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, None]:
        """Observations (N, ...), rewards, terminated, truncated (N,) after one action in each."""
        action = action.copy()  # which an environment may change in place
        for index, env in enumerate(self.envs):
            obs, reward, terminated, truncated, _ = env.step(action[index])
            self.obs[index], self.reward[index] = obs, reward
            self.terminated[index], self.truncated[index] = terminated, truncated
        return self.obs, self.reward, self.terminated, self.truncated, None

    @property
    def lasting(self) -> str | None:
        """Why an episode may depend on those before it, if it is known to."""
        return self.envs[0].lasting

    def close(self) -> None:
        """Closes every copy, whatever another one raises."""
        with ExitStack() as closing:
            for env in reversed(self.envs):
                closing.callback(env.close)
