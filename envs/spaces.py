"""Which spaces can be served, and the map between the agent's units and the environment's."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import ClipAction

from common.errors import ConfigError
from data import Spec

IMAGE_DIMENSIONS = 3  # height, width and channels, or channels first
LONGEST = 100  # characters of a space or a value in a message


def check_spaces(env_id: str, observation: spaces.Space[Any], action: spaces.Space[Any]) -> Spec:
    """Shapes for the agent, or a ConfigError that says why this environment cannot be served."""
    flat = flat_observation(env_id, observation)
    seen = looks(observation)
    if isinstance(action, spaces.Discrete):
        if action.n < 2:
            raise refuse(env_id, "action", action, "leaves no choice", "give it two actions")
        return Spec(flat.shape[0], int(action.n), discrete=True, **seen)
    if isinstance(action, (spaces.MultiDiscrete, spaces.MultiBinary)):
        choices = tuple(int(n) for n in choices_of(action).flat)
        if max(choices, default=0) < 2:
            raise refuse(env_id, "action", action, "leaves no choice", "give it two actions")
        return Spec(flat.shape[0], max(choices), discrete=True, choices=choices, **seen)
    if not isinstance(action, spaces.Box):
        remedy = "use Discrete, MultiDiscrete, MultiBinary or a bounded Box"
        raise refuse(env_id, "action", action, "is not supported", remedy)
    check_box(env_id, action)
    return Spec(flat.shape[0], int(np.prod(action.shape)), discrete=False, **seen)


class Flat(spaces.Box):
    """A space as one vector; `whole` is the space itself."""

    def __init__(self, env_id: str, whole: spaces.Space[Any]) -> None:
        box = flat_observation(env_id, whole)
        super().__init__(box.low, box.high, box.shape, box.dtype)  # type: ignore[arg-type]
        self.whole = whole

    def read(self, obs: Any) -> np.ndarray:
        """One observation of the whole space as a vector; ValueError where it does not belong."""
        vector = np.zeros(self.shape, self.dtype)
        fill(vector, 0, self.whole, obs, "observation")
        return vector

    def part(self, index: int) -> tuple[str, slice]:
        """The name of the part that number `index` of the vector is of, and where it lies."""
        start = 0
        for leaf, name in leaves(self.whole, "observation"):
            stop = start + spaces.flatdim(leaf)
            if index < stop:
                return name, slice(start, stop)
            start = stop
        raise IndexError(index)


def as_vector(space: spaces.Space[Any], obs: Any) -> Any:
    """An observation as the agent sees it: of any space but a Box, as one vector.

    Several observations of a Box, and what is already a vector or several, stay as they are.

    Raises:
        ValueError: it does not belong to the space.
    """
    if not isinstance(space, Flat):
        vector = held(space, obs, "observation", shaped=False)  # type: ignore[arg-type]
    else:
        vector = np.asarray(obs) if is_flat(space, obs) else space.read(obs)
    with np.errstate(over="ignore"):
        finite = bool(np.isfinite(vector.astype(np.float32)).all())
    if not finite:
        raise ValueError(not_finite(space, vector))
    return vector


def is_flat(space: Flat, obs: Any) -> bool:
    """Whether these are one or several vectors, and no observation of the whole space."""
    if isinstance(obs, (dict, tuple, str)):
        return False
    if isinstance(space.whole, (spaces.Dict, spaces.Tuple)):
        return True
    shape = np.shape(obs)
    return shape != space.whole.shape and shape[-1:] == space.shape


def not_finite(space: spaces.Space[Any], vector: np.ndarray) -> str:
    """What is wrong with an observation that is not finite as float32; names the part."""
    with np.errstate(over="ignore"):
        wrong = ~np.isfinite(vector.astype(np.float32))
    if isinstance(space, Flat) and wrong.ndim == 1:
        name, place = space.part(int(wrong.argmax()))
        return f"{name} {vector[place]} is not finite"
    return f"observation {vector} is not finite"


def fill(vector: np.ndarray, start: int, space: spaces.Space[Any], obs: Any, name: str) -> int:
    """Writes an observation into zeros from `start` on, each leaf held to its own space.

    Returns:
        Where it ends.

    Raises:
        ValueError: names the part that does not belong to its space.
    """
    if isinstance(space, spaces.Dict):
        if not isinstance(obs, Mapping):
            raise ValueError(f"{name} is of type {type(obs).__name__}, its space a Dict")
        for key, part in space.spaces.items():
            if key not in obs:
                raise ValueError(f"{name} has no {key!r}, its space does")
            start = fill(vector, start, part, obs[key], f"{name}[{key!r}]")
        return start
    if isinstance(space, spaces.Tuple):
        if not isinstance(obs, (tuple, list, np.ndarray)) or not np.iterable(obs):
            raise ValueError(f"{name} is of type {type(obs).__name__}, its space a Tuple")
        if len(obs) != len(space.spaces):
            raise ValueError(f"{name} has {len(obs)} parts, its space {len(space.spaces)}")
        for index, part in enumerate(space.spaces):
            start = fill(vector, start, part, obs[index], f"{name}[{index}]")
        return start
    if isinstance(space, spaces.Discrete):
        vector[start + choice(space, obs, name)] = 1
        return start + int(space.n)
    if isinstance(space, spaces.Box):
        leaf = held(space, obs, name).ravel()
    elif isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary)):
        leaf = spaces.flatten(space, whole_numbers(space, obs, name))  # type: ignore[assignment]
    elif space.contains(obs):
        leaf = spaces.flatten(space, obs)  # type: ignore[assignment]
    else:
        raise ValueError(f"{name} is {short(repr(obs))}, which {short(space)} does not have")
    stop = start + len(leaf)
    vector[start:stop] = leaf
    return stop


def choice(space: spaces.Discrete, obs: Any, name: str) -> int:
    """The observation, counted from the space's start."""
    if isinstance(obs, (int, np.integer)):
        number = int(obs) - int(space.start)
        if 0 <= number < space.n:
            return number
    return int(whole_numbers(space, obs, name) - space.start)


