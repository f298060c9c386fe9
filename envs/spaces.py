"""Spaces that are supported, and maps between the agent's units and the environment's."""

import hashlib
import itertools
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces

from common.errors import ConfigError
from configs.schema import MASKING
from data import Spec

IMAGE_DIMENSIONS = 3  # height, width and channels, or channels first
LONGEST = 100  # characters of a space or a value in a message
LARGEST = float(np.finfo(np.float32).max)
LISTED = 16  # numbers of a bound that are written out; of more, their hash
MASK = "action_mask"  # the part of a Dict observation

Choices = spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary


def check_spaces(env_id: str, observation: spaces.Space[Any], action: spaces.Space[Any]) -> Spec:
    """Shapes for the agent, or a ConfigError that explains why it is not supported."""
    width = flat_observation(env_id, observation).shape[0]
    seen = images_in(observation)
    if isinstance(action, Choices):
        choices = choices_of(action)
        if max(choices, default=0) < 2:
            raise refuse(env_id, "action", action, "leaves no choice", "give it two actions")
        several = () if isinstance(action, spaces.Discrete) else choices
        *_, (_, last, _) = leaves(getattr(observation, "whole", observation))
        mask = sum(last.sizes) if isinstance(last, Mask) else 0
        return Spec(width, max(choices), discrete=True, choices=several, mask=mask, **seen)
    if not isinstance(action, spaces.Box):
        remedy = "use Discrete, MultiDiscrete, MultiBinary or a bounded Box"
        raise refuse(env_id, "action", action, "is not supported", remedy)
    check_box(env_id, action)
    return Spec(width, int(np.prod(action.shape)), discrete=False, **seen)


def flat_observation(env_id: str, observation: spaces.Space[Any]) -> spaces.Box:
    """The observation space as one vector."""
    refused = partial(refuse, env_id, "observation", observation)
    if isinstance(observation, spaces.Box) and len(observation.shape) > IMAGE_DIMENSIONS:
        remedy = "wrap the environment: gymnasium.wrappers.FlattenObservation makes it a vector"
        raise refused("has more dimensions than an image", remedy)
    try:
        flat: Any = spaces.flatten_space(observation)
    except (NotImplementedError, ValueError):  # ValueError: a Dict or Tuple has no parts
        flat = None
    if not isinstance(flat, spaces.Box) or flat.shape[0] == 0:
        remedy = "leave out such parts, or wrap the environment so that it gives a vector"
        raise refused("is empty or has no fixed length, as a whole or in a part", remedy)
    return flat


def check_box(env_id: str, action: spaces.Box) -> None:
    """Continuous actions need finite, distinct bounds."""
    refused = partial(refuse, env_id, "action", action)
    if action.low.size == 0:
        raise refused("is empty", "give it a component")
    if not np.issubdtype(action.dtype, np.floating):
        raise refused("is a Box of integers", "use MultiDiscrete(high - low + 1, start=low)")
    with np.errstate(over="ignore"):
        width = action.high - action.low
    finite_ones = (
        "leave ClipAction out where it removes them, actions are clipped here anyway; else give "
        "it finite ones of about the actions' size, in the environment, or around it: gymnasium."
        f"wrappers.TransformAction(env, lambda action: action, Box(-1.0, 1.0, {action.shape}))"
    )
    for wrong, why, remedy in (
        (~np.isfinite(width), "has no finite bounds", finite_ones),
        (width <= 0, "has low >= high", "leave that number out"),
    ):
        if wrong.any():
            raise refused(f"{why} in component {np.argwhere(wrong)[0].tolist()}", remedy)


def refuse(env_id: str, kind: str, space: object, why: str, remedy: str) -> ConfigError:
    return ConfigError(f"env {env_id}: the {kind} space {short(space)} {why}; {remedy}")


def short(thing: object) -> str:
    text = " ".join(str(thing).split())
    return text if len(text) < LONGEST else f"{text[: LONGEST - 3]}..."


