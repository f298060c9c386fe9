"""The settings of a resumed run: those of the run, and the few keys that may be given anew.

What a command gives, or the experiment that it names sets, must be a free key or as the run has it.
Where a default or another file sets a key otherwise, the run keeps its own, and a warning names it.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from common.errors import ConfigError, shown
from configs.automatic import RULES, compiles, resolve
from configs.files import flat, group, meant, options
from configs.schema import TrainConfig
from configs.validate import build, show

FREE = ("total_steps", "threads", "device", "debug", "run_dir", "resume", "env.timeout")
FREE_GROUPS = ("log", "eval", "checkpoint")
WHERE = ("run_dir", "resume")
ARGUMENTS = "env.kwargs"  # a key where there are none
NONE = object()  # the value of a key that is not there
Values = dict[str, Any]  # key in full -> value


def resumed(recorded: TrainConfig, given: Values, run: str) -> tuple[TrainConfig, list[str]]:
    """The configuration of `resume=RUN`: as recorded, but for the free keys that are given.

    Returns:
        The configuration, and what the file of a given environment sets otherwise (see `kept`).

    Raises:
        ConfigError: another key is given, or `total_steps` is cut; the line has both values.
    """

    def refuse(key: str, value: object, has: object) -> ConfigError:
        return ConfigError(
            f"{key}: {show(value)} cannot be given to a resumed run, which has {told(has)}; "
            "leave it out"
        )

    given, implied = without_groups(recorded, given)
    require_repeated(recorded.env.id, given.get("env.id"))
    if "run_dir" in given and Path(str(given["run_dir"])) != Path(run):
        raise refuse("run_dir", given["run_dir"], run)
    plain, old = dataclasses.asdict(recorded), values_of(recorded)
    for key, value in flat(given):
        if free(key):
            put(plain, key, value)
        elif not agrees(recorded, key, value):
            raise refuse(key, value, old.get(key, NONE))
    config = finish(plain, recorded, run, run)
    return config, kept(recorded, implied, config)


def continued(
    recorded: TrainConfig, asked: TrainConfig, given: Values
) -> tuple[TrainConfig, list[str]]:
    """The configuration of `resume=auto` where there is a run: the same command, given again.

    Args:
        recorded: of the run.
        asked: what the command would begin, its `auto` unresolved.
        given: the keys of the command, and those of the experiment that it names.

    Returns:
        The configuration, and what is asked for otherwise by a default or a file (see `kept`).

    Raises:
        ConfigError: a key is given that the run was not made with, or another environment or agent.
    """

    def refuse(key: str, value: object, has: object) -> ConfigError:
        return ConfigError(
            f"{key}: {show(value)} is not what the run in run_dir was made with, {told(has)}; "
            f"{'leave it out' if has is NONE else 'give that'}, or another run_dir"
        )

    require_repeated(recorded.env.id, asked.env.id)
    if asked.agent.name != recorded.agent.name:
        raise refuse("agent", asked.agent.name, recorded.agent.name)
    plain, old, wanted = dataclasses.asdict(recorded), values_of(recorded), values_of(asked)
    stated = {"env.id", *dict(flat(given))} - {*WHERE, ARGUMENTS}
    for key, value in wanted.items():
        if key not in stated or (key, value) == ("accelerate", "auto"):  # as it suits this machine
            continue
        if free(key):
            put(plain, key, value)
        elif not agrees(recorded, key, value, asked.total_steps):
            raise refuse(key, value, old.get(key, NONE))
    config = finish(plain, recorded, str(asked.run_dir), "auto")
    return config, kept(recorded, {**dict.fromkeys(old, NONE), **wanted}, config)


def without_groups(recorded: TrainConfig, given: Values) -> tuple[Values, Values]:
    """Takes the groups that the run was made with out of what is given to it.

    Returns:
        The other keys, and what the file of the environment sets, by key.

    Raises:
        ConfigError: another environment or agent, or an experiment.
    """
    given, file = dict(given), Values()
    if given.get("env") in options("env"):  # a file of this checkout may name a module to import
        file = dict(flat(group("env", given["env"]), "env."))
        if given.setdefault("env.id", file.get("env.id")) != file.get("env.id"):
            del given["env"]  # another id beside it counts
    known = {"env": recorded.env.id, "agent": recorded.agent.name, "experiment": None}
    for name, has in known.items():
        if name in given and meant(name, value := given.pop(name)) != has:
            which = f", which has {show(has)}" if has else ""
            raise ConfigError(
                f"{name}: {show(value)} cannot be given to a resumed run{which}; leave it out"
            )
    general = dict(flat(group("env", "custom"), "env."))
    return given, {key: value for key, value in file.items() if value != general.get(key)}


def agrees(recorded: TrainConfig, key: str, value: Any, *totals: int) -> bool:
    """Whether a key of a run has this value, or the one that `auto` stands for in this run.

    Args:
        recorded, key, value: of the run, in full, as given.
        totals: of other lengths of the run, by which `auto` may have been resolved.
    """
    old = values_of(recorded).get(key, NONE)
    if value != "auto" or key not in RULES:
        return bool(value == old) and isinstance(value, bool) == isinstance(old, bool)
    lengths = (dataclasses.replace(recorded, total_steps=total) for total in totals)
    return any(RULES[key](run) == old for run in (recorded, *lengths))


def finish(plain: dict[str, Any], recorded: TrainConfig, run: str, how: str) -> TrainConfig:
    """The configuration of these keys, its updates accelerated as this machine can."""
    plain["run_dir"], plain["resume"] = run, how
    if plain["device"].partition(":")[0] != recorded.device.partition(":")[0]:
        plain["accelerate"] = "auto"  # what was right for a GPU is not for a processor
    elif plain["accelerate"] == "compile" and not compiles():
        plain["accelerate"] = "none"  # slower, and not exact, but it goes on
    config = resolve(build(TrainConfig, plain))
    if config.total_steps < recorded.total_steps and how == "auto":  # it was made longer since
        return dataclasses.replace(config, total_steps=recorded.total_steps)
    if config.total_steps < recorded.total_steps:
        raise ConfigError(
            f"total_steps: {config.total_steps} is less than the {recorded.total_steps} that the "
            "run was made with; give more, or leave it out"
        )
    return config


def kept(recorded: TrainConfig, implied: Values, final: TrainConfig) -> list[str]:
    """KEY=VALUE of each key that the run keeps though a default or a file sets it otherwise."""
    old, now = values_of(recorded), values_of(final)
    total = implied.get("total_steps", recorded.total_steps)
    return [
        assignment(key, old)
        for key, value in implied.items()
        if key not in (*WHERE, ARGUMENTS) and now.get(key) == old.get(key)
        if not agrees(recorded, key, value, total)
    ]


def assignment(key: str, values: Values) -> str:
    """KEY=VALUE, as on the command line."""
    name = show(key, quote=False)
    if key not in values:
        return f"no {name}"
    text = json.dumps(values[key], separators=(",", ":")).strip('"')
    return f"{name}={show(text, quote=False)}"


def require_repeated(recorded: str, given: object) -> None:
    """Raises ConfigError where a run's files name a module that the command line does not."""
    if ":" in recorded and given != recorded:
        raise ConfigError(
            f"env.id: the run would import the module of {show(recorded)}; if you trust it, repeat "
            f"{shown(f'env.id={recorded}')}"
        )


