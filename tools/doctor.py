"""Examine an environment at random actions: `python tools/doctor.py env.id=module:MyEnv-v0`."""

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agents import AGENTS
from common.errors import ConfigError, EnvironmentFault
from configs import files
from configs.compose import train_config
from configs.schema import MASKING, EnvConfig
from data import Transition
from envs.envs import Envs
from envs.make import layers
from envs.spaces import Flat, masks_in
from runtime.evaluation import LONGEST
from runtime.exactness import before_training
from runtime.launch.door import tool
from tools.shared import Keys, key, read_keys

USAGE = """\
usage: python tools/doctor.py env.id=ID [env.kwargs.NAME=VALUE ...] ["env.wrappers=[NAME,...]"]
                              [steps=2000] [seed=0] [--config-dir DIR]
Runs an environment with random actions, reports problems for training, and proposes settings and
a file for it. ID is a Gymnasium id; a module that registers it may stand before a colon,
module:MyEnv-v0. An environment with a file in configs/env, or in DIR/env, can also be selected by
its name: env=NAME. Wrappers go around it as in training.
exit code 0: it can be used for training; 2: it is not supported; 3: it failed"""
IDS = ("env.id=", "env=")
TRACE = "digest:"  # begins a line of the second process; an environment may print, too
GAMMA = 0.99
FEW, MANY = 5, 200  # steps before a second restoring within an episode, and after it
SLOW = 1e-3  # seconds of a step above which workers pay
LIKE_ONE = (0.05, 10.0)  # standard deviations of observations that need no normaliser
FAR = 10.0  # largest mean of observations that need no normaliser
RETURNS = (0.1, 50.0)  # discounted returns that need no scale
Make = Callable[[], Envs]


@dataclass(frozen=True)
class Options(Keys):
    steps: int = key(2000, ge=1)
    seed: int = key(0, ge=0)
    trace: bool = key(False)  # prints digests alone, for `elsewhere`


class Played(NamedTuple):
    """Steps of one copy of an environment under random actions, (T, ...) each."""

    steps: Transition
    episodes: list[tuple[int, float, int]]
    seconds: float

    def digests(self) -> list[str]:
        """A hash of each step."""
        rows = zip(*self.steps[2:6], strict=True)
        joined = (b"".join(part.numpy().tobytes() for part in row) for row in rows)
        return [hashlib.sha256(row).hexdigest() for row in joined]


def play(envs: Envs, steps: int, seed: int) -> Played:
    """Uniformly random actions, the same for the same seed."""
    generator, spec = torch.Generator().manual_seed(seed), envs.spec
    transitions, started = [], time.perf_counter()
    for _ in range(steps):
        if spec.discrete:
            weights = [torch.ones(1, size) for size in spec.choices or (spec.action_dim,)]
            if spec.mask:
                weights = list(map(torch.from_numpy, masks_in(spec, envs.read(envs.obs.numpy()))))
            columns = [torch.multinomial(one, 1, generator=generator)[0] for one in weights]
            action = torch.stack(columns, -1) if spec.choices else columns[0]
        else:
            action = torch.rand(1, spec.action_dim, generator=generator) * 2.0 - 1.0
        transitions.append(envs.step(action, action))
    seconds = time.perf_counter() - started
    steps_made = Transition(*map(torch.cat, zip(*transitions, strict=True)))
    return Played(steps_made, envs.drain(), seconds)


def first_difference(here: list[str], there: list[str]) -> int | None:
    """The first step at which the digests of two plays differ."""
    return next((n for n, one in enumerate(here) if there[n : n + 1] != [one]), None)


def known(env_id: str, kwargs: dict[str, Any]) -> str | None:
    """The NAME of `env=NAME` for an environment that has a file."""
    for name in files.options("env"):
        try:
            file = files.group("env", name)
        except ConfigError:
            continue  # a broken file: naming it shows the error
        if (file.get("id"), file.get("kwargs") or {}) == (env_id, kwargs):
            return name
    return None


