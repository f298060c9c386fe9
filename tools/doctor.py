"""Examine an environment: `python tools/doctor.py env.id=module:MyEnv-v0`.

Plays it at random, says what training would meet, and ends with the file to save and the agents
that fit. Takes env.id or env, env.kwargs.NAME=VALUE, steps=N and seed=N.
"""

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common.errors import ConfigError, EnvironmentFault  # noqa: E402
from configs.compose import parse, train_config  # noqa: E402
from configs.validate import unknown_key  # noqa: E402
from envs.envs import Envs  # noqa: E402
from envs.spaces import Flat  # noqa: E402
from runtime.evaluation import LONGEST  # noqa: E402
from runtime.exactness import before_training  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from tools.examination.names import group_name, known, tuned_for  # noqa: E402
from tools.examination.plays import Played, differs, digests, play  # noqa: E402

USAGE = """\
usage: python tools/doctor.py env.id=ID [env.kwargs.NAME=VALUE ...] [steps=2000] [seed=0]
Plays an environment at random, says what training would meet, and how to go on.
ID is a Gymnasium id; a module that registers it may stand before a colon, module:MyEnv-v0. One
that has a file in configs/env goes by its name, too: env=NAME.
exit code 0: it can be trained on; 2: it cannot be served; 3: it misbehaved"""
TAKEN = ("env.id", "env", "debug")
TRACE = "digest:"  # begins what a second process tells; an environment may print, too
GAMMA = 0.99
FEW = 5  # steps between two times that a run is taken up
SLOW = 1e-3  # seconds of a step, from which on workers pay
LIKE_ONE = (0.05, 10.0)  # standard deviations that networks take as they are
FAR = 10.0  # from 0: means that they do not
RETURNS = (0.1, 50.0)  # sizes of discounted returns that are learned as they are
LARGEST_SCALE = 1e6  # of agent.reward_scale


def main(arguments: list[str]) -> int:
    """Examines; returns the exit code."""
    return tool(USAGE, examine, arguments)


def examine(arguments: list[str]) -> int:
    """Prints a line for each thing looked at, and what to do where something is to be done."""
    own = {"steps": 2000, "seed": 0, "trace": 0}
    rest, named = [], []
    for argument in arguments:
        name, _, value = parse(argument)
        if name in own:
            if not isinstance(value, int) or value < (name == "steps"):
                least = int(name == "steps")
                raise ConfigError(f"{name}: must be a number from {least} on, got {value!r}; "
                                  "correct it")  # fmt: skip
            own[name] = value
        elif name in TAKEN or name.startswith("env.kwargs."):
            rest.append(argument)
            named += [argument] * (name in ("env.id", "env"))
        else:
            raise ConfigError(unknown_key(name, [*TAKEN, "steps", "seed"]))
    if not named:
        raise ConfigError("env.id: is missing; give a Gymnasium id")
    if len(named) > 1:
        raise ConfigError(f"env.id: {' and '.join(named)} are two; give one")
    config = train_config(rest).env

    def make() -> Envs:
        return Envs(config.id, 1, "sync", config.kwargs, own["seed"])

    if own["trace"]:  # what `elsewhere` reads
        envs = make()
        print("\n".join(f"{TRACE} {one}" for one in digests(play(envs, own["steps"], own["seed"]))))
        envs.close()
        return 0
    envs = make()
    try:
        say("id", config.id)
        space = envs.backend.observation_space
        say("observation", str(space.whole if isinstance(space, Flat) else space))
        played = play(envs, own["steps"], own["seed"])
        sole = beside(make)
    finally:
        envs.close()  # from here on there is no more than one copy at a time
    advice = observations(envs, played)
    handed_over(make, own["seed"])
    say("action", str(envs.backend.action_space))
    ends(played, envs.backend.limit)
    advice += [*sole, *rewards(played), *speed(played, alone=bool(sole))]
    repeats(make, arguments, own["steps"], own["seed"], played)
    conclude(envs, config.kwargs, advice)
    return 0


def beside(make: Any) -> list[str]:
    """Advice where there can be no second copy beside the first."""
    try:
        make().close()
    except (EnvironmentFault, ConfigError) as fault:
        alone = "env.num_envs=1 eval.episodes=0"
        say("warning", f"there can be no second copy beside the first, {fault.problem}: train with "
                       f"{alone}, which evaluates nothing")  # fmt: skip
        return [alone]
    return []


