"""Copies of an environment by its id, and what to do where they cannot be made."""

import re
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
from gymnasium.envs.registration import EnvSpec

from common.errors import ConfigError, EnvironmentFault, LogpiError, in_words
from configs.schema import MASKING, Wrappers, named
from configs.validate import nearest
from envs.checked import PASSED, Checked, nested
from envs.native import Backend, NativeCartPole, NativePendulum, NativeVector
from envs.spaces import check_spaces, has_mask, short
from envs.vector import Serial, Vector
from envs.workers import Workers

ROOT = Path(__file__).resolve().parent.parent
ARGUMENTS = (TypeError, ValueError, AssertionError, LookupError)  # raised for a wrong argument
SILENT = 50  # what matters is raised, in one line
PENDULUM = "gymnasium.envs.classic_control.pendulum:PendulumEnv"
CARTPOLE = "gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv"
EXTRAS = ("box2d", "mujoco")  # of this project, with what such environments need


def make_backend(
    env_id: str,
    count: int,
    vectorization: str,
    kwargs: dict[str, Any],
    timeout: float,
    journal: bool,
    wrappers: Wrappers = (),
) -> Backend:
    """Makes the environments; raises ConfigError where the id or the arguments do not fit."""
    gymnasium.logger.min_level = SILENT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spec = gymnasium_spec(env_id)
            if vectorization == "native":
                return make_native(env_id, spec, count, kwargs, bool(wrappers))
            if spec.entry_point is None:
                why = f"{env_id} has a vector_entry_point and no single copies"
                remedy = "give train.py env.vectorization=native, and evaluate.py its run"
                raise ConfigError(f"env.vectorization: {why}; {remedy}")
            # A worker imports the module itself, once it has the path for it.
            known = None if ":" in env_id else spec
            arguments = env_id, known, kwargs, wrappers
            makes = [partial(make_single, *arguments, index) for index in range(count)]
            if vectorization == "async":
                return Vector(partial(Workers, makes, env_id, timeout), count, journal)
            return Vector(partial(Serial, makes), count, journal)
    except PASSED:
        raise
    except BaseException as error:
        raise making_error(error, env_id, kwargs) from error


def make_native(
    env_id: str, spec: EnvSpec, count: int, kwargs: dict[str, Any], masked: bool = False
) -> Backend:
    """Copies that are stepped as one; ConfigError where there is no such form of them."""
    if spec.entry_point == PENDULUM and not masked:
        return NativePendulum(count, **{"max_episode_steps": spec.max_episode_steps, **kwargs})
    if spec.vector_entry_point is None:
        why = f"native is not to be had for {env_id}, which has no vector_entry_point"
        raise ConfigError(f"env.vectorization: {why}; use sync or async")
    made: Any = gymnasium.make_vec(spec, count, "vector_entry_point", **deepcopy(kwargs))
    if masked and not has_mask(made.single_observation_space):
        made.close()
        why = "native copies give their masks as a part action_mask of a Dict observation"
        raise ConfigError(f"env.vectorization: {why}, {env_id} does not; use sync or async")
    if spec.vector_entry_point == CARTPOLE:
        return NativeCartPole(made.unwrapped)
    return NativeVector(made, env_id, masked)


def making_error(error: BaseException, env_id: str, kwargs: dict[str, Any]) -> LogpiError:
    """Why an environment could not be made, and what to do."""
    key, why = f"env.id: {env_id}", in_words(error)
    if theirs := hidden(error):
        first = f"since this project's {theirs.stem} comes first"
        return ConfigError(f"{key}: {error}, {first}; rename {theirs}")
    if isinstance(error, gymnasium.error.DependencyNotInstalled):
        extra = next((e for e in EXTRAS if e in str(error).lower()), None)
        remedy = f'pip install ".[{extra}]"' if extra else f"install what it needs, {error}"
        return ConfigError(f"{key} needs a library that is not installed; {remedy}")
    if isinstance(error, ModuleNotFoundError):
        return ConfigError(
            f"{key}: {error}; correct the id (MODULE:NAME, no folder, no .py), install that "
            "module, or put it beside train.py or on PYTHONPATH"
        )
    if isinstance(error, gymnasium.error.NamespaceNotFound):
        plain = env_id.rpartition(":")[2]
        module = "ale_py" if plain.startswith("ALE/") else "MODULE"
        remedy = f"install the package that registers it, and give {module}:{plain}"
        return ConfigError(f"{key}: nothing registers {plain.rpartition('/')[0]}/; {remedy}")
    if isinstance(error, gymnasium.error.Error):
        named = f"name the module that registers it, MODULE:{env_id.rpartition(':')[2]}"
        why, _, like = str(error).rstrip("?. ").partition(". Did you mean: ")
        like = like.strip("`")
        known = gymnasium.registry.values()
        like = next((e.id for e in [*known][::-1] if (e.namespace, e.name) == (None, like)), like)
        correct = f"correct the id, perhaps to {like}," if like else "correct the id,"
        return ConfigError(f"{key}: {why}; {correct} or {named}")
    if isinstance(error, ARGUMENTS) and kwargs:
        remedy = "correct the arguments, or fix the environment"
        return ConfigError(f"env.kwargs: {env_id}: {why}; {remedy}")
    remedy = "give what it needs, env.kwargs.NAME=VALUE, or fix the environment"
    return EnvironmentFault(f"env {env_id}: could not be made, {why}; {remedy}")


