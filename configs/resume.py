"""What a resumed run is: the recorded configuration, and the few keys that may be given anew."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import ConfigError, shown
from configs.automatic import RULES, compiles, resolve
from configs.schema import TrainConfig
from configs.validate import build, show

FREE = ("total_steps", "threads", "device", "debug", "run_dir", "resume", "env.timeout")
FREE_GROUPS = ("log", "eval", "checkpoint")
WHERE = ("run_dir", "resume")
ARGUMENTS = "env.kwargs"  # a key where there are none
NONE = object()  # of a key that is not there
UPDATES = ("accelerate", "auto")  # by the number of updates, and the compiler here
Given = dict[str, Any]  # key in full -> value


def resumed(recorded: TrainConfig, given: Given, run: str) -> TrainConfig:
    """The configuration of `resume=RUN`: as recorded, but for the free keys that are given.

    Raises:
        ConfigError: another key is given, or `total_steps` is cut; the line has both values.
    """
    require_repeated(recorded.env.id, given.get("env.id"))
    plain, old = dataclasses.asdict(recorded), dict(leaves(recorded))
    for key, value in flat(given):
        if key == "resume" or (key == "run_dir" and Path(str(value)) == Path(run)):
            continue
        if key == "run_dir" or not (free(key) or was(recorded, key, value)):
            has = run if key == "run_dir" else old.get(key, NONE)
            raise ConfigError(
                f"{key}: {show(value)} cannot be given to a resumed run, which has {told(has)}; "
                "leave it out"
            )
        if free(key):
            put(plain, key, value)
    return finish(plain, recorded, run, run)


def continued(recorded: TrainConfig, asked: TrainConfig, given: Given) -> TrainConfig:
    """The configuration of `resume=auto` where there is a run: the same command, given again.

    Args:
        recorded: of the run.
        asked: what the command would begin, its `auto` unresolved.
        given: the keys of the command, and those of the experiment that it names.

    Raises:
        ConfigError: a key is given that the run was not made with, or another environment or agent.
    """
    require_repeated(recorded.env.id, asked.env.id)
    if asked.agent.name != recorded.agent.name:
        raise other("agent", asked.agent.name, recorded.agent.name)
    plain, old = dataclasses.asdict(recorded), dict(leaves(recorded))
    stated = {"env.id", *dict(flat(given))} - {*WHERE, ARGUMENTS}
    for key, value in leaves(asked):
        if key not in stated:
            continue
        if free(key):
            put(plain, key, value)
        elif not was(recorded, key, value, asked.total_steps) and (key, value) != UPDATES:
            raise other(key, value, old.get(key, NONE))
    return finish(plain, recorded, str(asked.run_dir), "auto")


def kept(recorded: TrainConfig, asked: Given, final: TrainConfig) -> list[str]:
    """What the command asks for otherwise, by a default or a file, KEY=VALUE as the run has it."""
    old, now = dict(leaves(recorded)), dict(leaves(final))
    total = asked.get("total_steps", recorded.total_steps)
    return [
        assignment(key, old)
        for key, value in asked.items()
        if key not in (*WHERE, ARGUMENTS) and now.get(key) == old.get(key)
        if not was(recorded, key, value, total)
    ]


def other(key: str, value: object, old: object) -> ConfigError:
    remedy = "leave it out" if old is NONE else "give that"
    return ConfigError(f"{key}: {show(value)} is not what the run in run_dir was made with, "
                       f"{told(old)}; {remedy}, or another run_dir")  # fmt: skip


def told(value: object) -> str:
    return "none" if value is NONE else show(value)


def was(recorded: TrainConfig, key: str, value: Any, *totals: int) -> bool:
    """Whether a key of a run has this value, or what `auto` stands for in this run.

    Args:
        recorded, key, value: of the run, in full, as given.
        totals: of other lengths of the run, by which `auto` may have been resolved.
    """
    old = dict(leaves(recorded)).get(key, NONE)
    if value != "auto" or key not in RULES:
        return bool(value == old) and isinstance(value, bool) == isinstance(old, bool)
    lengths = (dataclasses.replace(recorded, total_steps=total) for total in totals)
    return any(RULES[key](run) == old for run in (recorded, *lengths))


def assignment(key: str, values: Given) -> str:
    """KEY=VALUE, as on the command line."""
    name = show(key, quote=False)
    if key not in values:
        return f"no {name}"
    text = json.dumps(values[key], separators=(",", ":")).strip('"')
    return f"{name}={show(text, quote=False)}"


def finish(plain: dict[str, Any], recorded: TrainConfig, run: str, how: str) -> TrainConfig:
    plain["run_dir"], plain["resume"] = run, how
    if kind(plain["device"]) != kind(recorded.device):
        plain["accelerate"] = "auto"  # what was right for a GPU is not for a processor
    elif plain["accelerate"] == "compile" and not compiles():
        plain["accelerate"] = "none"  # slower, and said to be not exact, but it goes on
    config = resolve(build(TrainConfig, plain))
    if config.total_steps < recorded.total_steps and how == "auto":  # it was made longer since
        return dataclasses.replace(config, total_steps=recorded.total_steps)
    if config.total_steps < recorded.total_steps:
        raise ConfigError(
            f"total_steps: {config.total_steps} is less than the {recorded.total_steps} that the "
            "run was made with; give more, or leave it out"
        )
    return config


def require_repeated(recorded: str, given: object) -> None:
    """Raises ConfigError where a run's files name a module that the command line does not."""
    if ":" in recorded and given != recorded:
        raise ConfigError(
            f"env.id: the run would import the module of {show(recorded)}; if you trust it, repeat "
            f"{shown(f'env.id={recorded}')}"
        )


def kind(device: str) -> str:
    return device.partition(":")[0]


def differences(was: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(key, old value, new value) of each key that a resumed run has to keep and that differs.

    What an update is accelerated by changes its bits alone, as another device does.
    """
    old, new = dict(flat(was)), dict(flat(now))
    for key in {**old, **new}:
        before, after = old.get(key, NONE), new.get(key, NONE)
        if not free(key) and key not in ("accelerate", ARGUMENTS) and before != after:
            yield key, told(before), told(after)


def differing(recorded: dict[str, Any], config: TrainConfig) -> tuple[tuple[str, Any, Any], ...]:
    """The `differences` of a configuration from the one that a checkpoint holds.

    Raises:
        ConfigError: what it holds is not one of this revision.
    """
    was = dataclasses.asdict(build(TrainConfig, recorded, recorded=True))
    now = json.loads(json.dumps(dataclasses.asdict(config)))  # as a checkpoint has it
    return tuple(differences(was, now))


def free(key: str) -> bool:
    return key in FREE or key.partition(".")[0] in FREE_GROUPS


def flat(plain: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key in full, value); each argument of the environment is one."""
    for name, value in plain.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def leaves(config: TrainConfig) -> Iterator[tuple[str, Any]]:
    return flat(dataclasses.asdict(config))


def put(plain: dict[str, Any], key: str, value: Any) -> None:
    group, _, name = key.rpartition(".")
    (plain[group] if group else plain)[name] = value
