"""Gymnasium's vectorised environments, made to reset only when told to."""

import sys
import warnings
from copy import deepcopy
from functools import cache, partial
from importlib import import_module
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch

from common.errors import ConfigError, EnvironmentFault, LogpiError
from envs.border import PASSED, Checked
from envs.serial import Serial
from envs.spaces import require_unclipped
from envs.vector import Step, Vector
from envs.workers import Workers

ROOT = Path(__file__).resolve().parent.parent
ARGUMENTS = (TypeError, ValueError, AssertionError, LookupError)  # raised for a wrong argument
SILENT = 50  # what matters is raised, in one line
EXTRAS = ("box2d", "mujoco")  # of this project, with what such environments need


class Backend(Protocol):
    """N environments that reset only when told to."""

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    limit: int | None  # steps after which a copy in this process truncates its episode itself

    @property
    def lasting(self) -> str | None:
        """Why an episode may depend on those before it, if it is known to."""

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

    lasting = None

    def __init__(self, env_id: str, count: int, kwargs: dict[str, Any]) -> None:
        made: Any = gymnasium.make_vec(env_id, count, "vector_entry_point", **kwargs)
        self.envs = made.unwrapped
        self.observation_space = self.envs.single_observation_space
        self.action_space = self.envs.single_action_space
        self.limit: int | None = made.unwrapped.max_episode_steps

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
    env_id: str,
    count: int,
    vectorization: str,
    kwargs: dict[str, Any],
    timeout: float,
    journal: bool = True,
) -> Backend:
    """Makes the environments; raises ConfigError where the id or the arguments do not fit."""
    gymnasium.logger.min_level = SILENT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if vectorization == "native":
                return NativeCartPole(env_id, count, kwargs)
            spec = gymnasium_spec(env_id)
            # A worker imports the module itself, once it has the path for it.
            known = env_id if ":" in env_id else spec
            makes = [partial(make_single, known, kwargs, index) for index in range(count)]
            if vectorization == "async":
                return Vector(lambda: Workers(makes, env_id, timeout), count, journal)
            return Vector(lambda: Serial(makes), count, journal)
    except PASSED:
        raise
    except BaseException as error:
        raise explained(error, env_id, kwargs) from error


def explained(error: BaseException, env_id: str, kwargs: dict[str, Any]) -> LogpiError:
    """Why an environment could not be made, and what to do."""
    if theirs := hidden(error):
        return ConfigError(
            f"env.id: {env_id}: {error}, since this project's {theirs.stem} comes first; "
            f"rename {theirs}"
        )
    if isinstance(error, gymnasium.error.DependencyNotInstalled):
        extra = next((e for e in EXTRAS if e in str(error).lower()), None)
        remedy = f'pip install ".[{extra}]"' if extra else f"install what it needs, {error}"
        return ConfigError(f"env.id: {env_id} needs a library that is not here; {remedy}")
    if isinstance(error, ModuleNotFoundError):
        return ConfigError(f"env.id: {env_id}: {error}; {found(env_id.rpartition(':')[0], error)}")
    if isinstance(error, gymnasium.error.Error):
        module, _, name = env_id.rpartition(":")
        own = f"let {module} register it" if module else f"name the module that does, MODULE:{name}"
        return ConfigError(f"env.id: {env_id}: {error}; correct the id, or {own}")
    why = f"{type(error).__name__}: {error}"
    if isinstance(error, ARGUMENTS) and kwargs:
        return ConfigError(
            f"env.kwargs: {env_id}: {why}; correct the arguments, or mend the environment"
        )
    remedy = "mend the environment"
    if isinstance(error, TypeError) and "required" in why:
        remedy = f"give what it needs, env.kwargs.NAME=VALUE, or {remedy}"
    return EnvironmentFault(f"env {env_id}: could not be made, {why}; {remedy}")


def found(module: str, error: ModuleNotFoundError) -> str:
    """What to do so that a module is found: that of the id, or one that it needs."""
    name, places = str(error.name), "beside train.py or on PYTHONPATH"
    if module != name and not module.startswith(f"{name}."):
        return f"install it, or put a module of your own {places}"
    if module != (plain := Path(module.removesuffix(".py")).name):
        return f"write {plain} in place of {module}, and have it {places}"
    if "is not a package" in str(error):
        return "correct the id"
    return f"correct the id, or put {name} {places}"


def gymnasium_spec(env_id: str) -> gymnasium.envs.registration.EnvSpec:
    """The registered specification, importing the module that stands before a colon."""
    share_names(*sys.path)
    module, _, name = env_id.rpartition(":")
    if module:
        __import__(module)
    return gymnasium.spec(name)


@cache
def share_names(*path: str) -> None:
    """Lets Python find `data.prices` in a folder `data` of the user's, beside this project's own.

    A module that both have is this project's.
    """
    for name, folder in product(own_packages(), path):
        theirs = Path(folder).resolve() / name
        if theirs.is_dir() and theirs != ROOT / name:
            places = import_module(name).__path__
            if str(theirs) not in places:
                places.append(str(theirs))


def own_packages() -> list[str]:
    return [file.parent.name for file in ROOT.glob("*/__init__.py")]


def hidden(error: BaseException) -> Path | None:
    """The user's package or module that one of this project's hides, where that is the error."""
    name = error.name if isinstance(error, ImportError) else None
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        name = error.obj.__name__
    if name is None:
        return None
    top, *inner = name.split(".")
    if top not in {*own_packages(), *(file.stem for file in ROOT.glob("*.py"))}:
        return None
    for folder in (Path(entry).resolve() for entry in sys.path):
        module = folder.joinpath(top, *inner)
        if folder != ROOT and (module.is_dir() or module.with_suffix(".py").is_file()):
            return folder / top if inner or module.is_dir() else module.with_suffix(".py")
    return None


def source(env_id: str) -> bytes:
    """What stands in the file in which a made environment is written, as far as Python tells."""
    entry: Any = gymnasium_spec(env_id).entry_point
    name = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    file = getattr(sys.modules.get(name), "__file__", None)
    try:
        return Path(file).read_bytes() if file else b""
    except OSError:
        return b""


def make_single(
    known: str | gymnasium.envs.registration.EnvSpec, kwargs: dict[str, Any], index: int
) -> gymnasium.Env[Any, Any]:
    """Copy number `index` of the environment with this id or specification."""
    share_names(*sys.path)
    spec = gymnasium_spec(known) if isinstance(known, str) else known
    env_id = known if isinstance(known, str) else spec.id
    env = gymnasium.make(spec, disable_env_checker=True, **deepcopy(kwargs))  # each has its own
    require_unclipped(env_id, env)
    return Checked(env, env_id, index)