def gymnasium_spec(env_id: str) -> EnvSpec:
    """The registered specification, importing the module that stands before a colon."""
    share_names(*sys.path)
    module, _, name = env_id.rpartition(":")
    if module:
        __import__(module)
    return gymnasium.spec(name)


def make_single(
    env_id: str, spec: EnvSpec | None, kwargs: dict[str, Any], wrappers: Wrappers, index: int
) -> gymnasium.Env[Any, Any]:
    """Copy number `index`; a specification that is not known is looked up by the id."""
    share_names(*sys.path)
    spec = spec or gymnasium_spec(env_id)
    env = gymnasium.make(spec, disable_env_checker=True, **deepcopy(kwargs))  # each has its own
    for wrapper in wrappers:
        env = wrapped(env, *named(wrapper))
    if wrappers:
        try:
            check_spaces(env_id, env.observation_space, env.action_space)
        except ConfigError as error:
            what = f"env.wrappers: {layers(env)}: {error.why}"
            raise ConfigError(f"{what}; {error.remedy}") from error
    return Checked(env, env_id, index)


def wrapped(env: gymnasium.Env[Any, Any], name: str, arguments: dict[str, Any]) -> Any:
    """The environment in a wrapper of `gymnasium.wrappers`, or of module:Class.

    Raises ConfigError where there is none of this name, or it does not take these arguments.
    """
    module, _, last = name.rpartition(":")
    try:
        own = "envs.masks" if last == MASKING else "gymnasium.wrappers"
        found: Any = getattr(import_module(module or own), last)
    except PASSED:
        raise
    except Exception as error:
        known = [MASKING, *(one for one in gymnasium.wrappers.__all__ if one[0].isupper())]
        why, sought = str(error), getattr(error, "name", None)
        remedy = nearest(last, known, "give a name of gymnasium.wrappers, or module:Class")
        if module and sought != last and not f"{module}.".startswith(f"{sought}."):
            why, remedy = in_words(error), f"correct {module}, or install what it imports"
        raise ConfigError(f"env.wrappers: {name}: {why}; {remedy}") from error
    try:
        made = found(env, **{key: given(value) for key, value in arguments.items()})
    except PASSED:
        raise
    except gymnasium.error.DependencyNotInstalled as error:
        why, _, _ = str(error).partition(", run ")
        found = re.search(r"`(pip install [^`]+)`", str(error))
        remedy = found[1] if found else "install what it needs"
        remedy = "pip install opencv-python-headless" if "opencv" in why else remedy
        raise ConfigError(f"env.wrappers: {name}: {why}; {remedy}") from error
    except Exception as error:
        why = in_words(error)
        remedy = f"correct its arguments, {{name:{name},ARGUMENT:VALUE}}, or leave it out"
        raise ConfigError(f"env.wrappers: {name}: {why}; {remedy}") from error
    if not isinstance(made, gymnasium.Env):
        raise ConfigError(f"env.wrappers: {name}: makes no environment; give a gymnasium.Wrapper")
    return made


def given(value: Any) -> Any:
    """An argument of its own for each copy; a list as a tuple, which many wrappers insist on."""
    return tuple(value) if isinstance(value, list) else deepcopy(value)


def layers(env: Any) -> str:
    """Observation of an environment and of each wrapper that changes it, innermost first."""
    inside, texts = None, []
    for layer in nested(env)[::-1]:
        if layer.observation_space != inside:
            inside = layer.observation_space
            texts.append(f"{type(layer).__name__} {short(inside)}")
    return " -> ".join(texts)


@cache
def share_names(*path: str) -> None:
    """Adds a user's package of the same name, `data.prices`, behind this project's `data`."""
    for name, folder in product(own_packages(), path):
        theirs = Path(folder).resolve() / name
        if theirs.is_dir() and theirs != ROOT / name:
            places = import_module(name).__path__
            if str(theirs) not in places:
                places.append(str(theirs))


def own_packages() -> list[str]:
    return [file.parent.name for file in ROOT.glob("*/__init__.py")]


def hidden(error: BaseException) -> Path | None:
    """The user's module that is hidden by one of this project, if that causes the error."""
    name = error.name if isinstance(error, ImportError) else None
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        name = error.obj.__name__
    top, *inner = (name or "").split(".")
    if top in own_packages() or (ROOT / f"{top}.py").is_file():
        for folder in (Path(entry).resolve() for entry in sys.path):
            module, package = folder.joinpath(top, *inner), folder / top
            if folder != ROOT and (module.is_dir() or module.with_suffix(".py").is_file()):
                return package if package.is_dir() else package.with_suffix(".py")
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
