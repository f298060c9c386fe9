"""Whether an episode repeats from its seed and actions alone, which an exact resume needs.

Where it does not, a copy of the environment keeps something over a reset: statistics, a count of
episodes, a generator. Episodes are played again to find that, in copies that training never uses.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch

from common.errors import EnvironmentFault
from common.seeding import derive
from configs.schema import KEPT
from envs.deadline import within
from envs.envs import Envs
from envs.vector import episode_seed

STEPS = 20  # of the episode that is repeated before training
Trace = list[tuple[Any, Any, Any]]  # (observation, reward, end) after the reset and each action


@contextmanager
def undisturbed(seed: int | None = None) -> Iterator[None]:
    """Restores the global generators afterwards, from which some environments draw.

    Meanwhile they go on, or begin from `seed`.
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


def difference(one: Trace, other: Trace) -> str | None:
    """The first difference, in words; None where there is none, or nothing to compare with."""
    names = ("observation", "reward", "end")
    for step, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        for name, here, there in zip(names, mine, theirs, strict=True):
            compared = here is not None and there is not None
            if compared and not np.array_equal(here, there, equal_nan=True):
                return f"{name} of step {step}"
    return None


def play(envs: Envs, index: int, seed: int, actions: Iterable[Any], limit: float | None) -> Trace:
    """One episode of one copy, from `seed`, until it ends or `actions` do."""
    copy = envs.backend.copies[index]

    def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with within(limit, envs.env_id, "while an episode was repeated"):
            return envs.guard(function, *args, **kwargs)

    obs, _ = call(copy.reset, seed=seed, options={})
    trace: Trace = [(np.array(obs), 0.0, False)]
    for action in actions:
        action = envs.permitted(action.copy(), obs)
        obs, reward, terminated, truncated, _ = call(copy.step, action)
        trace.append((np.array(obs), reward, terminated or truncated))
        if terminated or truncated:
            break
    return trace


def without_playing(envs: Envs) -> str | None:
    """The reason that is visible without an episode, also in the copies of training."""
    return None if envs.backend.lasting is None else message(envs.backend.lasting)


def before_training(envs: Envs, seed: int, limit: float | None = None) -> str | None:
    """Plays an episode twice in one copy, and in another copy after another episode.

    The environments, an evaluator's, have to be reset before they are used. A copy has `limit`
    seconds to answer.
    """
    backend = envs.backend  # native: its state is in arrays that are saved
    if backend.lasting is not None or not backend.copies:
        return without_playing(envs)
    space = deepcopy(backend.action_space)
    space.seed(derive(seed, "exactness-actions") >> 32)
    actions = [space.sample() for _ in range(STEPS)]
    one, other = (derive(seed, "exactness", number) >> 32 for number in range(2))
    last = envs.num_envs - 1
    again = partial(play, envs, 0, one, actions, limit)
    with suppress(EnvironmentFault):  # training or an evaluation meets it, and reports it
        with undisturbed():
            first = again()
            changed = difference(again(), first)
            play(envs, last, other, actions, limit)
            elsewhere = difference(play(envs, last, one, actions, limit), first)
        if where := changed or elsewhere:
            return diagnosis(envs, where, again, between=changed is None)
    return None


def at_save(
    envs: Envs, training: dict[str, Any], most: int, limit: float | None = None
) -> tuple[str | None, int]:
    """Repeats the present episode of training's first copy, and the one before; see above.

    Args:
        envs: an evaluator's.
        training: the `state_dict` of training's environments.
        most: steps that are repeated.
        limit: as above.

    Returns:
        What was found, or None; and how many steps were repeated.
    """
    state = training["backend"]
    if not envs.backend.copies or "ages" not in state:
        return None, 0
    age, before, number = (int(state[name][0]) for name in ("ages", "before", "episodes"))
    stop, played = len(state["actions"]), 0
    with suppress(EnvironmentFault):  # training or an evaluation meets it, and reports it
        for episode, length, ended in ((number, age, False), (number - 1, before, True)):
            start, count = stop - length, min(length, most - played)
            if start < 0 or (ended and not count):
                break  # there is no such episode
            played += count
            actions, rewards = (state[name][start:, 0][:count] for name in ("actions", "rewards"))
            expected: Trace = [(None, 0.0, False)]
            for step, reward in enumerate(rewards.tolist(), 1):
                expected.append((None, reward, ended and step == length))
            seed = episode_seed(state["seed"], 0, episode)
            again = partial(play, envs, 0, seed, actions.numpy(), limit)
            with undisturbed():
                trace = again()
                where = difference(trace, expected)
                if where is None and not ended and count == length:
                    seen, last = trace[-1][0], envs.read(training["obs"][:1].numpy())
                    if not np.array_equal(seen.astype(np.float32).ravel(), last.ravel()):
                        where = f"observation of step {count}"
                if where is not None:
                    return diagnosis(envs, where, again, between=False), played
            stop = start
    return None, played


def diagnosis(envs: Envs, where: str, again: Callable[[], Trace], between: bool) -> str:
    """Why an episode that `again` plays did not repeat, and what to do.

    `between`: two copies differ, each of which repeats itself.
    """
    layers = [envs.backend.copies[0]]
    while hasattr(layers[-1], "env"):
        layers.append(layers[-1].env)
    kinds = {kind.__name__ for layer in layers for kind in type(layer).mro()}
    kept = [name for name in KEPT if name in kinds]
    if kept:
        which = " and ".join(kept)
        return message(
            f"the statistics of {which} continue over resets, and each copy has its own",
            "use " + " and ".join(f"{KEPT[name]} in place of {name}" for name in kept),
        )

    def under(seed: int) -> Trace:
        with undisturbed(seed):
            return again()

    first = under(0)
    if difference(under(0), first) is None and difference(under(1), first) is not None:
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
        "make reset(seed=...) restart everything, generators too",
    )


def message(why: str, remedy: str = "") -> str:
    """One line: the reason, its effect, and the remedy."""
    return (
        f"an episode does not repeat from its seed and actions, {why}: evaluations use new copies, "
        f"a resumed run is not exact{remedy and '; '}{remedy}"
    )
