"""Which spaces can be served, and the maps between the agent's units and the environment's."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from gymnasium import spaces

from common.errors import ConfigError
from data import Spec

IMAGE_DIMENSIONS = 3  # height, width and channels, or channels first
LONGEST = 100  # characters of a space or a value in a message
LISTED = 16  # numbers of a bound that are written out; of more, their hash

Parts: TypeAlias = "spaces.Dict | spaces.Tuple[Any]"
Choices = spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary


def check_spaces(env_id: str, observation: spaces.Space[Any], action: spaces.Space[Any]) -> Spec:
    """Shapes for the agent, or a ConfigError that says why this environment cannot be served."""
    width = flat_observation(env_id, observation).shape[0]
    seen = looks(observation)
    refused = partial(refuse, env_id, "action", action)
    if isinstance(action, Choices):
        choices = tuple(map(int, choices_of(action)[0].flat))
        if max(choices, default=0) < 2:
            raise refused("leaves no choice", "give it two actions")
        several = () if isinstance(action, spaces.Discrete) else choices
        return Spec(width, max(choices), discrete=True, choices=several, **seen)
    if not isinstance(action, spaces.Box):
        remedy = "use Discrete, MultiDiscrete, MultiBinary or a bounded Box"
        raise refused("is not supported", remedy)
    check_box(env_id, action)
    return Spec(width, int(np.prod(action.shape)), discrete=False, **seen)


class Flat(spaces.Box):
    """A space as one vector; `whole` is the space itself."""

    def __init__(self, env_id: str, whole: spaces.Space[Any]) -> None:
        box: Any = flat_observation(env_id, whole)
        super().__init__(box.low, box.high, box.shape, box.dtype)
        self.whole = whole

    def read(self, obs: Any) -> np.ndarray:
        """One observation of the whole space as a vector; ValueError where it does not belong."""
        found = list(flattened(self.whole, obs, "observation"))
        return np.concatenate(found, dtype=self.dtype, casting="unsafe")

    def part(self, index: int) -> tuple[str, slice]:
        """The name of the part that number `index` of the vector is of, and where it lies."""
        start = 0
        for leaf, name in leaves(self.whole, "observation"):
            stop = start + spaces.flatdim(leaf)
            if index < stop:
                return name, slice(start, stop)
            start = stop
        raise IndexError(index)


def as_vector(space: spaces.Box, obs: Any) -> Any:
    """An observation as the agent sees it: of any space but a Box, as one vector.

    Several observations of a Box, and what is already a vector or several, stay as they are.

    Raises:
        ValueError: it does not belong to the space.
    """
    if not isinstance(space, Flat):
        vector = held(space, obs, "observation", shaped=False)
    else:
        vector = np.asarray(obs) if is_flat(space, obs) else space.read(obs)
    if not finite(vector).all():
        raise ValueError(not_finite(space, vector))
    return vector


def finite(numbers: np.ndarray) -> np.ndarray:
    """Where they are finite as float32."""
    with np.errstate(over="ignore"):
        return np.isfinite(numbers.astype(np.float32))


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
    if isinstance(space, Flat) and vector.ndim == 1:
        name, place = space.part(int(finite(vector).argmin()))
        return f"{name} {vector[place]} is not finite"
    return f"observation {vector} is not finite"


def flattened(space: spaces.Space[Any], obs: Any, name: str) -> Iterator[np.ndarray]:
    """The leaves of an observation as vectors, each held to its own space.

    Raises:
        ValueError: names the part that does not belong to its space.
    """
    leaf: Any
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        require_parts(space, obs, name)
        for key, part in parts_of(space):
            yield from flattened(part, obs[key], f"{name}[{key!r}]")
        return
    if isinstance(space, spaces.Box):
        leaf = held(space, obs, name).ravel()
    elif isinstance(space, spaces.Discrete):
        start = int(space.start)  # a plain number takes a tenth of the time of an array
        usual = isinstance(obs, (int, np.integer)) and 0 <= int(obs) - start < space.n
        leaf = np.zeros(int(space.n), np.int8)
        leaf[int(obs if usual else whole_numbers(space, obs, name)) - start] = 1
    elif isinstance(space, Choices):
        leaf = spaces.flatten(space, whole_numbers(space, obs, name))
    elif space.contains(obs):
        leaf = spaces.flatten(space, obs)
    else:
        raise ValueError(f"{name} is {short(repr(obs))}, which {short(space)} does not have")
    yield leaf


def require_parts(space: Parts, obs: Any, name: str) -> None:
    """Raises ValueError where an observation has not the parts of its space."""
    if isinstance(space, spaces.Dict):
        if not isinstance(obs, Mapping):
            raise ValueError(f"{name} is of type {type(obs).__name__}, its space a Dict")
        for key in space.spaces:
            if key not in obs:
                raise ValueError(f"{name} has no {key!r}, its space does")
        return
    if not isinstance(obs, (tuple, list, np.ndarray)) or not np.iterable(obs):
        raise ValueError(f"{name} is of type {type(obs).__name__}, its space a Tuple")
    if len(obs) != len(space.spaces):
        raise ValueError(f"{name} has {len(obs)} parts, its space {len(space.spaces)}")


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


def whole_numbers(space: Choices, obs: Any, name: str) -> np.ndarray:
    """The observation as numbers that the space has, in its shape."""
    array = as_array(obs, name)
    if array.dtype.kind not in "biu":
        raise ValueError(f"{name} has dtype {array.dtype}, its space {space.dtype}")
    if isinstance(space, spaces.Discrete) and array.size == 1:
        array = array.reshape(())
    if array.shape != space.shape:
        raise ValueError(f"{name} has shape {array.shape}, its space {space.shape}")
    numbers = array.astype(np.int64)
    count, low = choices_of(space)
    outside = (numbers < low) | (numbers - low >= count)
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
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        yield space, name
        return
    for key, part in parts_of(space):
        yield from leaves(part, f"{name}[{key!r}]")


def parts_of(space: Parts) -> list[tuple[Any, spaces.Space[Any]]]:
    """The parts and their keys, or their indices."""
    if isinstance(space, spaces.Dict):
        return list(space.spaces.items())
    return list(enumerate(space.spaces))


def image_shape(space: spaces.Space[Any]) -> tuple[int, ...]:
    """Of a Box with three dimensions, or two of bytes; else empty."""
    if not isinstance(space, spaces.Box):
        return ()
    shape = space.shape
    if space.dtype == np.uint8 and len(shape) == IMAGE_DIMENSIONS - 1:
        shape = (*shape, 1)  # grey
    return shape if len(shape) == IMAGE_DIMENSIONS else ()


def choices_of(space: Choices) -> tuple[np.ndarray, np.ndarray]:
    """How many values each component has, and the lowest of them, in the space's shape."""
    if isinstance(space, spaces.MultiBinary):
        return np.full(space.shape, 2), np.zeros(space.shape, np.int64)
    count = space.n if isinstance(space, spaces.Discrete) else space.nvec
    return np.asarray(count), np.asarray(space.start)


