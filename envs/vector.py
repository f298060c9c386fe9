"""Copies of an environment whose state is their seeds, and what was done in them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from common.seeding import derive

Step = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
STEPS, NUMBERS = 200_000, 1 << 26  # of the actions that are kept of the longest episodes


class Journal:
    """One row (N, ...) of each of the last steps, in one array that grows."""

    def __init__(self) -> None:
        self.array: np.ndarray = np.zeros((0, 0))
        self.start = self.stop = 0

    def add(self, action: np.ndarray) -> None:
        if self.stop == len(self.array):
            kept = self.rows()
            self.array = np.zeros((max(1024, 2 * len(kept)), *action.shape), action.dtype)
            if len(kept):
                self.array[: len(kept)] = kept
            self.start, self.stop = 0, len(kept)
        self.array[self.stop] = action
        self.stop += 1

    def keep(self, count: int) -> None:
        """Forgets all but the last `count`."""
        self.start = max(self.start, self.stop - count)

    def rows(self) -> np.ndarray:
        """Those kept, (T, N, ...)."""
        return self.array[self.start : self.stop]


class Vector:
    """Copies in this process or one process each, which reset only when told to.

    Each episode is reset with a seed derived from (seed, environment index, episode number), so
    that sync and async give the same episodes and any single one can be repeated: the state of an
    environment is its episode's number and the actions since it began. The rewards that these led
    to are kept too, and tell whether they do so again. Where the episode before was longer, it is
    kept with them: few rewards, or none, would tell nothing. An episode that is longer than what is
    kept cannot be repeated.

    Args:
        make: makes the copies.
        count: how many.
        journal: whether to keep what repeats an episode.
    """

    def __init__(self, make: Callable[[], Any], count: int, journal: bool = True) -> None:
        self.make = make
        self.envs = make()
        self.observation_space = self.envs.single_observation_space
        self.action_space = self.envs.single_action_space
        self.limit: int | None = getattr(self.envs, "limit", None)
        self.count = count
        width = max(1, count * int(np.prod(self.action_space.shape or ())))
        self.most = min(STEPS, NUMBERS // width) if journal else 0
        self.reset_counters(0)

    def reset_counters(self, seed: int) -> None:
        self.seed = seed
        self.episodes = [0] * self.count
        self.ages = np.zeros(self.count, dtype=np.int64)  # steps since each episode began
        self.before = np.zeros(self.count, dtype=np.int64)  # of the one before it
        self.journal, self.rewards = Journal(), Journal()  # since the first kept episode began

    def reset(self, seed: int) -> np.ndarray:
        self.reset_counters(seed)
        return self.begin(np.ones(self.count, dtype=np.bool_))

    def begin(self, mask: np.ndarray, back: np.ndarray | None = None) -> np.ndarray:
        """Begins the current episode of the environments in `mask` (N,), from its own seed.

        Where `back` (N,) says so, the one before it.
        """
        seeds: list[int | None] = [None] * self.count
        for index in map(int, np.flatnonzero(mask)):
            number = self.episodes[index] - (0 if back is None else int(back[index]))
            seeds[index] = derive(self.seed, "episode", index, number) >> 32
        return self.envs.reset(seed=seeds, options={"reset_mask": mask})[0]

    def step(self, action: np.ndarray) -> Step:
        if self.most:
            self.journal.add(action)
        self.ages += 1
        obs, reward, terminated, truncated, _ = self.envs.step(action)
        if self.most:
            self.rewards.add(reward)
            if self.journal.stop - self.journal.start > self.most:
                self.forget()
        return obs, reward, terminated, truncated

    def reset_done(self, done: np.ndarray) -> np.ndarray:
        for index in map(int, np.flatnonzero(done)):
            self.episodes[index] += 1
        self.before[done], self.ages[done] = self.ages[done], 0
        self.forget()
        return self.begin(done)

    def abandon(self, mask: np.ndarray) -> np.ndarray:
        self.ages[mask] = 0  # nothing of them can be held against anything
        return self.reset_done(mask)

    @property
    def lasting(self) -> str | None:
        """Why an episode may depend on those before it, if it is known to."""
        return self.envs.lasting

    def forget(self) -> None:
        """Keeps no more than what tells: an episode, and one before it that was longer.

        Nothing is kept of an episode of more than `most` steps.
        """
        kept = self.ages + self.before
        self.before[(self.before <= self.ages) | (kept > self.most)] = 0
        kept = self.ages + self.before
        for journal in (self.journal, self.rewards):
            journal.keep(int(kept[kept <= self.most].max(initial=0)))

    def state_dict(self) -> dict[str, Any]:
        self.forget()
        return {
            "seed": self.seed,
            "episodes": list(self.episodes),
            "ages": self.ages.tolist(),
            "before": self.before.tolist(),
            "actions": torch.from_numpy(self.journal.rows().copy()),
            "rewards": torch.from_numpy(self.rewards.rows().copy()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        self.seed, self.episodes = state["seed"], list(state["episodes"])
        self.ages, self.before = np.array(state["ages"]), np.array(state["before"])
        actions, rewards = state["actions"].numpy(), state["rewards"].numpy()
        strayed = self.ages > len(actions)  # longer than what is kept
        self.ages[strayed] = 0
        kept, back = self.ages + self.before, self.before > 0
        self.journal, self.rewards = Journal(), Journal()
        obs = self.begin(np.ones(self.count, dtype=np.bool_))
        ended = np.zeros(self.count, dtype=np.bool_)
        for left, action, was in zip(range(len(actions), 0, -1), actions, rewards, strict=True):
            first = (kept == left) | ((kept < left) & ended)  # whose time has not come: whatever
            if first.any():
                self.begin(first, back)
            over = back & (self.ages == left)  # the episode before
            if over.any():
                self.begin(over)
            self.journal.add(action)
            self.rewards.add(was)
            obs, reward, terminated, truncated, _ = self.envs.step(action)
            ends = back & (self.ages == left - 1)
            ended = terminated | truncated
            strayed = strayed | (kept >= left) & ((reward != was) | (ended != ends))
        fresh = self.ages == 0
        return self.begin(fresh) if fresh.any() else obs, strayed

    def renew(self) -> None:
        self.envs.close()
        self.envs = self.make()

    def close(self) -> None:
        self.envs.close()
