"""Which spaces can be served, and the map between the agent's units and the environment's."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from data import Spec
from runtime.errors import ConfigError

IMAGE_DIMENSIONS = 3  # height, width and channels, or channels first


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
    """A space as one vector, which knows what it was."""

    def __init__(self, env_id: str, whole: spaces.Space[Any]) -> None:
        box = flat_observation(env_id, whole)
        super().__init__(box.low, box.high, box.shape, box.dtype)  # type: ignore[arg-type]
        self.whole = whole


def as_vector(space: spaces.Space[Any], obs: Any) -> Any:
    """An observation as the agent sees it: of any space but a Box, as one vector."""
    if not isinstance(space, Flat):
        return obs
    parts = isinstance(space.whole, (spaces.Dict, spaces.Tuple))
    if isinstance(obs, (dict, tuple)) if parts else space.whole.contains(obs):
        return spaces.flatten(space.whole, obs)
    return obs


def looks(observation: spaces.Space[Any]) -> dict[str, Any]:
    """Where images lie in a flat observation, and which of its numbers are their bytes."""
    images, ranges, start = [], [], 0
    observation = observation.whole if isinstance(observation, Flat) else observation
    for leaf in leaves(observation):
        size = spaces.flatdim(leaf)
        if shape := image_shape(leaf):
            images.append((start, shape))
            if leaf.dtype == np.uint8:
                ranges.append((start, start + size))
        start += size
    if isinstance(observation, spaces.Box):
        return {"images": tuple(images), "pixels": bool(ranges)}
    return {"images": tuple(images), "bytes": tuple(ranges)}


def leaves(space: spaces.Space[Any]) -> Iterator[spaces.Space[Any]]:
    """What a Dict or Tuple holds, in the order in which Gymnasium flattens it."""
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        yield space
        return
    inside = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
    for part in inside:
        yield from leaves(part)


def image_shape(space: spaces.Space[Any]) -> tuple[int, ...]:
    """Of a Box with three dimensions, or two of bytes; else empty."""
    if not isinstance(space, spaces.Box):
        return ()
    shape = space.shape
    if space.dtype == np.uint8 and len(shape) == IMAGE_DIMENSIONS - 1:
        shape = (*shape, 1)  # grey
    return shape if len(shape) == IMAGE_DIMENSIONS else ()


def choices_of(action: spaces.MultiDiscrete | spaces.MultiBinary) -> np.ndarray:
    """How many actions each component has, in the space's shape."""
    if isinstance(action, spaces.MultiDiscrete):
        return action.nvec
    return np.full(action.shape, 2)


def flat_observation(env_id: str, observation: spaces.Space[Any]) -> spaces.Box:
    """The observation space as one vector."""
    if isinstance(observation, spaces.Box) and len(observation.shape) > IMAGE_DIMENSIONS:
        raise refuse(
            env_id,
            "observation",
            observation,
            "has more dimensions than an image",
            "wrap the environment so that it gives three, or a vector",
        )
    try:
        flat = spaces.flatten_space(observation)
    except NotImplementedError:
        flat = None
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
    if action.low.size == 0:
        raise refuse(env_id, "action", action, "is empty", "give it a component")
    if not np.issubdtype(low.dtype, np.floating):
        raise refuse(env_id, "action", action, "is a Box of integers", "use Discrete instead")
    with np.errstate(over="ignore"):
        width = high - low
    if not np.isfinite(width).all():
        raise refuse(
            env_id,
            "action",
            action,
            "has no finite bounds",
            "bound it with gymnasium.wrappers.RescaleAction or ClipAction",
        )
    if not (width > 0).all():
        raise refuse(
            env_id, "action", action, "has low >= high in a component", "remove that component"
        )


def refuse(env_id: str, kind: str, space: object, why: str, remedy: str) -> ConfigError:
    text = str(space)
    text = text if len(text) < 100 else text[:97] + "..."
    return ConfigError(f"env {env_id}: the {kind} space {text} {why}; {remedy}")


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
            return action + self.space.start
        if isinstance(self.space, spaces.MultiBinary):
            return action.reshape(len(action), *self.space.shape).astype(self.space.dtype)
        if isinstance(self.space, spaces.MultiDiscrete):
            shaped = action.reshape(len(action), *self.space.shape).astype(self.space.dtype)
            return shaped + self.space.start
        shaped = action.reshape(len(action), *self.shape)
        scaled = self.middle + self.half * shaped
        return np.minimum(np.maximum(scaled, self.low), self.high).astype(self.dtype)
