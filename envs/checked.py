"""One copy of an environment, all of whose values are checked against its spaces."""

import math
import sys
import weakref
from typing import Any

import gymnasium
import numpy as np

from common.errors import Halt, LogpiError, in_words
from envs.masks import ActionMask, place
from envs.spaces import LARGEST, Flat, read

PASSED = (KeyboardInterrupt, Halt, LogpiError)  # what an environment has not raised itself
MISSING = (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError)  # it needs a library


class CopyFault(RuntimeError):
    """An error of copy number `index`; `missing`: it lacks a library.

    It is raised in the copy's own process, which may be another one.
    """

    def __init__(self, what: str, index: int, missing: bool = False) -> None:
        super().__init__(what, index, missing)
        self.what, self.index, self.missing = what, index, missing


class Checked(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Raises CopyFault where a copy raises, or returns what its spaces do not allow.

    Numbers may be of a smaller or larger kind (float64 for a float32 space, integers for floats,
    uint16 for a uint8 space that can hold them), a reward or a flag an array of one element;
    nothing else is converted. `info` is dropped. Observations that are no Box are flattened.

    Attributes:
        index: its place among the copies.
        lasting: why an episode may depend on those before it, if it is known to.
        offers: where it gives masks of its actions which are not used, see `masks.place`.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], env_id: str, index: int) -> None:
        super().__init__(env)
        self.index = index
        self.lasting: str | None = None
        self.offers = ""
        self.space: Any = env.observation_space
        if not isinstance(self.space, gymnasium.spaces.Box):
            self.space = self.observation_space = Flat(env_id, self.space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        before = [weakref.ref(world) for world in worlds(self.env)]
        obs, info = self.call("reset", seed=seed, options=options)
        self.offers = "" if isinstance(self.env, ActionMask) else place(self.env, info)
        if any(old() is world for old in before for world in worlds(self.env)):
            self.lasting = "its Box2D world outlives a reset"
        return self.observation(obs), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, _ = self.call("step", action)
        number = float(self.single("reward", reward, float, "biuf"))
        if not -LARGEST <= number <= LARGEST:  # it is learned from in float32
            beyond = "is too large for float32" if math.isfinite(number) else "is not finite"
            raise CopyFault(f"reward {number} {beyond}", self.index)
        ends = bool(self.single("terminated", terminated, bool, "biu"))
        late = bool(self.single("truncated", truncated, bool, "biu"))
        return self.observation(obs), number, ends, late, {}

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a method of the environment."""
        try:
            return getattr(self.env, name)(*args, **kwargs)
        except PASSED:
            raise
        except BaseException as error:  # some bindings raise what is no Exception
            what = f"{name} raised {in_words(error)}"
            raise CopyFault(what, self.index, isinstance(error, MISSING)) from error

    def observation(self, obs: Any) -> np.ndarray:
        """The observation as an array of the space's shape."""
        try:
            return read(self.space, obs)
        except ValueError as error:
            raise CopyFault(str(error), self.index) from error

    def single(self, name: str, value: Any, usual: type, kinds: str) -> Any:
        """The value, or the one element of an array, of NumPy's kinds; CopyFault for all else."""
        if isinstance(value, usual):  # a NumPy float is one, too
            return value
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in kinds:
            raise CopyFault(f"{name} is {str(value)[:40]!r}, which is not one number", self.index)
        return array.item()


def nested(env: Any) -> list[Any]:
    """An environment and those inside its wrappers, the outermost first."""
    return [env, *nested(env.env)] if isinstance(env, gymnasium.Wrapper) else [env]


def worlds(env: gymnasium.Env[Any, Any]) -> list[Any]:
    """The Box2D worlds of an environment, of its wrappers, and of their objects."""
    box2d = sys.modules.get("Box2D")
    if box2d is None:
        return []
    held = [value for layer in nested(env) for value in vars(layer).values()]
    held += [value for thing in held for value in getattr(thing, "__dict__", {}).values()]
    return [value for value in held if isinstance(value, box2d.b2World)]
