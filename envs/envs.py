"""The interface to Gymnasium: true transitions, checked and copied."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import EnvironmentFault, Halt, in_words, warn
from configs.schema import Wrappers, named
from data import Transition
from envs.checked import MISSING, PASSED, CopyFault
from envs.make import make_backend
from envs.native import Backend
from envs.spaces import (
    MASK,
    ActionMap,
    as_vector,
    check_spaces,
    describe,
    limits_of,
    masks_in,
    short,
)
from networks.normalizer import Ranges, Unpack

TINY, ONE = np.uint32(713_624).view(np.float32), np.float32(1.0)  # 1e-39, whatever is flushed


class Envs:
    """N copies of one environment; the arguments are those of the group `env`, and a seed.

    Args:
        seed: every episode derives from it.
        journal: whether to keep what brings the environments back in `load_state_dict`.

    Attributes:
        obs: what to act on next, (N, O); where images of bytes lie among other numbers, rows of
            bytes, which `read` reads.

    Raises:
        ConfigError: it does not exist, or cannot be made so, or its spaces are not supported.
        EnvironmentFault: it raised, or gave values that are not finite.
    """

    obs: Tensor

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        vectorization: str,
        kwargs: dict[str, Any],
        seed: int,
        timeout: float = 60.0,
        journal: bool = True,
        wrappers: Wrappers = (),
    ) -> None:
        self.env_id, self.num_envs, self.steps = env_id, num_envs, 0
        self.during = ""  # in messages: when this is used, other than in training
        self.backend: Backend = self.guard(
            make_backend, env_id, num_envs, vectorization, kwargs, timeout, journal, wrappers
        )
        observation_space = self.backend.observation_space
        try:
            self.spec = check_spaces(env_id, observation_space, self.backend.action_space)
            outermost, arguments = named(wrappers[-1]) if wrappers else ("", {})
            if outermost == "FrameStackObservation" and self.spec.pixels:
                self.spec = replace(self.spec, stack=arguments["stack_size"])
            self.to_env = ActionMap(self.backend.action_space)
            self.unpack = Unpack(self.spec.obs_dim, self.spec.bytes)
            self.to_vector = partial(as_vector, observation_space)
            self.obs_shape: tuple[int, ...] = observation_space.shape or ()
            self.reset(seed)
        except BaseException:
            self.close()
            raise

    @property
    def spaces(self) -> dict[str, str]:
        """Both spaces, as `describe` gives them."""
        return {
            "observation": describe(self.backend.observation_space),
            "action": describe(self.backend.action_space),
        }

    def reset(self, seed: int) -> None:
        """Starts new episodes from `seed`, and clears the statistics."""
        self.steps = 0
        self.returns = np.zeros(self.num_envs)
        self.lengths = np.zeros(self.num_envs, dtype=np.int64)
        self.finished: list[tuple[int, float, int]] = []
        self.obs = self.observation(self.guard(self.backend.reset, seed))

    def step(self, action: Tensor, latent: Tensor) -> Transition:
        """Acts in all environments; finished ones start their next episode at once.

        Args:
            action: (N, A) in policy units, or (N,) int64.
            latent: the draw that it came from, carried along.

        Returns:
            (N, ·): next_obs is the true successor of obs, whatever was reset. In place of a copy
            that could not act (`NativeVector`) stands another one's, to which nothing is chained.
        """
        obs = self.obs
        raw = self.to_env(action.numpy())
        next_raw, reward, terminated, truncated = self.guard(self.backend.step, raw)
        self.steps += self.num_envs
        next_obs = self.observation(next_raw, terminated)
        self.returns += reward
        self.lengths += 1
        done = terminated | truncated
        idle = self.backend.idle
        if idle is not None:
            done &= ~idle
            self.returns[idle], self.lengths[idle] = 0.0, 0
        if done.any():
            for index in map(int, np.flatnonzero(done)):
                self.finished.append((index, float(self.returns[index]), int(self.lengths[index])))
            self.begin(self.backend.reset_done, done)
        else:
            self.obs = next_obs
        transition = Transition(
            obs,
            action,
            torch.from_numpy(reward.astype(np.float32)),
            next_obs,
            torch.from_numpy(terminated.copy()),
            torch.from_numpy(truncated.copy()),
            latent,
        )
        return transition if idle is None else self.without(idle, transition)

    def without(self, idle: np.ndarray, transition: Transition) -> Transition:
        """The same with those of other copies, in turn, in place of those that are `idle` (N,)."""
        others = np.flatnonzero(~idle)
        turn = self.steps // self.num_envs + np.arange(self.num_envs)
        rows = np.where(idle, others[turn % len(others)], np.arange(self.num_envs))
        index = torch.from_numpy(rows)
        taken = Transition._make(None if field is None else field[index] for field in transition)
        return taken._replace(truncated=taken.truncated | torch.from_numpy(idle))

    def abandon(self, mask: np.ndarray) -> None:
        """Starts new episodes in place of those in `mask` (N,), which are not counted."""
        self.begin(self.backend.abandon, mask)

    def begin(self, reset: Callable[[np.ndarray], np.ndarray], mask: np.ndarray) -> None:
        self.returns[mask] = 0.0
        self.lengths[mask] = 0
        obs = self.guard(reset, mask)
        self.obs = self.observation(obs, self.backend.waiting)

    def drain(self) -> list[tuple[int, float, int]]:
        """(environment index, return, length) of the episodes finished since the last call."""
        finished, self.finished = self.finished, []
        return finished

    def close(self) -> None:
        """Closes every environment; their exceptions are ignored."""
        try:
            unflushed(self.backend.close)
        except (KeyboardInterrupt, Halt):
            raise
        except BaseException as error:
            warn(f"env {self.env_id}: close raised {error!r}"[:200])

    def state_dict(self) -> dict[str, Any]:
        """The state of every environment, mid-episode."""
        return {
            "backend": self.backend.state_dict(),
            "obs": self.obs,
            "returns": self.returns.tolist(),
            "lengths": self.lengths.tolist(),
            "finished": list(self.finished),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Restores a state; False if an environment did not reach it, or gave other rewards.

        Such an environment starts a new episode; if one raised on the way, all do.
        """
        self.steps, self.finished = state["steps"], [tuple(f) for f in state["finished"]]
        self.returns, self.lengths = np.array(state["returns"]), np.array(state["lengths"])
        try:
            raw, strayed = self.guard(self.backend.load_state_dict, state["backend"])
            self.obs = self.observation(raw)
            if (self.obs.dtype, self.obs.shape) != (state["obs"].dtype, state["obs"].shape):
                raise ValueError("observations are kept in another form")
            strayed |= (self.obs != state["obs"]).any(-1).numpy()
        except EnvironmentFault:
            self.guard(self.backend.renew)
            strayed = np.ones(self.num_envs, dtype=np.bool_)
        if strayed.any():
            self.abandon(strayed)
        return not strayed.any()

    def observation(self, raw: np.ndarray, last: np.ndarray | None = None) -> Tensor:
        """A copy (N, O), since the backend reuses its arrays: bytes, or finite float32.

        Of copies that act no more, `last` (N,), a mask that permits nothing is all 1.
        """
        obs = raw.reshape(self.num_envs, self.spec.obs_dim)
        if self.spec.pixels:
            return torch.from_numpy(obs.copy())
        numbers, images = obs, None
        if self.spec.bytes:
            numbers, images = apart(obs, self.spec.bytes)
        if numbers.dtype == np.float32:
            rounded = numbers.copy() if images is None else numbers  # which `apart` has copied
        else:
            with np.errstate(over="ignore"):  # which takes longer than a copy
                rounded = numbers.astype(np.float32)
        if not np.isfinite(rounded).all():
            index = int(np.argwhere(~np.isfinite(rounded))[0][0])
            raise self.fault(f"observation {obs[index]} is not finite", index)
        if self.spec.mask:
            mask = rounded[:, -self.spec.mask :]
            stuck = ~np.all([one.any(-1) for one in masks_in(self.spec, rounded)], 0)
            if last is not None:
                mask[stuck & last] = 1.0
                stuck &= ~last
            if stuck.any():
                index = int(np.flatnonzero(stuck)[0])
                raise self.fault(f"{MASK} {short(mask[index])} permits no action", index)
        if images is not None:
            rounded = pack(rounded, images.astype(np.uint8, copy=False))
        return torch.from_numpy(rounded)

    def permitted(self, action: Any, obs: np.ndarray) -> Any:
        """An action of a copy; where its obs (O,) forbid it, the next one that they permit."""
        if not self.spec.mask:
            return action
        start = limits_of(self.backend.action_space)[0]
        pairs = zip(np.asarray(action - start).flat, masks_in(self.spec, obs), strict=True)
        moved = [(one + np.roll(mask, -one).argmax()) % len(mask) for one, mask in pairs]
        return np.reshape(moved, start.shape) + start

    def read(self, obs: np.ndarray) -> np.ndarray:
        """Observations (*, ·), as `obs` has them, -> (*, O)."""
        return self.unpack(torch.from_numpy(obs)).numpy() if self.spec.bytes else obs

    def guard(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a function of the environments; its exceptions become EnvironmentFault."""
        try:
            return unflushed(call, *args, **kwargs)
        except PASSED:
            raise
        except CopyFault as error:
            raise self.fault(error.what, error.index, error.missing) from error
        except BaseException as error:
            what = f"raised {in_words(error)}"
            raise self.fault(what, missing=isinstance(error, MISSING)) from error

    def fault(self, what: str, index: int | None = None, missing: bool = False) -> EnvironmentFault:
        """Names copy and step; in an evaluation, which step of that copy's episode."""
        place = f"at step {self.steps}"
        if self.during:
            place = f"{self.during}, after {self.lengths[index or 0]} steps of its episode"
        if index is not None:
            place = f"in environment {index} {place}"
        remedy = "install that library" if missing else "fix the environment"
        return EnvironmentFault(f"env {self.env_id}: {what} {place}; {remedy}")


def apart(obs: np.ndarray, ranges: Ranges) -> tuple[np.ndarray, np.ndarray]:
    """Observations (*, O) -> the numbers beside their images (*, F), and the images (*, I)."""
    views = np.split(obs, [*chain.from_iterable(ranges)], -1)
    return np.concatenate(views[::2], -1), np.concatenate(views[1::2], -1)


def pack(numbers: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Numbers (*, F) and images (*, I) of bytes -> rows of bytes (*, 4 F + I), see `Unpack`."""
    return np.concatenate([numbers.astype("<f4").view(np.uint8), images], -1)


def unflushed(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls with numbers below 1e-38 as they are, which `set_up_torch` lets count as 0 here.

    So an environment computes in this process as in a worker.
    """
    flushing = bool(TINY * ONE == 0.0)
    torch.set_flush_denormal(False)
    try:
        return call(*args, **kwargs)
    finally:
        torch.set_flush_denormal(flushing)
