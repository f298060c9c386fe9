"""Copies of one environment: stepping, saving and restoring them."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from common.seeding import derive
from envs.worker import execute
from envs.workers import Workers

Step = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
STEPS, NUMBERS = 200_000, 1 << 26  # of the actions that are kept of the longest episodes


def episode_seed(seed: int, index: int, number: int) -> int:
    """The seed of episode `number` of copy `index`."""
    return derive(seed, "episode", index, number) >> 32


class Vector:
    """Copies in this process, or in one process each; a copy is reset where its episode ends.

    The seed of an episode is derived from (seed, index of the copy, number of the episode). So sync
    and async give the same episodes, and one can be repeated from its number and its actions, which
    are the state of a copy. The rewards are kept, too, and compared with those of the repetition.
    Few rewards prove little: the episode before is kept as well where it was longer. An episode
    with more actions than are kept cannot be repeated; without `journal` no actions are kept.
    """

    idle: np.ndarray | None = None  # (N,) copies that could not act in the last step
    waiting: np.ndarray | None = None  # (N,) copies that cannot act in the next step

    def __init__(self, make: "Callable[[], Serial | Workers]", count: int, journal: bool) -> None:
        self.make, self.count = make, count
        self.envs = make()
        self.observation_space = self.envs.observation_space
        self.action_space = self.envs.action_space
        self.limit = self.envs.limit
        # Why an episode may depend on those before it, if known, which it is from the second reset
        # on: an environment may create at its first one what it keeps.
        self.lasting: str | None = None
        width = max(1, count * int(np.prod(self.action_space.shape or ())))
        self.most = min(STEPS, NUMBERS // width) if journal else 0
        self.reward = np.zeros(count)
        self.terminated = np.zeros(count, dtype=np.bool_)
        self.truncated = np.zeros(count, dtype=np.bool_)

    @property
    def copies(self) -> list[Any]:
        """The copies (`envs.checked.Checked`) in this process: none of workers."""
        return self.envs.copies

    def reset(self, seed: int) -> np.ndarray:
        """Starts all episodes anew; observations of all, (N, ...), as below."""
        self.seed = seed
        self.episodes = [0] * self.count
        self.ages = np.zeros(self.count, dtype=np.int64)  # steps since each episode began
        self.before = np.zeros(self.count, dtype=np.int64)  # of the one before it
        # (action, reward) of all copies at each step since the first kept episode began
        self.journal: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=self.most)
        return self.begin(np.ones(self.count, dtype=np.bool_))

    def begin(self, mask: np.ndarray, earlier: int = 0) -> np.ndarray:
        """Begins the current episode of the environments in `mask` (N,), or one `earlier`."""
        seeds = {}
        for index in map(int, np.flatnonzero(mask)):
            number = self.episodes[index] - earlier
            seeds[index] = episode_seed(self.seed, index, number)
        self.lasting = next(filter(None, self.envs.ask("reset", seeds)), self.lasting)
        return self.envs.obs

    def step(self, action: np.ndarray) -> Step:
        """(true successors, reward, terminated, truncated), each with leading dimension N.

        They are valid until the next call.
        """
        self.act(action, range(self.count))
        self.ages += 1
        self.journal.append((action, self.reward.copy()))
        return self.envs.obs, self.reward, self.terminated, self.truncated

    def act(self, action: np.ndarray, who: Iterable[int]) -> None:
        """Steps some copies; the last results of the others are kept."""
        action = action.copy()  # which an environment may change in place
        rows = self.envs.ask("step", {index: action[index] for index in who})
        for index, row in zip(who, rows, strict=True):
            self.reward[index], self.terminated[index], self.truncated[index] = row

    def reset_done(self, done: np.ndarray) -> np.ndarray:
        """Starts new episodes in place of those in `done` (N,)."""
        for index in map(int, np.flatnonzero(done)):
            self.episodes[index] += 1
        self.before[done], self.ages[done] = self.ages[done], 0
        self.forget()
        return self.begin(done)

    def abandon(self, mask: np.ndarray) -> np.ndarray:
        """The same for episodes in `mask` (N,) that have not ended, and cannot go on."""
        self.ages[mask] = 0  # their rewards prove nothing
        return self.reset_done(mask)

    def forget(self) -> None:
        """Keeps no more than is compared: an episode, and one before it that was longer.

        Nothing is kept of an episode of more than `most` steps.
        """
        kept = self.ages + self.before
        self.before[(self.before <= self.ages) | (kept > self.most)] = 0
        kept = self.ages + self.before
        for _ in range(len(self.journal) - int(kept[kept <= self.most].max(initial=0))):
            self.journal.popleft()

    def state_dict(self) -> dict[str, Any]:
        self.forget()
        shape, kind = self.action_space.shape, self.action_space.dtype
        actions = np.array([action for action, _ in self.journal], kind)
        rewards = np.array([reward for _, reward in self.journal], np.float64)
        return {
            "seed": self.seed,
            "episodes": list(self.episodes),
            "ages": self.ages.tolist(),
            "before": self.before.tolist(),
            "actions": torch.from_numpy(actions.reshape(-1, self.count, *shape)),
            "rewards": torch.from_numpy(rewards.reshape(-1, self.count)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Restores each copy by repeating its actions; all end at the last row together.

        rows left   6   5   4   3   2   1   0
        copy 0      b   b   b   b | a   a       before = 4, ages = 2: it has begun its episode
        copy 1                  b   b | a       before = 2, ages = 1    with 2 rows left
        copy 2              a   a   a   a       before = 0, ages = 4
        copy 3                      b   b |     before = 2, ages = 0: it is reset at the end

        Returns:
            Observations of all, (N, ...); and where an environment did otherwise on the way, (N,).
        """
        self.seed, self.episodes = state["seed"], list(state["episodes"])
        self.ages, self.before = np.array(state["ages"]), np.array(state["before"])
        rows = list(zip(state["actions"].numpy(), state["rewards"].numpy(), strict=True))
        self.journal = deque(rows, self.most)
        strayed = self.ages + self.before > len(rows)  # longer than what is kept
        self.ages[strayed] = self.before[strayed] = 0
        # a reset more than in the run, by which rewards differ that depend on how many there were
        self.begin(np.ones(self.count, dtype=np.bool_))
        for left, (action, reward) in zip(range(len(rows), 0, -1), rows, strict=True):
            self.begin((self.before > 0) & (self.ages + self.before == left), earlier=1)
            self.begin(self.ages == left)
            playing = (self.ages + self.before >= left) & ~strayed
            self.act(action, np.flatnonzero(playing).tolist())
            last = (self.before > 0) & (self.ages == left - 1)  # of the episode before
            ended = self.terminated | self.truncated
            strayed |= playing & ((self.reward != reward) | (ended != last))
        return self.begin(self.ages == 0), strayed

    def renew(self) -> None:
        """Makes copies anew in place of those that have raised; they are still to be reset."""
        self.envs.close()
        self.envs = self.make()

    def close(self) -> None:
        self.envs.close()


