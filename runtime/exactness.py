"""Whether an episode repeats from its seed and actions alone, which an exact resume needs.

Where it does not, each copy of the environment has something of its own: statistics, a count of
episodes, a generator. This is looked for by playing, in copies that training never touches.
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
    """Leaves the global generators, of which some environments draw, as they were.

    Args:
        seed: they are set to it meanwhile.
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
    """What a copy showed, from its reset to the last action or the end of its episode."""

    obs: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    ends: list[bool] = field(default_factory=list)

    def differs(self, other: "Trace") -> str | None:
        """What differs, and where first; None where nothing does."""
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
    copy: Any = envs.backend.envs.envs[index]  # type: ignore[attr-defined]
    trace = Trace()

    def call(function: Callable[[], Any]) -> Any:
        with within(limit, envs.env_id, "while an episode was repeated"):
            return envs._guard(function)

    trace.obs.append(np.array(call(lambda: copy.reset(seed=seed, options={}))[0]))
    for action in actions:
        obs, reward, *ends, _ = call(lambda a=action: copy.step(a.copy()))  # type: ignore[misc]
        trace.obs.append(np.array(obs))
        trace.rewards.append(float(reward))
        trace.ends.append(any(ends))
        if any(ends):
            break
    return trace


def kept_openly(envs: Envs) -> str | None:
    """What is seen without playing, in training's own copies, too."""
    lasting = getattr(envs, "lasting", None)
    return means(str(lasting), "") if lasting else None


def before_training(envs: Envs, seed: int, limit: float | None = None) -> str | None:
    """Repeats an episode in copies of other pasts; what was found, and what to do.

    Args:
        envs: of an evaluator; they have to be reset before they are used.
        seed: of the episode and its actions.
        limit: seconds that a copy has to answer.
    """
    if (known := kept_openly(envs)) is not None:
        return known
    if not isinstance(envs.backend, Vector):
        return None  # whose state is arrays, all of them known
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
            if (where := again.differs(first) or elsewhere.differs(first)) is None:
                return None
            alone = again.differs(first) is None
            return found(envs, where, partial(play, envs, 0, one, actions, limit), alone)
    except EnvironmentFault:
        return None  # training or an evaluation meets it, and says so


def at_save(
    envs: Envs, training: dict[str, Any], most: int, limit: float | None = None
) -> tuple[str | None, int]:
    """Repeats what training's first copy did last.

    Args:
        envs: of an evaluator; they have to be reset before they are used.
        training: the `state_dict` of training's environments.
        most: steps that are repeated.
        limit: seconds that a copy has to answer.

    Returns:
        What was found, and what to do; and how many steps it took.
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
                    seen, was = (np.asarray(obs, np.float32).ravel()
                                 for obs in (trace.obs[-1], last))  # fmt: skip
                    where = None if np.array_equal(seen, was) else f"observation {count}"
                if where is not None:
                    return found(envs, where, again, False), played
        except EnvironmentFault:
            break  # training or an evaluation meets it, and says so
        stop = start
    return None, played


def found(envs: Envs, where: str, again: Callable[[], Trace], between: bool) -> str:
    """Why an episode did not repeat, as far as that can be told.

    Args:
        where: it first differed.
        again: plays it.
        between: two copies differ, each of which repeats itself.
    """
    layer: Any = envs.backend.envs.envs[0]  # type: ignore[attr-defined]
    names = set()
    while layer is not None:
        names.add(type(layer).__name__)
        layer = getattr(layer, "env", None)
    kept = [name for name in STATISTICS if name in names]
    if kept:
        both = " and ".join(kept)
        instead = " and ".join(f"{STATISTICS[name]} in place of {name}" for name in kept)
        return means(f"the statistics of {both} go on over resets, and each copy has its own",
                     f"use {instead}")  # fmt: skip
    with undisturbed():
        first = again()
    with undisturbed():
        second = again()
    with undisturbed():
        np.random.random(7), random.random(), torch.rand(7)  # noqa: NPY002
        third = again()
    if second.differs(first) is None and third.differs(first) is not None:
        return means("it draws from a global generator, which no seed sets",
                     "draw from self.np_random")  # fmt: skip
    if between:
        return means(f"its copies differ ({where}): something was drawn when each was made",
                     "draw it in reset, from self.np_random")  # fmt: skip
    return means(f"it keeps something over reset(seed=...), and each copy has its own ({where})",
                 "let reset(seed=...) begin everything anew, generators too")  # fmt: skip


def means(why: str, remedy: str) -> str:
    """One line of what was found, what follows from it, and what to do."""
    return (f"an episode does not repeat from its seed and actions, {why}: an evaluation plays in "
            f"copies made anew, a resumed run is not exact{remedy and '; '}{remedy}"
            )  # fmt: skip