def images_in(observation: spaces.Space[Any]) -> dict[str, Any]:
    """Where images lie in a flat observation, and which of its numbers are their bytes.

    An image is a Box with three dimensions, or with two of bytes.
    """
    whole = getattr(observation, "whole", observation)
    images, ranges, stop = [], [], 0
    for _, leaf, _ in leaves(whole):
        start, stop = stop, stop + spaces.flatdim(leaf)
        shape, of_bytes = leaf.shape or (), leaf.dtype == np.uint8
        if of_bytes and len(shape) == IMAGE_DIMENSIONS - 1:
            shape = (*shape, 1)  # grey
        if isinstance(leaf, spaces.Box) and len(shape) == IMAGE_DIMENSIONS:
            images.append((start, shape))
            ranges += [(start, stop)] if of_bytes else []
    if isinstance(whole, spaces.Box):
        return {"images": tuple(images), "pixels": bool(ranges)}
    return {"images": tuple(images), "bytes": tuple(ranges)}


def leaves(
    space: spaces.Space[Any], obs: Any = None, name: str = "observation"
) -> Iterator[tuple[str, spaces.Space[Any], Any]]:
    """Name, space and observation of all that a Dict or Tuple holds, as Gymnasium flattens it.

    Any other space is its own only leaf. Raises ValueError where the observation, if one is given,
    has not the parts of its space.
    """
    parts: dict[Any, spaces.Space[Any]]
    if isinstance(space, spaces.Dict):
        kinds: Any = Mapping
        parts = space.spaces
    elif isinstance(space, spaces.Tuple):
        kinds = (tuple, list, np.ndarray)
        parts = dict(enumerate(space.spaces))
    else:
        yield name, space, obs
        return
    if obs is not None:
        fits = isinstance(obs, kinds) and np.iterable(obs)
        if not fits:
            kind = f"{type(space).__name__} of {short(', '.join(map(str, parts)))}"
            raise ValueError(f"{name} is of type {type(obs).__name__}, its space a {kind}")
        if kinds is not Mapping and len(obs) != len(parts):
            raise ValueError(f"{name} has {len(obs)} parts, its space {len(parts)}")
        for key in parts if kinds is Mapping else ():
            if key not in obs:
                raise ValueError(f"{name} has no {key!r}, its space does")
    for key, part in parts.items():
        yield from leaves(part, None if obs is None else obs[key], f"{name}[{key!r}]")


