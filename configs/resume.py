"""The settings of a resumed run: those of the run, and the few keys that may be given anew.

What a command gives, or the experiment that it names sets, must be a free key or as the run has it.
Where a default or another file sets a key otherwise, the run keeps its own, and a warning names it.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from common.errors import ConfigError, shown
from configs.automatic import RULES, compiles, replaced, resolve
from configs.files import flat, group, meant, options
from configs.schema import EnvConfig, TrainConfig, named
from configs.validate import build, show

FREE = ("total_steps", "threads", "device", "debug", "run_dir", "resume", "env.timeout")
FREE_GROUPS = ("log", "eval", "checkpoint")
NONE = object()  # the value of a key that is not there
Values = dict[str, Any]  # key in full -> value


def resumed(recorded: TrainConfig, given: Values, run: str) -> tuple[TrainConfig, list[str]]:
    """The configuration of `resume=RUN`, from the keys that are given beside it: see `going_on`.

    Of the file of an environment, what differs from the general settings is implied.
    """
    stated, file = dict(flat(given)), Values()
    if Path(str(stated.get("run_dir", run))) != Path(run):
        raise ConfigError(f"run_dir: {show(stated['run_dir'])} is not {run}; leave it out")
    if "experiment" in stated:
        raise ConfigError("experiment: cannot be given to a resumed run; leave it out")
    if "env" in stated:
        name = stated.pop("env")
        file = dict(flat(group("env", name), "env.")) if name in options("env") else {}
        stated.setdefault("env.id", file.get("env.id", name))  # another id beside it counts
    if "agent" in stated:
        stated["agent.name"] = meant("agent", stated.pop("agent"))
    general = dict(flat(group("env", "custom"), "env."))
    implied = {key: value for key, value in file.items() if value != general.get(key)}
    return going_on(recorded, {**stated, "run_dir": run, "resume": run}, implied)


def continued(
    recorded: TrainConfig, asked: TrainConfig, given: Values
) -> tuple[TrainConfig, list[str]]:
    """The configuration of `resume=auto` where there is a run: see `going_on`.

    `asked` is what the command would begin; what it leaves out, but agent and id, is implied.
    """
    wanted = values_of(asked)
    keys = {"env.id", "agent.name", *dict(flat(given))}
    stated = {key: value for key, value in wanted.items() if key in keys}
    where = {"run_dir": asked.run_dir, "resume": "auto"}
    implied = {**dict.fromkeys(values_of(recorded), NONE), **wanted}
    return going_on(recorded, {**stated, **where}, implied)


def going_on(
    recorded: TrainConfig, stated: Values, implied: Values
) -> tuple[TrainConfig, list[str]]:
    """The configuration of a resumed run, its updates accelerated as this machine can.

    Returns:
        The configuration, and KEY=VALUE of each key that is implied otherwise than the run has it.

    Raises:
        ConfigError: a key is stated that is not free and differs, or `total_steps` is cut.
    """
    config, old = recorded, values_of(recorded)
    total = implied.get("total_steps", recorded.total_steps)
    lengths = (recorded, dataclasses.replace(recorded, total_steps=total))

    def agrees(key: str, value: Any) -> bool:
        """Whether the run has this value, or the one that `auto` stands for at a length of it."""
        has = old.get(key, NONE)
        if value == "auto" and key in RULES:
            return has in [RULES[key](run) for run in lengths]
        return bool(value == has) and isinstance(value, bool) == isinstance(has, bool)

    require_repeated(recorded.env, stated.get("env.id"))
    for key, value in stated.items():
        if free(key):
            config = replaced(config, key, value)
        elif (key, value) != ("accelerate", "auto") and not agrees(key, value):
            name = "agent" if key == "agent.name" else key
            why = f"{show(value)} is not the run's value, {told(old.get(key, NONE))}"
            remedy = "give that" if key in old else "leave it out"
            raise ConfigError(f"{name}: {why}; {remedy}, or begin another run")
    config = build(TrainConfig, dataclasses.asdict(config))
    if config.device.partition(":")[0] != recorded.device.partition(":")[0]:
        config = replaced(config, "accelerate", "auto")  # what suits a GPU does not suit a CPU
    elif config.accelerate == "compile" and not compiles():
        config = replaced(config, "accelerate", "none")  # slower, and not exact, but it continues
    config = resolve(config)
    if config.total_steps < recorded.total_steps:
        if config.resume != "auto":
            why = f"{config.total_steps} is less than the run's {recorded.total_steps}"
            raise ConfigError(f"total_steps: {why}; give more, or leave it out")
        config = replaced(config, "total_steps", recorded.total_steps)  # it was made longer since
    now = values_of(config)
    differing = [key for key, value in implied.items() if not agrees(key, value)]
    return config, [assignment(key, old) for key in differing if now.get(key) == old.get(key)]


def assignment(key: str, values: Values) -> str:
    """KEY=VALUE, as on the command line."""
    name = show(key, quote=False)
    if key not in values:
        return f"no {name}"
    text = json.dumps(values[key], separators=(",", ":")).strip('"')
    return f"{name}={show(text, quote=False)}"


def modules_in(env: EnvConfig) -> list[str]:
    """Names of an environment and its wrappers that are in modules of one's own."""
    return [name for name in (env.id, *(named(one)[0] for one in env.wrappers)) if ":" in name]


def require_repeated(recorded: EnvConfig, given: object) -> None:
    """Raises ConfigError where a run's files name a module, and its environment is not repeated."""
    foreign = modules_in(recorded)
    if foreign and given != recorded.id:
        names = " and ".join(map(show, foreign))
        raise ConfigError(
            f"env.id: the run would import the module of {names}; if you trust it, repeat "
            f"{shown(f'env.id={recorded.id}')}"
        )


def differing(recorded: dict[str, Any], config: TrainConfig) -> tuple[tuple[str, Any, Any], ...]:
    """(key, recorded value, new value) of each key that a run has to keep and that differs.

    Raises ConfigError where what a checkpoint recorded is no configuration of this revision.
    """
    old = values_of(build(TrainConfig, recorded, recorded=True))
    new = values_of(config)
    pairs = {key: (old.get(key, NONE), new.get(key, NONE)) for key in {**old, **new}}
    return tuple(
        (key, told(before), told(after))
        for key, (before, after) in pairs.items()
        if not free(key) and key != "accelerate" and before != after  # which changes bits alone
    )


def free(key: str) -> bool:
    return key in FREE or key.partition(".")[0] in FREE_GROUPS


def told(value: object) -> str:
    return "none" if value is NONE else show(value)


def values_of(config: TrainConfig) -> Values:
    values = dict(flat(json.loads(json.dumps(dataclasses.asdict(config)))))  # as in a checkpoint
    values.pop("env.kwargs", None)  # a key where there are none
    return values
