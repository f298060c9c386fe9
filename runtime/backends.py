"""Gymnasium's vectorised environments, made to reset only when told to."""

import multiprocessing
import warnings
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from runtime.errors import ConfigError, EnvironmentFault, LogpiError
from runtime.seeding import derive
from runtime.spaces import flat_observation

SILENT = 50  # what matters is raised, in one line
Step = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Backend(Protocol):
    """N environments that reset only when told to."""

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]

    def reset(self, seed: int) -> np.ndarray:
        """Starts all episodes anew: observations (N, ...)."""

    def step(self, action: np.ndarray) -> Step:
        """(true successors, reward, terminated, truncated), each with leading dimension N."""

    def reset_done(self, done: np.ndarray) -> np.ndarray:
        """Starts new episodes where `done` (N,) says so: observations of all, (N, ...)."""

    def state_dict(self) -> dict[str, Any]:
        """Where every environment is."""

    def load_state_dict(self, state: dict[str, Any]) -> np.ndarray:
        """Goes back there as far as these environments can: observations of all, (N, ...)."""

    def close(self) -> None: ...


class Vector:
    """Gymnasium's sync or async vectorisation, with automatic reset switched off.

    Each episode is reset with a seed derived from (seed, environment index, episode number), so
    that sync and async give the same episodes and any single one can be repeated: the state of an
    environment is its episode's number and the actions since it began.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[Any, Any]], count: int, workers: bool):
        mode = AutoresetMode.DISABLED
        if workers:
            context = "forkserver" if "forkserver" in methods() else "spawn"
            self.envs: Any = AsyncVectorEnv([make] * count, context=context, autoreset_mode=mode)
        else:
            self.envs = SyncVectorEnv([make] * count, autoreset_mode=mode)
        self.observation_space = self.envs.single_observation_space
        self.action_space = self.envs.single_action_space
        self.count = count
        self.reset_counters(0)

    def reset_counters(self, seed: int) -> None:
        self.seed = seed
        self.episodes = [0] * self.count
        self.ages = np.zeros(self.count, dtype=np.int64)  # steps since each episode began
        self.actions: deque[np.ndarray] = deque()  # of all, since the oldest episode began

    def reset(self, seed: int) -> np.ndarray:
        self.reset_counters(seed)
        return self.begin(np.ones(self.count, dtype=np.bool_))

    def begin(self, mask: np.ndarray) -> np.ndarray:
        """Begins the current episode of the environments in `mask` (N,), from its own seed."""
        seeds: list[int | None] = [None] * self.count
        for index in map(int, np.flatnonzero(mask)):
            seeds[index] = derive(self.seed, "episode", index, self.episodes[index]) >> 32
        return self.envs.reset(seed=seeds, options={"reset_mask": mask})[0]

    def step(self, action: np.ndarray) -> Step:
        self.actions.append(action)
        self.ages += 1
        return self.envs.step(action)[:4]

    def reset_done(self, done: np.ndarray) -> np.ndarray:
        for index in map(int, np.flatnonzero(done)):
            self.episodes[index] += 1
        self.ages[done] = 0
        while len(self.actions) > self.ages.max():
            self.actions.popleft()
        return self.begin(done)

    def state_dict(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "episodes": list(self.episodes),
            "ages": self.ages.tolist(),
            "actions": [torch.from_numpy(action) for action in self.actions],
        }

    def load_state_dict(self, state: dict[str, Any]) -> np.ndarray:
        self.seed, self.episodes = state["seed"], list(state["episodes"])
        self.ages = np.array(state["ages"])
        self.actions = deque(action.numpy() for action in state["actions"])
        obs = self.begin(np.ones(self.count, dtype=np.bool_))
        for left, action in zip(range(len(self.actions), 0, -1), self.actions, strict=True):
            early = self.ages <= left  # not yet begun: whatever the last action led to is undone
            if early.any():
                self.begin(early)
            obs = self.envs.step(action)[0]
        fresh = self.ages == 0
        return self.begin(fresh) if fresh.any() else obs

    def close(self) -> None:
        self.envs.close()


class NativeCartPole:
    """Gymnasium's vectorised CartPole, whose own automatic reset would yield a false row.

    It resets on the step after an episode's end; here the finished columns are reset in place, from
    its own generator, before that step.
    """

    def __init__(self, env_id: str, count: int, kwargs: dict[str, Any]) -> None:
        envs = gymnasium.make_vec(env_id, count, "vector_entry_point", **kwargs)
        self.envs: Any = envs.unwrapped
        self.observation_space = self.envs.single_observation_space
        self.action_space = self.envs.single_action_space

    def reset(self, seed: int) -> np.ndarray:
        return self.envs.reset(seed=seed)[0]

    def step(self, action: np.ndarray) -> Step:
        return self.envs.step(action)[:4]

    def reset_done(self, done: np.ndarray) -> np.ndarray:
        envs = self.envs
        size = (4, int(done.sum()))
        envs.state[:, done] = envs.np_random.uniform(envs.low, envs.high, size=size)
        envs.steps[done] = 0
        envs.prev_done[:] = False
        return envs.state.T.astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        return {
            "state": torch.from_numpy(self.envs.state),
            "steps": torch.from_numpy(self.envs.steps),
            "generator": self.envs.np_random.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> np.ndarray:
        envs = self.envs
        envs.reset(seed=0)
        envs.state[:], envs.steps[:] = state["state"].numpy(), state["steps"].numpy()
        envs.np_random.bit_generator.state = state["generator"]
        return envs.state.T.astype(np.float32)

    def close(self) -> None:
        self.envs.close()


def make_backend(env_id: str, count: int, vectorization: str, kwargs: dict[str, Any]) -> Backend:
    """Makes the environments; raises ConfigError where the id or the arguments do not fit."""
    gymnasium.logger.min_level = SILENT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if vectorization == "native":
                return NativeCartPole(env_id, count, kwargs)
            single = partial(make_single, gymnasium_spec(env_id), kwargs)
            return Vector(single, count, workers=vectorization == "async")
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise ConfigError(
            f"env.id: {env_id}: {error}; correct the id or install what it needs"
        ) from error
    except LogpiError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, TypeError) and kwargs:
            raise ConfigError(f"env.kwargs: {env_id}: {error}; correct the arguments") from error
        raise EnvironmentFault(
            f"env {env_id}: could not be made, {type(error).__name__}: {error}; mend it"
        ) from error


def gymnasium_spec(env_id: str) -> gymnasium.envs.registration.EnvSpec:
    """The registered specification, importing the module that stands before a colon."""
    module, _, name = env_id.rpartition(":")
    if module:
        __import__(module)
    return gymnasium.spec(name)


def make_single(
    spec: gymnasium.envs.registration.EnvSpec, kwargs: dict[str, Any]
) -> gymnasium.Env[Any, Any]:
    """One environment; observations that are not a Box are flattened into one."""
    env = gymnasium.make(spec, disable_env_checker=True, **kwargs)
    if isinstance(env.observation_space, gymnasium.spaces.Box):
        return env
    flat_observation(spec.id, env.observation_space)
    return gymnasium.wrappers.FlattenObservation(env)


def methods() -> list[str]:
    return multiprocessing.get_all_start_methods()