class Mask(spaces.MultiBinary):
    """Which actions are permitted, in one row of all choices; `sizes` are their numbers."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(sum(sizes))
        self.sizes = list(sizes)

    def row(self, mask: Any) -> np.ndarray:
        """0 and 1, (M,), of such a row, or of one for each choice; ValueError for all else."""
        if mask is None:
            raise ValueError(f"{MASK} is missing")
        several = list(mask) if np.iterable(mask) else []
        rows = [np.asarray(p) for p in (several if len(several) == len(self.sizes) else [mask])]
        if [row.shape for row in rows] not in ([(self.n,)], [(size,) for size in self.sizes]):
            shape = " and ".join(str(row.shape) for row in rows)
            raise ValueError(f"{MASK} has shape {shape}; these actions need ({self.n},)")
        row = np.concatenate(rows)
        if row.dtype.kind not in "biuf" or not ((row == 0) | (row == 1)).all():
            raise ValueError(f"{MASK} is {short(row)} of {row.dtype}, not of 0 and 1")
        return row.astype(self.dtype)


def has_mask(observation: spaces.Space[Any]) -> bool:
    return isinstance(observation, spaces.Dict) and MASK in observation.spaces


def with_mask(observation: Any, action: spaces.Space[Any]) -> spaces.Dict:
    """The same observations with a mask of these actions as their last part."""
    if not isinstance(action, Choices):
        why = "masks permit single actions, these are continuous"
        raise ConfigError(f"env.wrappers: ActionMask: {why}; leave ActionMask out")
    parts = {"observation": observation}
    if has_mask(observation):
        parts = {name: part for name, part in observation.spaces.items() if name != MASK}
    if not parts:
        why = "there is nothing but the mask to observe"
        raise ConfigError(f"env.wrappers: ActionMask: {why}; add a part, e.g. Discrete(1)")
    return spaces.Dict(OrderedDict({**parts, MASK: Mask(choices_of(action))}))


def masks_in(spec: Spec, obs: np.ndarray) -> list[np.ndarray]:
    """Views of the masks in observations (*, O), one (*, K) for each discrete choice."""
    sizes = spec.choices or (spec.action_dim,)
    return np.split(obs[..., -spec.mask :], np.cumsum(sizes)[:-1], axis=-1)


class Flat(spaces.Box):
    """A space as one vector; `whole` is the space itself."""

    def __init__(self, env_id: str, whole: spaces.Space[Any]) -> None:
        box: Any = flat_observation(env_id, whole)
        super().__init__(box.low, box.high, box.shape, box.dtype)
        self.whole = whole


def read(space: spaces.Box, obs: Any) -> np.ndarray:
    """One observation as an array of its space; of the whole of a `Flat` one, as its vector.

    Raises ValueError, with the name of the part, where it does not belong there or is not finite.
    """
    if not isinstance(space, Flat):
        return held(space, obs, "observation")
    parts = [flattened(leaf, part, name) for name, leaf, part in leaves(space.whole, obs)]
    return np.concatenate(parts, dtype=space.dtype, casting="unsafe")


def flattened(space: spaces.Space[Any], obs: Any, name: str) -> Any:
    """A leaf of an observation as a vector."""
    if isinstance(space, Mask):
        return space.row(obs)
    if isinstance(space, spaces.Box):
        return finite(held(space, obs, name).ravel(), name)
    usual = not isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary))  # any numbers there
    if not (usual and space.contains(obs)):
        if not isinstance(space, Choices):
            raise ValueError(f"{name} is {short(repr(obs))}, which {short(space)} does not have")
        obs = held(space, obs, name)
    return spaces.flatten(space, obs)


def held(space: Any, obs: Any, name: str, shaped: bool = True) -> np.ndarray:
    """An observation of a Box or of choices in the type of its space; `shaped`: in its shape."""
    kind, choices = space.dtype, isinstance(space, Choices)
    try:
        array = np.asarray(obs)
    except ValueError as error:  # of parts of several lengths
        raise ValueError(f"{name} is no array, {error}") from error
    if array.dtype == kind and array.shape == space.shape and not choices:
        return array
    if isinstance(space, spaces.Discrete) and array.size == 1:
        array = array.reshape(())
    if not (array.dtype.kind in "biu" if choices else np.can_cast(array.dtype, kind, "same_kind")):
        raise ValueError(f"{name} has dtype {array.dtype}, its space {kind}")
    if shaped and array.shape != space.shape:
        raise ValueError(f"{name} has shape {array.shape}, its space {space.shape}")
    if kind.kind in "iu":
        low, high = limits_of(space) if choices else (np.iinfo(kind).min, np.iinfo(kind).max)
        outside = (array < low) | (array > high)
        if outside.any():
            first = tuple(np.argwhere(outside)[0].tolist())
            what = short(space) if choices else kind
            name += str(list(first)) if first else ""
            raise ValueError(f"{name} is {array[first]}, which {what} does not have")
    with np.errstate(over="ignore"):  # what is infinite then is not finite
        return array.astype(kind)


def as_vector(space: spaces.Box, obs: Any) -> Any:
    """An observation in the form for the agent: of any space but a Box, one vector.

    Several observations of a Box, and what is already a vector or several, stay as they are.
    Raises ValueError where it does not belong to the space.
    """
    if not isinstance(space, Flat):
        vector = held(space, obs, "observation", shaped=False)
    else:
        shape = () if isinstance(obs, (dict, tuple)) else np.shape(obs)
        flat = shape[-1:] == space.shape and shape != space.whole.shape
        vector = np.asarray(obs) if flat else read(space, obs)
    return finite(vector, "observation")


def finite(numbers: np.ndarray, name: str) -> np.ndarray:
    """The same numbers; ValueError where they are not finite as float32."""
    if numbers.dtype.kind == "f" and not (np.abs(numbers) <= LARGEST).all():
        raise ValueError(f"{name} {numbers} is not finite")
    return numbers


def limits_of(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest value of each component of a Box, or of choices."""
    if isinstance(space, spaces.Box):
        return space.low, space.high
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(space.shape, np.int64), np.ones(space.shape, np.int64)
    counts = space.n if isinstance(space, spaces.Discrete) else space.nvec
    start = np.asarray(space.start, np.int64)
    return start, start + np.asarray(counts, np.int64) - 1


