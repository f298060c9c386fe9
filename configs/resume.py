"""What a resumed run is: the recorded configuration, and the few keys that may be given anew."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.automatic import compiles, resolve
from configs.schema import TrainConfig
from configs.validate import build, show
from runtime.errors import ConfigError

FREE = ("total_steps", "threads", "device", "debug", "run_dir", "resume")
FREE_GROUPS = ("log", "eval", "checkpoint")
Given = dict[str, Any]  # key in full -> value, as on the command line


def resumed(recorded: TrainConfig, given: Given, run: str) -> TrainConfig:
    """The configuration of `resume=RUN`: as recorded, but for the free keys that are given.

    Raises:
        ConfigError: another key is given, or `total_steps` is cut; the line has both values.
    """
    plain = dataclasses.asdict(recorded)
    require_repeated(recorded.env.id, given.get("env.id"))
    for key, value in given.items():
        old = dict(flat(plain)).get(key)
        if key == "resume" or value == old or (key == "run_dir" and Path(str(value)) == Path(run)):
            continue
        if not free(key) or key == "run_dir":
            old = run if key == "run_dir" else old
            raise ConfigError(
                f"{key}: {show(value)} cannot be given to a resumed run, which has {show(old)}; "
                "leave it out"
            )
        put(plain, key, value)
    return finish(plain, recorded, run, run)


def continued(recorded: TrainConfig, asked: dict[str, Any], given: Given) -> TrainConfig:
    """The configuration of `resume=auto` where there is a run: the same command, given again.

    Raises:
        ConfigError: the command asks for another run than the recorded one.
    """
    plain = dataclasses.asdict(recorded)
    old = dict(flat(plain))
    require_repeated(recorded.env.id, asked["env"]["id"])
    for key, value in flat(asked):
        if free(key):
            if key in given:
                put(plain, key, value)
        elif value not in ("auto", old.get(key)) and (key in given or key != "audit.every"):
            raise ConfigError(
                f"{key}: {show(value)} is not what the run in run_dir was made with, "
                f"{show(old.get(key))}; give that, or another run_dir"
            )
    return finish(plain, recorded, str(asked["run_dir"]), "auto")


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
            f"env.id={recorded}"
        )


def kind(device: str) -> str:
    return device.partition(":")[0]


def differences(was: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(key, old value, new value) of each key that a resumed run has to keep and that differs.

    What an update is accelerated by changes its bits alone, as another device does.
    """
    old, new = dict(flat(was)), dict(flat(now))
    for key in {**old, **new}:
        if not free(key) and key != "accelerate" and old.get(key) != new.get(key):
            yield key, show(old.get(key)), show(new.get(key))


def free(key: str) -> bool:
    return key in FREE or key.partition(".")[0] in FREE_GROUPS


def flat(plain: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key in full, value); the arguments of the environment are one value."""
    for name, value in plain.items():
        if isinstance(value, dict) and f"{prefix}{name}" != "env.kwargs":
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def put(plain: dict[str, Any], key: str, value: Any) -> None:
    group, _, name = key.rpartition(".")
    (plain[group] if group else plain)[name] = value