class Serial:
    """Copies (`envs.checked.Checked`) stepped one by one; `obs` (N, ...) are those of all."""

    def __init__(self, makes: Sequence[Callable[[], Any]]) -> None:
        self.copies: list[Any] = []
        with ExitStack() as undo:  # where one cannot be made, those before it are closed
            undo.callback(self.close)
            for make in makes:
                self.copies.append(make())
            undo.pop_all()
        self.observation_space: Any = self.copies[0].observation_space
        self.action_space = self.copies[0].action_space
        shape, kind = self.observation_space.shape, self.observation_space.dtype
        self.obs = np.zeros((len(makes), *shape), kind)

    @property
    def limit(self) -> int | None:
        """Steps after which Gymnasium's TimeLimit truncates an episode; None without one."""
        steps = "_max_episode_steps"
        found = self.copies[0].has_wrapper_attr(steps) and self.copies[0].get_wrapper_attr(steps)
        return int(found) if found else None

    def ask(self, name: str, arguments: dict[int, Any]) -> list[Any]:
        """Executes a command in copies, each with its own argument; their results, in order."""
        return [
            execute(self.copies[index], self.obs[index, ...], name, argument)
            for index, argument in arguments.items()
        ]

    def close(self) -> None:
        """Closes every copy, also after an exception of another."""
        with ExitStack() as closing:
            for env in reversed(self.copies):
                closing.callback(env.close)