def differing(recorded: dict[str, Any], config: TrainConfig) -> tuple[tuple[str, Any, Any], ...]:
    """(key, recorded value, new value) of each key that a run has to keep and that differs.

    What an update is accelerated by changes its bits alone, as another device does.

    Args:
        recorded: the configuration that a checkpoint holds.

    Raises:
        ConfigError: what it holds is not a configuration of this revision.
    """
    old = values_of(build(TrainConfig, recorded, recorded=True))
    new = dict(flat(json.loads(json.dumps(dataclasses.asdict(config)))))  # as a checkpoint has it
    pairs = {key: (old.get(key, NONE), new.get(key, NONE)) for key in {**old, **new}}
    return tuple(
        (key, told(before), told(after))
        for key, (before, after) in pairs.items()
        if not free(key) and key not in ("accelerate", ARGUMENTS) and before != after
    )


def free(key: str) -> bool:
    return key in FREE or key.partition(".")[0] in FREE_GROUPS


def told(value: object) -> str:
    return "none" if value is NONE else show(value)


def values_of(config: TrainConfig) -> Values:
    return dict(flat(dataclasses.asdict(config)))


def put(plain: dict[str, Any], key: str, value: Any) -> None:
    group, _, name = key.rpartition(".")
    (plain[group] if group else plain)[name] = value