def say(name: str, text: str) -> None:
    print(f"{name:<12} {text}", flush=True)


def handed_over(make: Any, seed: int) -> None:
    """Warnings where a reset, or the first step, hands over other types than it should."""
    with closing(make()) as copy:
        (checked,) = copy.backend.envs.envs
        space = checked.observation_space
        checked.action_space.seed(seed)
        first, _ = checked.env.reset(seed=seed)
        second, _, *flags, _ = checked.env.step(checked.action_space.sample())
        seen = [first, second]
        kinds = {str(getattr(obs, "dtype", type(obs).__name__)) for obs in seen}
        found = kinds - {str(space.dtype)}
        if found and not isinstance(space, Flat):
            say("warning", f"observations come as {' and '.join(sorted(found))}, the space says "
                           f"{space.dtype}: each is converted; correct one of the two")  # fmt: skip
        others = [type(flag).__name__ for flag in flags if not isinstance(flag, bool | np.bool_)]
        if others:
            say("warning", f"a flag of terminated and truncated comes as {' and '.join(others)}, "
                           "which is taken as true or false; give bool")  # fmt: skip


def observations(envs: Envs, played: Played) -> list[str]:
    """Their range; advice where networks would not take them as they are."""
    obs = envs.read(np.concatenate([played.column("obs"), played.column("next_obs")]))
    space = envs.backend.observation_space
    lowest, highest = obs.min(0).astype(np.float64), obs.max(0).astype(np.float64)
    kind = np.float32 if envs.spec.pixels else np.float64
    deviation, mean = obs.std(0, dtype=kind), np.abs(obs.mean(0, dtype=kind))
    for start, stop in envs.spec.bytes:  # which no network sees as they are
        deviation[start:stop] /= 255.0
        mean[start:stop] /= 255.0
    low, high = (getattr(space, end).reshape(-1).astype(np.float64) for end in ("low", "high"))
    still = int((deviation == 0).sum())
    least, most = deviation.min(), deviation.max()
    say("", f"values from {lowest.min():.4g} to {highest.max():.4g}, deviations from {least:.3g} "
            f"to {most:.3g}, means up to {mean.max():.3g} in size, {still} components "
            "constant")  # fmt: skip
    outside = int(((lowest < low - 1e-6) | (highest > high + 1e-6)).sum())
    if outside:
        say("warning", f"{outside} components leave the bounds of the space; correct the space")
    moving = deviation > 0
    if not moving.any():
        say("warning", f"observations did not change in {len(played.transitions):,} steps; where "
                       "they never do, nothing can be learned from them")  # fmt: skip
        return []
    if envs.spec.pixels:
        return []
    judged = ~((obs == 0) | (obs == 1)).all(0)  # states of discrete spaces are as they should be
    seen = deviation[moving & judged]
    fits = ((LIKE_ONE[0] <= seen) & (seen <= LIKE_ONE[1])).all() and (mean[judged] <= FAR).all()
    return [] if fits else ["agent.normalise_obs=true"]


def rewards(played: Played) -> list[str]:
    """Their range, and how large a value is to be learned."""
    reward, ended = (
        played.column("reward"),
        played.column("terminated") | played.column("truncated"),
    )
    value, most = 0.0, 0.0
    for one, end in zip(reward[::-1], ended[::-1], strict=True):
        value = float(one) + (0.0 if end else GAMMA * value)
        most = max(most, abs(value))
    say("reward", f"from {reward.min():.4g} to {reward.max():.4g}, mean {reward.mean():.4g}; "
                  f"discounted returns up to {most:.4g} in size")  # fmt: skip
    if most == 0.0:
        say("warning", "random actions never met a reward; learning may not begin")
    if most == 0.0 or RETURNS[0] <= most < RETURNS[1]:
        return []
    scale = float(f"{5 / most:.1g}")
    if scale > LARGEST_SCALE:
        return [f"rewards times {scale:g}, in the environment"]
    return [f"agent.reward_scale={scale:g} (a2c and ppo)"]


