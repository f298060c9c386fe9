"""Copies of an environment by its id, and what to do where they cannot be made."""

import sys
import warnings
from copy import deepcopy
from functools import cache, partial
from importlib import import_module
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.wrappers import ClipAction

from common.errors import ConfigError, EnvironmentFault, LogpiError
from envs.checked import PASSED, Checked
from envs.spaces import refuse
from envs.vector import Backend, NativeCartPole, Serial, Vector
from envs.workers import Workers

ROOT = Path(__file__).resolve().parent.parent
ARGUMENTS = (TypeError, ValueError, AssertionError, LookupError)  # raised for a wrong argument
SILENT = 50  # what matters is raised, in one line
EXTRAS = ("box2d", "mujoco")  # of this project, with what such environments need


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
                made: Any = gymnasium.make_vec(env_id, count, "vector_entry_point", **kwargs)
                return NativeCartPole(made.unwrapped)
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
        raise making_error(error, env_id, kwargs) from error


def making_error(error: BaseException, env_id: str, kwargs: dict[str, Any]) -> LogpiError:
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
        return ConfigError(f"env.id: {env_id}: {error}; {import_remedy(env_id, error)}")
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


def import_remedy(env_id: str, error: ModuleNotFoundError) -> str:
    """What to do so that Python finds a module: that of the id, or one that it needs."""
    module, name = env_id.rpartition(":")[0], str(error.name)
    places = "beside train.py or on PYTHONPATH"
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
    """The file that a made environment is written in; empty where Python does not give it."""
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


def require_unclipped(env_id: str, env: gymnasium.Env[Any, Any]) -> None:
    """Raises ConfigError where Gymnasium's ClipAction is what takes the bounds away."""
    given, inner = env.action_space, env
    while isinstance(inner, gymnasium.Wrapper):
        clips, inner = isinstance(inner, ClipAction), inner.env
        if clips and is_bounded(inner.action_space) and not is_bounded(given):
            why = "has no finite bounds, ClipAction removes them"
            remedy = "leave ClipAction out, actions are clipped to the bounds here anyway"
            raise refuse(env_id, "action", given, why, remedy)


def is_bounded(space: gymnasium.Space[Any]) -> bool:
    return isinstance(space, gymnasium.spaces.Box) and bool(space.is_bounded("both"))