def group_name(env_id: str, kwargs: dict[str, Any]) -> str:
    """The same; for an environment without a file, a name that is free."""
    name, taken = re.split("[:/]", env_id)[-1].lower().replace("-", "_"), files.options("env")
    free = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return known(env_id, kwargs) or next(one for one in free if one not in taken)


def say(name: str, text: str) -> None:
    print(f"{name:<12} {text}", flush=True)


warn = partial(say, "warning")


def examine(arguments: list[str]) -> int:
    """Prints a line for each thing examined, and the remedy of each problem."""
    with files.own_files(arguments) as words:
        return examined(words, arguments)


def examined(words: list[str], arguments: list[str]) -> int:
    """`examine`, inside `own_files`; `arguments` are all of the command."""
    own, rest = read_keys(Options, words, *IDS, "env.kwargs.", "env.wrappers=")
    named = [argument for argument in rest if argument.lstrip("+").startswith(IDS)]
    if len(named) != 1:
        given = " and ".join(named) or "none"
        raise ConfigError(f"env.id: {given} is given; give one Gymnasium id")
    config = train_config(rest).env
    make = partial(Envs, config.id, 1, "sync", config.kwargs, own.seed, wrappers=config.wrappers)
    with closing(make()) as envs:  # afterwards there is one copy at a time
        if own.trace:
            digests = play(envs, own.steps, own.seed).digests()
            print("\n".join(f"{TRACE} {one}" for one in digests))
            return 0
        say("id", config.id)
        space = envs.backend.observation_space
        say("observation", str(space.whole if isinstance(space, Flat) else space))
        if config.wrappers:
            say("wrappers", layers(envs.backend.copies[0].env))
        offered = envs.spec.discrete and envs.backend.copies[0].offers
        wrappers = [*config.wrappers, *([MASKING] if offered else [])]
        bare = json.dumps(wrappers, separators=(",", ":")).replace('"', "")
        masked = f'"env.wrappers={bare}"'
        try:
            played = play(envs, own.steps, own.seed)
        except EnvironmentFault as fault:
            if not offered:
                raise
            why = "random actions were not held to the masks that it gives"
            raise EnvironmentFault(f"{fault.problem}, as {why}; give {masked}") from fault
        sole = beside(make)
    advice = observations(envs, played)
    if offered:
        advice.append(f"{masked} (masks of the actions, {offered})")
    handed_over(make, own.seed)
    say("action", str(envs.backend.action_space))
    ends(played, envs.backend.limit)
    advice += [*sole, *rewards(played), *speed(played, alone=bool(sole))]
    repeats(make, arguments, own, played)
    conclude(envs, config, wrappers, advice)
    return 0


def beside(make: Make) -> list[str]:
    """Advice for environments of which one copy can exist at a time."""
    try:
        make().close()
    except (EnvironmentFault, ConfigError) as fault:
        alone = "env.num_envs=1 eval.episodes=0"
        why = f"there can be no second copy beside the first, {fault.problem}"
        warn(f"{why}: train with {alone}, which evaluates nothing")
        return [alone]
    return []


def handed_over(make: Make, seed: int) -> None:
    """Warnings about the types of what a reset and a first step return."""
    with closing(make()) as copy:
        (checked,) = copy.backend.copies
        space = checked.observation_space
        checked.action_space.seed(seed)
        first, _ = checked.env.reset(seed=seed)
        action = copy.permitted(checked.action_space.sample(), copy.to_vector(first))
        second, _, *flags, _ = checked.env.step(action)
    kinds = {str(getattr(obs, "dtype", type(obs).__name__)) for obs in (first, second)}
    if not isinstance(space, Flat) and (found := sorted(kinds - {str(space.dtype)})):
        come = f"observations come as {' and '.join(found)}, their space is of {space.dtype}"
        warn(f"{come}: each is converted; correct one of the two")
    if others := [type(flag).__name__ for flag in flags if not isinstance(flag, bool | np.bool_)]:
        warn(f"terminated or truncated comes as {' and '.join(others)}, not as bool; give bool")