def held(space: spaces.Box, obs: Any, name: str, shaped: bool = True) -> np.ndarray:
    """The observation as an array of its Box; `shaped`: in its shape, too."""
    array = as_array(obs, name)
    if array.dtype == space.dtype and array.shape == space.shape:
        return array
    if not np.can_cast(array.dtype, space.dtype, "same_kind"):
        raise ValueError(f"{name} has dtype {array.dtype}, its space {space.dtype}")
    if shaped and array.shape != space.shape:
        raise ValueError(f"{name} has shape {array.shape}, its space {space.shape}")
    if space.dtype.kind in "iu" and array.size:
        kind: Any = space.dtype
        limits = np.iinfo(kind)
        for value in (array.min(), array.max()):
            if not limits.min <= value <= limits.max:
                raise ValueError(f"{name} has {value}, which {space.dtype} cannot hold")
    with np.errstate(over="ignore"):  # what is infinite then is not finite
        return array.astype(space.dtype)


def whole_numbers(
    space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary, obs: Any, name: str
) -> np.ndarray:
    """The observation as numbers that the space has, in its shape."""
    array = as_array(obs, name)
    if array.dtype.kind not in "biu":
        raise ValueError(f"{name} has dtype {array.dtype}, its space {space.dtype}")
    if isinstance(space, spaces.Discrete) and array.size == 1:
        array = array.reshape(())
    if array.shape != space.shape:
        raise ValueError(f"{name} has shape {array.shape}, its space {space.shape}")
    low = 0 if isinstance(space, spaces.MultiBinary) else space.start
    numbers = array.astype(np.int64)
    outside = (numbers < low) | (numbers - low >= choices_of(space))
    if outside.any():
        first = tuple(map(int, np.argwhere(outside)[0]))
        name += str(list(first)) if first else ""
        raise ValueError(f"{name} is {array[first]}, which {short(space)} does not have")
    return numbers


