"""Whether an episode repeats from its seed and actions alone, which an exact resume needs.

Where it does not, a copy of the environment keeps something over a reset: statistics, a count of
episodes, a generator. Episodes are played again to find that, in copies that training never uses.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from common.errors import EnvironmentFault
from common.seeding import derive
from envs.deadline import within
from envs.envs import Envs
from envs.vector import Vector

STEPS = 20  # of the episode that is repeated before training
STATISTICS = {  # a wrapper of Gymnasium's -> what to use in its place
    "NormalizeObservation": "agent.normalise_obs=true",
    "NormalizeReward": "a constant factor (a2c and ppo: agent.reward_scale)",
}


@contextmanager
def undisturbed(seed: int | None = None) -> Iterator[None]:
    """Restores the global generators afterwards, from which some environments draw.

    Args:
        seed: of these generators meanwhile.
    """
    state, python = np.random.get_state(), random.getstate()  # noqa: NPY002
    tensors = torch.get_rng_state()
    try:
        if seed is not None:
            np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
            random.seed(seed)
            torch.default_generator.manual_seed(seed)
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
        random.setstate(python)
        torch.set_rng_state(tensors)


@dataclass
class Trace:
    """What a copy returned, from its reset to the last action or the end of its episode."""

    obs: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    ends: list[bool] = field(default_factory=list)

    def differs(self, other: "Trace") -> str | None:
        """The first difference, in words; None where there is none."""
        for step, pair in enumerate(zip(self.obs, other.obs, strict=False)):
            if not np.array_equal(*pair, equal_nan=True):
                return f"observation {step}"
        for name in ("rewards", "ends"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                pairs = enumerate(zip(mine, theirs, strict=False), 1)
                step = next((n for n, (one, two) in pairs if one != two), len(mine))
                return f"{'reward' if name == 'rewards' else 'end'} of step {step}"
        return None


def play(envs: Envs, index: int, seed: int, actions: Sequence[Any], limit: float | None) -> Trace:
    """One episode of one copy, from `seed`, until it ends or `actions` do."""
    backend: Any = envs.backend
    copy = backend.envs.envs[index]
    trace = Trace()

    def call(function: Callable[[], Any]) -> Any:
        with within(limit, envs.env_id, "while an episode was repeated"):
            return envs._guard(function)

    trace.obs.append(np.array(call(lambda: copy.reset(seed=seed, options={}))[0]))
    for action in actions:
        obs, reward, *ends, _ = call(partial(copy.step, action.copy()))
        trace.obs.append(np.array(obs))
        trace.rewards.append(float(reward))
        trace.ends.append(any(ends))
        if any(ends):
            break
    return trace


def without_playing(envs: Envs) -> str | None:
    """What is found without an episode, also in training's own copies."""
    return None if envs.lasting is None else message(envs.lasting)


def before_training(envs: Envs, seed: int, limit: float | None = None) -> str | None:
    """Plays an episode twice in one copy, and in another after another; what was found.

    Args:
        envs: of an evaluator; they have to be reset before they are used.
        seed: of the episode and its actions.
        limit: seconds that a copy has to answer.
    """
    if (found := without_playing(envs)) is not None:
        return found
    if not isinstance(envs.backend, Vector):
        return None  # all state of a native one is in arrays that are saved
    space = deepcopy(envs.backend.action_space)
    space.seed(derive(seed, "exactness-actions") >> 32)
    actions = [space.sample() for _ in range(STEPS)]
    one, other = (derive(seed, "exactness", number) >> 32 for number in range(2))
    last = envs.num_envs - 1
    try:
        with undisturbed():
            first = play(envs, 0, one, actions, limit)
            again = play(envs, 0, one, actions, limit)
            play(envs, last, other, actions, limit)
            elsewhere = play(envs, last, one, actions, limit)
        changed = again.differs(first)
        where = changed or elsewhere.differs(first)
        if where is None:
            return None
        repeat = partial(play, envs, 0, one, actions, limit)
        return diagnosis(envs, where, repeat, between=changed is None)
    except EnvironmentFault:
        return None  # training or an evaluation meets it, and reports it


def at_save(
    envs: Envs, training: dict[str, Any], most: int, limit: float | None = None
) -> tuple[str | None, int]:
    """Repeats the present episode of training's first copy, and the one before.

    Args:
        envs: of an evaluator; they have to be reset before they are used.
        training: the `state_dict` of training's environments.
        most: steps that are repeated.
        limit: seconds that a copy has to answer.

    Returns:
        What was found, or None; and how many steps were repeated.
    """
    state = training["backend"]
    if not isinstance(envs.backend, Vector) or "ages" not in state:
        return None, 0
    age, before, number = (int(state[name][0]) for name in ("ages", "before", "episodes"))
    stop, played = len(state["actions"]), 0
    for episode, length, ended in ((number, age, False), (number - 1, before, True)):
        start = stop - length
        count = min(length, most - played)
        if start < 0 or (ended and not count):
            break  # there is no such episode
        played += count
        seed = derive(state["seed"], "episode", 0, episode) >> 32
        actions = state["actions"][start : start + count, 0].numpy()
        expected = Trace(
            [],
            state["rewards"][start : start + count, 0].tolist(),
            [ended and step == length for step in range(1, count + 1)],
        )
        again = partial(play, envs, 0, seed, actions, limit)
        try:
            with undisturbed():
                trace = again()
                where = trace.differs(expected)
                if where is None and not ended and count == length:
                    last = envs.read(training["obs"][:1].numpy())
                    seen = np.asarray(trace.obs[-1], np.float32)
                    if not np.array_equal(seen.ravel(), np.asarray(last, np.float32).ravel()):
                        where = f"observation {count}"
                if where is not None:
                    return diagnosis(envs, where, again, between=False), played
        except EnvironmentFault:
            break  # training or an evaluation meets it, and reports it
        stop = start
    return None, played


def diagnosis(envs: Envs, where: str, again: Callable[[], Trace], between: bool) -> str:
    """Why an episode did not repeat, and what to do.

    Args:
        envs: that played it.
        where: the first difference.
        again: plays it.
        between: whether two copies differ, each of which repeats itself.
    """
    backend: Any = envs.backend
    layer = backend.envs.envs[0]
    names = set()
    while layer is not None:
        names.add(type(layer).__name__)
        layer = getattr(layer, "env", None)
    kept = [name for name in STATISTICS if name in names]
    if kept:
        both = " and ".join(kept)
        instead = " and ".join(f"{STATISTICS[name]} in place of {name}" for name in kept)
        return message(
            f"the statistics of {both} go on over resets, and each copy has its own",
            f"use {instead}",
        )
    with undisturbed():
        first = again()
    with undisturbed():
        second = again()
    with undisturbed():
        np.random.random(7), random.random(), torch.rand(7)  # noqa: NPY002
        third = again()
    if second.differs(first) is None and third.differs(first) is not None:
        return message(
            "it draws from a global generator, which no seed sets", "draw from self.np_random"
        )
    if between:
        return message(
            f"its copies differ ({where}): something was drawn when each was made",
            "draw it in reset, from self.np_random",
        )
    return message(
        f"it keeps something over reset(seed=...), and each copy has its own ({where})",
        "let reset(seed=...) begin everything anew, generators too",
    )


def message(why: str, remedy: str = "") -> str:
    """One line: what was found, what follows from it, and what to do."""
    return (
        f"an episode does not repeat from its seed and actions, {why}: an evaluation plays in "
        f"copies made anew, a resumed run is not exact{remedy and '; '}{remedy}"
    )