def ends(played: Played, limit: int | None) -> None:
    """How episodes end, which decides what is bootstrapped."""
    terminated, truncated = played.column("terminated"), played.column("truncated")
    lengths = [length for _, _, length in played.episodes]
    about = f", {min(lengths)} to {max(lengths)} steps long" if lengths else ""
    say("episodes", f"{len(lengths)} in {len(terminated)} steps{about}; {int(terminated.sum())} "
                    f"terminated, {int(truncated.sum())} truncated")  # fmt: skip
    if not lengths and limit is None:
        say("warning", f"no episode ended; evaluations cut them at {LONGEST:,} steps: register it "
                       "with max_episode_steps=N, or give eval.max_length=N")  # fmt: skip
    elif not lengths:
        say("warning", f"no episode ended; its limit is {limit:,} steps: examine it with steps=N "
                       "above that")  # fmt: skip
    if len(set(lengths)) == 1 < len(lengths) and not truncated.any():
        say("warning", "all episodes end as terminated after the same number of steps; where that "
                       "is a limit of time, end them as truncated")  # fmt: skip
    if (terminated & truncated).any():
        say("warning", "steps are terminated and truncated at once; they count as terminated")


def speed(played: Played, alone: bool) -> list[str]:
    """Steps per second; advice where several copies, if there can be several, pay."""
    each = played.seconds / len(played.transitions)
    say("speed", f"{1 / each:,.0f} steps/s, {1e6 * each:,.0f} µs each with one copy")
    pays = each > SLOW and not alone
    return ["env.vectorization=async env.num_envs=8 (a2c and ppo)"] if pays else []


def repeats(make: Any, arguments: list[str], steps: int, seed: int, played: Played) -> None:
    """Whether the same seed gives the same trajectory, and a run that was stopped can go on."""
    half = max(1, steps // 2)
    with closing(make()) as again:
        first = differs(play(again, steps, seed), played)
    place, remedy = "", "draw from self.np_random"
    if first is None:
        first = elsewhere(arguments, played)
        place, remedy = " in another process", "keep the order of sets and hashes of text out of it"
    if first is not None:
        say("warning", f"the same seed and actions lead elsewhere{place} from step {first + 1} on: "
                       f"no run can be repeated or resumed exactly; {remedy}")  # fmt: skip
        return
    say("seed", f"the same seed gives the same {steps} steps, in another process too")
    exact = resumes(make, half, seed)
    with closing(make()) as copy:
        kept = before_training(copy, seed)
    if exact and kept is None:
        say("resume", "exact: a copy that repeats its episode is where the first one was")
        return
    say("warning", kept or "a copy that repeats its episode is not where the first one was: it "
                           "keeps something over reset(seed=...), each copy its own; a resumed "
                           "run is not exact")  # fmt: skip


def resumes(make: Any, half: int, seed: int) -> bool:
    """Whether a copy that takes up twice, within an episode, is where the first one was."""
    with closing(make()) as copy:
        play(copy, half, seed)
        state = copy.state_dict()
        play(copy, FEW, seed + 1)
        expected = play(copy, 200, seed + 2)
    with closing(make()) as copy:
        back = copy.load_state_dict(state)
        play(copy, FEW, seed + 1)
        state = copy.state_dict()
    with closing(make()) as copy:
        back = copy.load_state_dict(state) and back
        return back and differs(play(copy, 200, seed + 2), expected) is None


def elsewhere(arguments: list[str], played: Played) -> int | None:
    """The first step that differs in another process, in which texts have other hashes."""
    other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "trace=1"],
        env={**os.environ, "PYTHONHASHSEED": other, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise EnvironmentFault("env: it could not be played in a second process beside this one; "
                               "see what was said above, and mend it")  # fmt: skip
    there = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(TRACE)]
    wrong = (n for n, here in enumerate(digests(played)) if there[n : n + 1] != [here])
    return next(wrong, None)


def conclude(envs: Envs, kwargs: dict[str, Any], advice: list[str]) -> None:
    """The agents that fit, what to set, and the file to save."""
    from agents import AGENTS

    fitting = [name for name, agent in AGENTS.items() if agent.serves(envs.spec.kind)]
    say("agents", f"agent={' or agent='.join(fitting)}")
    name = known(envs.env_id, kwargs)
    tuned = tuned_for(name, fitting) if name else []
    if advice and not tuned:
        say("advice", "; ".join(advice))
    if name:
        own = f", with settings of its own for agent={' or agent='.join(tuned)}" if tuned else ""
        print(f"\nit is here already: env={name}{own}")
        return
    name = group_name(envs.env_id, kwargs)
    print(f"\nconfigs/env/{name}.yaml, for env={name}:\n\n"
          f"id: {envs.env_id}\nnum_envs: auto\nvectorization: auto\n"
          f"kwargs: {json.dumps(kwargs)}\ntimeout: 60")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