def limits_of(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest value of each component of an action."""
    if isinstance(space, spaces.Box):
        return space.low, space.high
    counts, start = choices_of(space)
    return start, start + counts - 1


def flat_observation(env_id: str, observation: spaces.Space[Any]) -> spaces.Box:
    """The observation space as one vector."""
    refused = partial(refuse, env_id, "observation", observation)
    if isinstance(observation, spaces.Box) and len(observation.shape) > IMAGE_DIMENSIONS:
        remedy = "wrap the environment: gymnasium.wrappers.FlattenObservation makes it a vector"
        raise refused("has more dimensions than an image", remedy)
    try:
        flat: Any = spaces.flatten_space(observation)
    except NotImplementedError:
        flat = None
    except ValueError:  # Gymnasium has nothing to put together
        raise refused("has an empty Dict or Tuple", "leave that part out") from None
    if not isinstance(flat, spaces.Box):
        raise refused("has no fixed length", "wrap the environment so that it gives a vector")
    if flat.shape[0] == 0:
        raise refused("is empty", "give it a component")
    return flat


def check_box(env_id: str, action: spaces.Box) -> None:
    """Continuous actions need finite, distinct bounds: nothing is invented in their place."""
    refused = partial(refuse, env_id, "action", action)
    low, high = action.low, action.high
    if low.size == 0:
        raise refused("is empty", "give it a component")
    if not np.issubdtype(low.dtype, np.floating):
        raise refused("is a Box of integers", as_choices(action))
    with np.errstate(over="ignore"):
        width = high - low
    if not np.isfinite(width).all():
        where, box = component(~np.isfinite(width)), f"Box(-1.0, 1.0, {action.shape})"
        remedy = (
            "give it finite ones of about the actions' size, in the environment, or around it: "
            f"gymnasium.wrappers.TransformAction(env, lambda action: action, {box})"
        )
        raise refused(f"has no finite bounds{where}", remedy)
    if not (width > 0).all():
        where = component(~(width > 0))
        raise refused(f"has low >= high{where}", "leave that number out")


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


def refuse(env_id: str, kind: str, space: object, why: str, remedy: str) -> ConfigError:
    return ConfigError(f"env {env_id}: the {kind} space {short(space)} {why}; {remedy}")


def short(thing: object) -> str:
    text = " ".join(str(thing).split())
    return text if len(text) < LONGEST else f"{text[: LONGEST - 3]}..."


class ActionMap:
    """Policy units -> environment units: affine from [-1, 1] to the bounds, and clipped there.

    It is outside the density, so log-probabilities and target entropies mean the same everywhere.
    """

    def __init__(self, space: Any) -> None:
        self.space, self.dtype = space, space.dtype
        self.continuous = isinstance(space, spaces.Box)
        if not self.continuous:
            self.start = choices_of(space)[1].astype(self.dtype)
            return
        self.low, self.high = space.low.astype(np.float64), space.high.astype(np.float64)
        self.middle, self.half = (self.high + self.low) / 2, (self.high - self.low) / 2

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """(N, A), (N,) or (N, D) in policy units -> (N, *space.shape) in the space's dtype."""
        shaped = action.reshape(len(action), *self.space.shape)
        if not self.continuous:
            return shaped.astype(self.dtype) + self.start
        scaled = self.middle + self.half * shaped
        return np.minimum(np.maximum(scaled, self.low), self.high).astype(self.dtype)


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
            raise ConfigError(
                f"env {env_id}: its {kind} space is {here}, and the policy was made in {there}; "
                f"give it the environment it was made in{made_in} or train anew"
            )


def around(text: str, other: str, most: int = 90) -> str:
    """What is different in a text, with as much beside it as there is room for."""
    if len(text) <= most:
        return text
    pairs = enumerate(zip(text, other, strict=False))
    first = next((i for i, (ours, theirs) in pairs if ours != theirs), min(len(text), len(other)))
    start = max(0, min(first - most // 3, len(text) - most))
    end = start + most
    return f"{'...' * (start > 0)}{text[start:end]}{'...' * (end < len(text))}"