def choices_of(space: Any) -> tuple[int, ...]:
    """How many actions each discrete choice has."""
    low, high = limits_of(space)
    return tuple(map(int, (high - low + 1).flat))


class ActionMap:
    """Policy units -> environment units: affine from [-1, 1] to the bounds, and clipped there.

    It is outside the density, so log-probabilities and target entropies mean the same everywhere.
    """

    def __init__(self, space: Any) -> None:
        self.space, self.dtype = space, space.dtype
        self.continuous = isinstance(space, spaces.Box)
        if not self.continuous:
            self.start = limits_of(space)[0].astype(self.dtype)
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
    """A text that is equal for two spaces exactly if they are the same for a policy."""
    space = getattr(space, "whole", space)
    if isinstance(space, spaces.Box):
        low, high = shortest(space.low), shortest(space.high)
        return f"Box({low}, {high}, {space.shape}, {space.dtype})"
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        start = np.asarray(space.start)
        begins = f", start={shortest(start)}" if start.any() else ""
        if isinstance(space, spaces.Discrete):
            return f"Discrete({space.n}{begins})"
        return f"MultiDiscrete({shortest(space.nvec, uniform=False)}{begins})"
    if isinstance(space, Mask):  # one that is used, unlike a MultiBinary of the same shape
        return f"Mask({space.sizes})"
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
    array = numbers + 0  # -0.0 is 0.0
    if uniform and array.size and (array == array.flat[0]).all():
        return str(array.flat[0])
    if array.size > LISTED:
        return f"#{hashlib.sha256(str(array.shape).encode() + array.tobytes()).hexdigest()[:12]}"
    texts: Any = np.array([str(number) for number in array.flat], dtype=object)
    return str(texts.reshape(array.shape).tolist()).replace("'", "")


def require_same_spaces(
    env_id: str, recorded: Any, present: dict[str, str], other: str = ""
) -> None:
    """Raises ConfigError where a policy was made in other spaces than those that it is to play in.

    `recorded` and `present` are what `describe` gave for each kind, then (None: not known) and now;
    `other` is the environment that it was made in, where it may be another.
    """
    for kind, now in present.items() if isinstance(recorded, dict) else ():
        was = str(recorded.get(kind, now))
        if was == before(now):
            continue
        used = f"{MASK!r}: Mask("
        if used in was and used not in now and other in ("", env_id):
            raise ConfigError(
                f"env {env_id}: the policy was made with masks of its actions, which are not used "
                f'here; give "env.wrappers=[{MASKING}]", named last'
            )
        if was != now:
            made_in = f", {other}," if other not in ("", env_id) else ""
            raise ConfigError(
                f"env {env_id}: its {kind} space is {around(now, was)}, and the policy was made in "
                f"{around(was, now)}; give it the environment it was made in{made_in} or train anew"
            )


def before(text: str) -> str:
    """What `describe` gave in older revisions, in which a mask that is used was a MultiBinary."""
    plain = lambda found: f"MultiBinary(({sum(map(int, found[1].split(', ')))},))"  # noqa: E731
    return re.sub(r"\bMask\(\[([\d, ]+)\]\)", plain, text)


def around(text: str, other: str, most: int = 90) -> str:
    """What is different in a text, with as much beside it as there is room for."""
    pairs = zip(text, other, strict=False)
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    start = max(0, min(same - most // 3, len(text) - most))
    end = start + most
    return f"{'...' * (start > 0)}{text[start:end]}{'...' * (end < len(text))}"