def observations(envs: Envs, played: Played) -> list[str]:
    """Their range; advice if they need a normaliser."""
    own = envs.spec.obs_dim - envs.spec.mask  # the mask, which networks do not see, is the last
    obs = envs.read(torch.cat([played.steps.obs, played.steps.next_obs]).numpy())[:, :own]
    space = envs.backend.observation_space
    lowest, highest = obs.min(0).astype(np.float64), obs.max(0).astype(np.float64)
    kind = np.float32 if envs.spec.pixels else np.float64
    deviation, mean = obs.std(0, dtype=kind), np.abs(obs.mean(0, dtype=kind))
    for start, stop in envs.spec.bytes:  # networks divide them by 255
        deviation[start:stop] /= 255.0
        mean[start:stop] /= 255.0
    low, high = (getattr(space, end).ravel()[:own].astype(np.float64) for end in ("low", "high"))
    moving = deviation > 0
    spread = f"deviations from {deviation.min():.3g} to {deviation.max():.3g}"
    size = f"means up to {mean.max():.3g} in size, {(~moving).sum()} components constant"
    say("", f"values from {lowest.min():.4g} to {highest.max():.4g}, {spread}, {size}")
    if outside := ((lowest < low - 1e-6) | (highest > high + 1e-6)).sum():
        warn(f"{outside} components leave the bounds of the space; correct the space")
    if not moving.any():
        steps = f"{len(obs) // 2:,} steps"
        warn(f"observations did not change in {steps}; nothing can be learned from constants")
    if not moving.any() or envs.spec.pixels:
        return []
    judged = ~((obs == 0) | (obs == 1)).all(0)  # not the states of discrete spaces
    seen = deviation[moving & judged]
    fits = ((LIKE_ONE[0] <= seen) & (seen <= LIKE_ONE[1])).all() and (mean[judged] <= FAR).all()
    return [] if fits else ["agent.normalise_obs=true"]


def rewards(played: Played) -> list[str]:
    """Their range, and the size of the values to be learned; advice if that needs a scale."""
    reward, steps = played.steps.reward, played.steps
    value, most = 0.0, 0.0
    for one, end in zip(reward.flip(0), (steps.terminated | steps.truncated).flip(0), strict=True):
        value = float(one) + (0.0 if end else GAMMA * value)
        most = max(most, abs(value))
    found = f"from {reward.min():.4g} to {reward.max():.4g}, mean {reward.mean():.4g}"
    say("reward", f"{found}; discounted returns up to {most:.4g} in size")
    if most == 0.0:
        warn("random actions received no reward; learning may not begin")
    fits = most == 0.0 or RETURNS[0] <= most < RETURNS[1]
    return [] if fits else ["agent.reward_scale=auto"]


def ends(played: Played, limit: int | None) -> None:
    """How episodes end, which decides where values are bootstrapped."""
    terminated, truncated = played.steps.terminated, played.steps.truncated
    lengths = sorted({length for _, _, length in played.episodes})
    span = " to ".join(f"{length:,}" for length in sorted({*lengths[:1], *lengths[-1:]}))
    about = f", {span} steps long" if lengths else ""
    how = f"{terminated.sum():,} terminated, {truncated.sum():,} truncated"
    count = len(played.episodes)
    say("episodes", f"{count:,} in {len(terminated):,} steps{about}; {how}")
    if not lengths and limit is None:
        remedy = "register it with max_episode_steps=N, or give eval.max_length=N"
        warn(f"no episode ended; evaluations cut them at {LONGEST:,} steps: {remedy}")
    elif not lengths:
        warn(f"no episode ended; its limit is {limit:,} steps: examine it with steps=N above that")
    if len(lengths) == 1 < count and not truncated.any():
        why = "all episodes end as terminated after the same number of steps"
        warn(f"{why}; if that is a time limit, end them as truncated")
    if (terminated & truncated).any():
        warn("steps are terminated and truncated at once; they count as terminated")


