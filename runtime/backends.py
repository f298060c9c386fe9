"""Gymnasium's vectorised environments, made to reset only when told to."""

import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch

from runtime.border import PASSED, Checked
from runtime.errors import ConfigError, EnvironmentFault
from runtime.serial import Serial
from runtime.spaces import Flat
from runtime.vector import Step, Vector
from runtime.workers import Workers

SILENT = 50  # what matters is raised, in one line
EXTRAS = ("box2d", "mujoco")  # of this project, with what such environments need


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

    def abandon(self, mask: np.ndarray) -> np.ndarray:
        """The same for episodes in `mask` (N,) that have not ended, and cannot go on."""

    def state_dict(self) -> dict[str, Any]:
        """Where every environment is."""

    def load_state_dict(self, state: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Goes back there as far as these environments can.

        Returns:
            Observations of all, (N, ...); and where an environment did otherwise on the way, (N,).
        """

    def renew(self) -> None:
        """Makes copies anew in place of those that have raised; they are still to be reset."""

    def close(self) -> None: ...


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

    abandon = reset_done

    def state_dict(self) -> dict[str, Any]:
        return {
            "state": torch.from_numpy(self.envs.state),
            "steps": torch.from_numpy(self.envs.steps),
            "generator": self.envs.np_random.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        envs = self.envs
        envs.reset(seed=0)
        envs.state[:], envs.steps[:] = state["state"].numpy(), state["steps"].numpy()
        envs.np_random.bit_generator.state = state["generator"]
        return envs.state.T.astype(np.float32), np.zeros(len(envs.steps), dtype=np.bool_)

    def renew(self) -> None:
        """Its copies are arrays, which nothing breaks."""

    def close(self) -> None:
        self.envs.close()


def make_backend(
    env_id: str, count: int, vectorization: str, kwargs: dict[str, Any], timeout: float
) -> Backend:
    """Makes the environments; raises ConfigError where the id or the arguments do not fit."""
    gymnasium.logger.min_level = SILENT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if vectorization == "native":
                return NativeCartPole(env_id, count, kwargs)
            spec = gymnasium_spec(env_id)
            makes = [partial(make_single, spec, kwargs, index) for index in range(count)]
            if vectorization == "async":
                return Vector(lambda: Workers(makes, env_id, timeout), count)
            return Vector(lambda: Serial(makes), count)
    except gymnasium.error.DependencyNotInstalled as error:
        extra = next((e for e in EXTRAS if e in str(error).lower()), None)
        remedy = f'pip install ".[{extra}]"' if extra else f"install what it needs, {error}"
        raise ConfigError(f"env.id: {env_id} needs a library that is not here; {remedy}") from error
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"env.id: {env_id}: {error}; correct the id, install what it needs, or put a module of "
            "your own beside train.py or on PYTHONPATH"
        ) from error
    except gymnasium.error.Error as error:
        own = "" if ":" in env_id else f", or name the module that registers it, MODULE:{env_id}"
        raise ConfigError(f"env.id: {env_id}: {error}; correct the id{own}") from error
    except PASSED:
        raise
    except BaseException as error:
        if isinstance(error, (TypeError, ValueError)) and kwargs:
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


def source(env_id: str) -> bytes:
    """What stands in the file in which a made environment is written, as far as Python tells."""
    entry: Any = gymnasium_spec(env_id).entry_point
    name = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    file = getattr(sys.modules.get(name), "__file__", None)
    try:
        return Path(file).read_bytes() if file else b""
    except OSError:
        return b""


class FreshWorld(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Begins each episode in a new world of Box2D; in the old one it would depend on its past.

    Only LunarLander does so itself.
    """

    def reset(self, **options: Any) -> Any:
        inner: Any = self.env.unwrapped
        inner._destroy()
        inner.world = type(inner.world)()
        return self.env.reset(**options)


def make_single(
    spec: gymnasium.envs.registration.EnvSpec, kwargs: dict[str, Any], index: int
) -> gymnasium.Env[Any, Any]:
    """Copy number `index`; observations that are not a Box are flattened into one."""
    env = gymnasium.make(spec, disable_env_checker=True, **kwargs)
    if type(getattr(env.unwrapped, "world", None)).__module__.startswith("Box2D"):
        env = FreshWorld(env)
    if not isinstance(env.observation_space, gymnasium.spaces.Box):
        flat = Flat(spec.id, env.observation_space)
        env = gymnasium.wrappers.FlattenObservation(env)
        env.observation_space = flat
    return Checked(env, index)
