"""The border to Gymnasium: only true transitions, checked and copied, come through it."""

import multiprocessing
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from torch import Tensor

from data import Transition
from runtime.errors import ConfigError, EnvironmentFault, LogpiError
from runtime.seeding import derive
from runtime.spaces import ActionMap, check_spaces, flat_observation

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

    def close(self) -> None: ...


class Vector:
    """Gymnasium's sync or async vectorisation, with automatic reset switched off.

    Each episode is reset with a seed derived from (seed, environment index, episode number), so
    that sync and async give the same episodes and any single one can be repeated.
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
        self.seed = 0
        self.episodes = [0] * count

    def reset(self, seed: int) -> np.ndarray:
        self.seed, self.episodes = seed, [0] * self.count
        return self.envs.reset(seed=[self.episode_seed(i) for i in range(self.count)])[0]

    def episode_seed(self, index: int) -> int:
        return derive(self.seed, "episode", index, self.episodes[index]) >> 32

    def step(self, action: np.ndarray) -> Step:
        return self.envs.step(action)[:4]

    def reset_done(self, done: np.ndarray) -> np.ndarray:
        seeds: list[int | None] = [None] * self.count
        for index in map(int, np.flatnonzero(done)):
            self.episodes[index] += 1
            seeds[index] = self.episode_seed(index)
        return self.envs.reset(seed=seeds, options={"reset_mask": done})[0]

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

    def close(self) -> None:
        self.envs.close()


class Envs:
    """N copies of one environment; `obs` (N, O) float32 is what to act on next.

    Args:
        env_id: Gymnasium id.
        num_envs: N.
        vectorization: "native", "sync" or "async".
        kwargs: arguments of the environment.
        seed: every episode derives from it.

    Raises:
        ConfigError: the environment does not exist, cannot be made with these arguments, or has
            spaces that cannot be served.
        EnvironmentFault: it raised, or gave values that are not finite.
    """

    obs: Tensor

    def __init__(
        self, env_id: str, num_envs: int, vectorization: str, kwargs: dict[str, Any], seed: int
    ) -> None:
        self.env_id, self.num_envs, self.steps = env_id, num_envs, 0
        self.backend = make_backend(env_id, num_envs, vectorization, kwargs)
        observation_space = self.backend.observation_space
        try:
            self.spec = check_spaces(env_id, observation_space, self.backend.action_space)
            self.to_env = ActionMap(self.backend.action_space)
            self.width = flat_observation(env_id, observation_space).shape[0]
            self.reset(seed)
        except LogpiError:
            self.close()
            raise

    def reset(self, seed: int) -> None:
        """Starts all episodes anew from `seed`, and forgets the statistics."""
        self.steps = 0
        self.obs = self._observation(self._guard(lambda: self.backend.reset(seed)))
        self.returns = np.zeros(self.num_envs)
        self.lengths = np.zeros(self.num_envs, dtype=np.int64)
        self.finished: list[tuple[int, float, int]] = []

    def step(self, action: Tensor, latent: Tensor) -> Transition:
        """Acts in all environments; finished ones start their next episode at once.

        Args:
            action: (N, A) in policy units, or (N,) int64.
            latent: the draw that it came from, carried along.

        Returns:
            (N, ·): next_obs is the true successor of obs, whatever was reset.
        """
        obs = self.obs
        raw = self.to_env(action.numpy())
        next_raw, reward, terminated, truncated = self._guard(lambda: self.backend.step(raw))
        self.steps += self.num_envs
        next_obs = self._observation(next_raw)
        reward = self._finite(np.asarray(reward, dtype=np.float64), "reward")
        done = terminated | truncated
        self.returns += reward
        self.lengths += 1
        if done.any():
            for index in np.flatnonzero(done):
                self.finished.append(
                    (int(index), float(self.returns[index]), int(self.lengths[index]))
                )
            self.returns[done] = 0.0
            self.lengths[done] = 0
            self.obs = self._observation(self._guard(lambda: self.backend.reset_done(done)))
        else:
            self.obs = next_obs
        return Transition(
            obs,
            action,
            torch.from_numpy(reward.astype(np.float32)),
            next_obs,
            torch.from_numpy(np.array(terminated, dtype=np.bool_)),
            torch.from_numpy(np.array(truncated, dtype=np.bool_)),
            latent,
        )

    def drain(self) -> list[tuple[int, float, int]]:
        """(environment index, return, length) of the episodes finished since the last call."""
        finished, self.finished = self.finished, []
        return finished

    def close(self) -> None:
        """Closes every environment; never raises."""
        try:
            self.backend.close()
        except Exception as error:
            print(f"warning: env {self.env_id}: close raised {error!r}"[:200], file=sys.stderr)

    def _observation(self, raw: np.ndarray) -> Tensor:
        obs = np.asarray(raw).reshape(self.num_envs, self.width)
        with np.errstate(over="ignore"):
            obs = obs.astype(np.float32)  # a copy, always
        return torch.from_numpy(self._finite(obs, "observation"))

    def _finite(self, values: np.ndarray, what: str) -> np.ndarray:
        with np.errstate(over="ignore"):
            finite = np.isfinite(values.astype(np.float32))
        if not finite.all():
            index = int(np.argwhere(~finite)[0][0])
            raise self._fault(f"{what} {values[index]} is not finite in environment {index}")
        return values

    def _guard(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except LogpiError:
            raise
        except (Exception, SystemExit) as error:
            raise self._fault(f"raised {type(error).__name__}: {error}") from error

    def _fault(self, what: str) -> EnvironmentFault:
        return EnvironmentFault(
            f"env {self.env_id}: {what} at step {self.steps}; mend the environment"
        )


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