def speed(played: Played, alone: bool) -> list[str]:
    """Steps per second; advice if several copies pay, and are possible."""
    each = played.seconds / len(played.steps.reward)
    say("speed", f"{1 / each:,.0f} steps/s, {1e6 * each:,.0f} µs each with one copy")
    pays = each > SLOW and not alone
    return ["env.vectorization=async env.num_envs=8 (a2c and ppo)"] if pays else []


def repeats(make: Make, arguments: list[str], own: Options, played: Played) -> None:
    """Whether the same seed gives the same trajectory, and a resumed run is exact."""
    with closing(make()) as again:
        first = first_difference(play(again, own.steps, own.seed).digests(), played.digests())
    place, remedy = "", "draw from self.np_random"
    if first is None:
        first = elsewhere(arguments, played)
        place, remedy = " in another process", "depend on no order of sets, nor on hash() of texts"
    if first is not None:
        why = f"the same seed and actions lead elsewhere{place} from step {first + 1} on"
        warn(f"{why}: no run can be repeated or resumed exactly; {remedy}")
        return
    say("seed", f"the same seed gives the same {own.steps:,} steps, in another process too")
    exact = resumes(make, max(1, own.steps // 2), own.seed)
    with closing(make()) as copy:
        kept = before_training(copy, own.seed)
    if exact and kept is None:
        say("resume", "exact: a copy that repeats an episode from its seed reaches the same state")
        return
    state = "it keeps something over reset(seed=...), and each copy has its own"
    unlike = "a copy that repeats an episode from its seed reaches another state"
    warn(kept or f"{unlike}: {state}; a resumed run is not exact")


def resumes(make: Make, half: int, seed: int) -> bool:
    """Whether a copy that is restored twice within an episode continues like the first one."""
    with closing(make()) as copy:
        play(copy, half, seed)
        state = copy.state_dict()
        play(copy, FEW, seed + 1)
        expected = play(copy, MANY, seed + 2).digests()
    with closing(make()) as copy:
        back = copy.load_state_dict(state)
        play(copy, FEW, seed + 1)
        state = copy.state_dict()
    with closing(make()) as copy:
        back = copy.load_state_dict(state) and back
        return back and play(copy, MANY, seed + 2).digests() == expected


def elsewhere(arguments: list[str], played: Played) -> int | None:
    """The first step that differs in another process, in which texts have other hashes."""
    other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "trace=true"],
        env={**os.environ, "PYTHONHASHSEED": other, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        why = "it failed in a second process beside this one"
        raise EnvironmentFault(f"env: {why}; see the error above, and fix it")
    there = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(TRACE)]
    return first_difference(played.digests(), there)


def conclude(envs: Envs, env: EnvConfig, wrappers: list[Any], advice: list[str]) -> None:
    """The agents that fit, the settings to give, and the file to save, with these wrappers."""
    fitting = [name for name, agent in AGENTS.items() if agent.fitting(envs.spec.kind)]
    say("agents", f"agent={' or agent='.join(fitting)}")
    name = None if env.wrappers else known(env.id, env.kwargs)
    tuned = [agent for agent in fitting if f"{name}-{agent}" in files.options("tuned")]
    if advice and not tuned:
        say("advice", "; ".join(advice))
    if name:
        own = f", with settings of its own for agent={' or agent='.join(tuned)}" if tuned else ""
        print(f"\nit has a file already: env={name}{own}")
        return
    name = group_name(env.id, env.kwargs)
    folder = files.folders()[-1] if files.OWN.get() else "configs"
    print(f"\n{folder}/env/{name}.yaml, for env={name}:\n")
    print(f"id: {env.id}\nnum_envs: auto\nvectorization: auto\nkwargs: {json.dumps(env.kwargs)}")
    print(f"wrappers: {json.dumps(wrappers)}\n" * bool(wrappers) + "timeout: 60")


main = partial(tool, USAGE, examine)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