def as_array(obs: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(obs)
    except ValueError as error:  # of parts of several lengths
        raise ValueError(f"{name} is no array, {error}") from error


def looks(observation: spaces.Space[Any]) -> dict[str, Any]:
    """Where images lie in a flat observation, and which of its numbers are their bytes."""
    images, ranges, start = [], [], 0
    observation = observation.whole if isinstance(observation, Flat) else observation
    for leaf, _ in leaves(observation):
        size = spaces.flatdim(leaf)
        if shape := image_shape(leaf):
            images.append((start, shape))
            if leaf.dtype == np.uint8:
                ranges.append((start, start + size))
        start += size
    if isinstance(observation, spaces.Box):
        return {"images": tuple(images), "pixels": bool(ranges)}
    return {"images": tuple(images), "bytes": tuple(ranges)}


def leaves(space: spaces.Space[Any], name: str = "") -> Iterator[tuple[spaces.Space[Any], str]]:
    """What a Dict or Tuple holds and its name, in the order in which Gymnasium flattens it."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from leaves(part, f"{name}[{key!r}]")
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from leaves(part, f"{name}[{index}]")
    else:
        yield space, name


def image_shape(space: spaces.Space[Any]) -> tuple[int, ...]:
    """Of a Box with three dimensions, or two of bytes; else empty."""
    if not isinstance(space, spaces.Box):
        return ()
    shape = space.shape
    if space.dtype == np.uint8 and len(shape) == IMAGE_DIMENSIONS - 1:
        shape = (*shape, 1)  # grey
    return shape if len(shape) == IMAGE_DIMENSIONS else ()


def choices_of(
    space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary,
) -> np.ndarray | np.integer[Any]:
    """How many values each component has, in the space's shape."""
    if isinstance(space, spaces.Discrete):
        return space.n
    return space.nvec if isinstance(space, spaces.MultiDiscrete) else np.full(space.shape, 2)


def limits_of(space: spaces.Space[Any]) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest value of each component of an action."""
    if isinstance(space, spaces.Box):
        return space.low, space.high
    start = np.asarray(getattr(space, "start", 0))
    return start, start + np.asarray(choices_of(space)) - 1  # type: ignore[arg-type]


def flat_observation(env_id: str, observation: spaces.Space[Any]) -> spaces.Box:
    """The observation space as one vector."""
    if isinstance(observation, spaces.Box) and len(observation.shape) > IMAGE_DIMENSIONS:
        raise refuse(
            env_id,
            "observation",
            observation,
            "has more dimensions than an image",
            "wrap the environment: gymnasium.wrappers.FlattenObservation makes it a vector",
        )
    try:
        flat = spaces.flatten_space(observation)
    except NotImplementedError:
        flat = None
    except ValueError:  # Gymnasium has nothing to put together
        raise refuse(
            env_id, "observation", observation, "has an empty Dict or Tuple", "leave that part out"
        ) from None
    if not isinstance(flat, spaces.Box):
        raise refuse(
            env_id,
            "observation",
            observation,
            "has no fixed length",
            "wrap the environment so that it gives a vector",
        )
    if flat.shape[0] == 0:
        raise refuse(env_id, "observation", observation, "is empty", "give it a component")
    return flat


def check_box(env_id: str, action: spaces.Box) -> None:
    """Continuous actions need finite, distinct bounds: nothing is invented in their place."""
    low, high = action.low, action.high
    if low.size == 0:
        raise refuse(env_id, "action", action, "is empty", "give it a component")
    if not np.issubdtype(low.dtype, np.floating):
        raise refuse(env_id, "action", action, "is a Box of integers", as_choices(action))
    with np.errstate(over="ignore"):
        width = high - low
    if not np.isfinite(width).all():
        where, box = component(~np.isfinite(width)), f"Box(-1.0, 1.0, {action.shape})"
        remedy = (
            "give it finite ones of about the actions' size, in the environment, or around it: "
            f"gymnasium.wrappers.TransformAction(env, lambda action: action, {box})"
        )
        raise refuse(env_id, "action", action, f"has no finite bounds{where}", remedy)
    if not (width > 0).all():
        where = component(~(width > 0))
        raise refuse(env_id, "action", action, f"has low >= high{where}", "leave that number out")


def component(wrong: np.ndarray) -> str:
    """In words, the first of the components where `wrong`; empty where there is but one."""
    first = tuple(map(int, np.argwhere(wrong)[0]))
    return f" in component {list(first)}" if wrong.size > 1 else ""


def as_choices(action: spaces.Box) -> str:
    """The remedy for a Box of integers: a space of as many choices."""
    low = action.low.astype(object)
    choices = action.high.astype(object) - low + 1
    if action.shape == (1,):
        return f"use Discrete({choices.item()}, start={low.item()})"
    text = f"use MultiDiscrete({choices.tolist()}, start={low.tolist()})"
    return text if len(text) < LONGEST else "use MultiDiscrete(high - low + 1, start=low)"


def require_unclipped(env_id: str, env: gymnasium.Env[Any, Any]) -> None:
    """Raises ConfigError where Gymnasium's ClipAction is what takes the bounds away."""
    given, inner = env.action_space, env
    while isinstance(inner, gymnasium.Wrapper):
        clips, inner = isinstance(inner, ClipAction), inner.env
        if clips and is_bounded(inner.action_space) and not is_bounded(given):
            why = "has no finite bounds, ClipAction removes them"
            remedy = "leave ClipAction out, actions are clipped to the bounds here anyway"
            raise refuse(env_id, "action", given, why, remedy)


def is_bounded(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and bool(space.is_bounded("both"))


def refuse(env_id: str, kind: str, space: object, why: str, remedy: str) -> ConfigError:
    return ConfigError(f"env {env_id}: the {kind} space {short(space)} {why}; {remedy}")


def short(thing: object) -> str:
    text = " ".join(str(thing).split())
    return text if len(text) < LONGEST else f"{text[: LONGEST - 3]}..."


class ActionMap:
    """Policy units -> environment units: affine from [-1, 1] to the bounds, and clipped there.

    It is outside the density, so log-probabilities and target entropies mean the same everywhere.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.space, self.continuous = space, isinstance(space, spaces.Box)
        if isinstance(space, spaces.Box):
            self.shape, self.dtype = space.shape, space.dtype
            self.low, self.high = space.low.astype(np.float64), space.high.astype(np.float64)
            self.middle, self.half = (self.high + self.low) / 2, (self.high - self.low) / 2

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """(N, A), (N,) or (N, D) in policy units -> (N, *space.shape) in the space's dtype."""
        if isinstance(self.space, spaces.Discrete):
            return (action + self.space.start).astype(self.space.dtype)
        if isinstance(self.space, spaces.MultiBinary):
            return action.reshape(len(action), *self.space.shape).astype(self.space.dtype)
        if isinstance(self.space, spaces.MultiDiscrete):
            shaped = action.reshape(len(action), *self.space.shape).astype(self.space.dtype)
            return shaped + self.space.start
        shaped = action.reshape(len(action), *self.shape)
        scaled = self.middle + self.half * shaped
        return np.minimum(np.maximum(scaled, self.low), self.high).astype(self.dtype)


LISTED = 16  # numbers of a bound that are written out; of more, their hash


def describe(space: spaces.Space[Any]) -> str:
    """A text that two spaces share exactly if a policy means the same in both.

    Of a flattened space it is that of the whole.
    """
    space = getattr(space, "whole", space)
    if isinstance(space, spaces.Box):
        low, high = shortest(space.low), shortest(space.high)
        return f"Box({low}, {high}, {space.shape}, {space.dtype})"
    if isinstance(space, spaces.Discrete):
        return f"Discrete({space.n}{from_start(np.asarray(space.start))})"
    if isinstance(space, spaces.MultiDiscrete):
        return f"MultiDiscrete({shortest(space.nvec, uniform=False)}{from_start(space.start)})"
    if isinstance(space, spaces.MultiBinary):
        return f"MultiBinary({space.shape})"
    if isinstance(space, spaces.Dict):
        parts = ", ".join(f"{name!r}: {describe(part)}" for name, part in space.spaces.items())
        return f"Dict({parts})"
    if isinstance(space, (spaces.Tuple, spaces.OneOf)):
        return f"{type(space).__name__}({', '.join(map(describe, space.spaces))})"
    if isinstance(space, spaces.Text):  # whose numbers are places in this list
        letters = "".join(space.character_list)
        return f"Text({space.min_length}, {space.max_length}, charset={letters})"
    return str(space)


def shortest(numbers: np.ndarray, uniform: bool = True) -> str:
    """One number where all are equal and `uniform`, else all of them, or, of many, their hash."""
    array = np.asarray(numbers) + 0  # -0.0 is 0.0
    if uniform and array.size and (array == array.flat[0]).all():
        return str(array.flat[0])
    if array.size > LISTED:
        return f"#{hashlib.sha256(str(array.shape).encode() + array.tobytes()).hexdigest()[:12]}"
    texts: Any = np.array([str(number) for number in array.flat], dtype=object)
    return str(texts.reshape(array.shape).tolist()).replace("'", "")


def from_start(start: np.ndarray) -> str:
    return f", start={shortest(start)}" if start.any() else ""


def require_same_spaces(
    env_id: str, recorded: Any, present: dict[str, str], other: str = ""
) -> None:
    """Raises ConfigError where a policy was made in other spaces than those that it is to play in.

    Args:
        env_id: of the environment that is here.
        recorded: by kind ("observation", "action"), what `describe` gave then; None: not known.
        present: the same of the environment that is here.
        other: the id of the one that it was made in, where it may be another.
    """
    for kind, now in present.items() if isinstance(recorded, dict) else ():
        was = recorded.get(kind, now)
        if was != now:
            made_in = f", {other}," if other not in ("", env_id) else ""
            there, here = around(str(was), now), around(now, str(was))
            raise ConfigError(f"env {env_id}: its {kind} space is {here}, and the policy was made "
                              f"in {there}; give it the environment it was made in{made_in} or "
                              "train anew")  # fmt: skip


def around(text: str, other: str, most: int = 90) -> str:
    """What is different in a text, with as much beside it as there is room for."""
    if len(text) <= most:
        return text
    first = next((i for i, pair in enumerate(zip(text, other, strict=False)) if len({*pair}) > 1),
                 min(len(text), len(other)))  # fmt: skip
    start = max(0, min(first - most // 3, len(text) - most))
    end = start + most
    return f"{'...' * (start > 0)}{text[start:end]}{'...' * (end < len(text))}"
