"""The command line -> one validated, fully resolved configuration.

`train_config` and `evaluate_config` are the way, `parse` is the grammar of one argument.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

from common.errors import ConfigError, key_value, quoted
from configs.agents import AGENT_GROUPS
from configs.automatic import resolve
from configs.files import compose, experiment, group, meant, options, read_run, require_run
from configs.resume import continued, resumed
from configs.schema import EvaluateConfig, TrainConfig
from configs.validate import build, check_plain, key_names, nearest, show, unknown_key

GROUPS = ("env", "agent", "experiment")
LONGEST = 10_000  # characters of one argument
PATHS = ("run", "run_dir", "resume", "policy", "out", "study", "hydra.sweep.dir")
TEXTS = (*PATHS, "checkpoint", "device", "env.id")


def train_config(arguments: list[str], quiet: bool = False) -> TrainConfig:
    """The configuration that `train.py` runs: of a new run, or of one that goes on.

    A resumed run keeps what is left out; unless `quiet`, one warning names what differs.

    Raises:
        ConfigError: one line that names the key, what is wrong with it, and the nearest valid one.
    """
    parsed = [parse(argument) for argument in arguments]
    given = {name: value for name, _, value in parsed}
    run = given.get("resume")
    if run not in (None, "auto"):
        recorded = read_run(require_run("resume", str(run)))
        require_keys([name for name in given if name not in GROUPS], recorded.agent.name)
        config, kept = resumed(recorded, given, str(run))
    else:
        asked = build(TrainConfig, compose("train", train_overrides(parsed)))
        if run == "auto" and asked.run_dir is None:
            raise ConfigError("resume: auto needs a directory to look in; give run_dir=DIR")
        if run is None or not any(Path(str(asked.run_dir)).glob("checkpoints/step-*")):
            return resolve(asked)
        recorded = read_run(Path(str(asked.run_dir)))
        stated = {**experiment(given.get("experiment")), **given}
        config, kept = continued(recorded, asked, stated)
    if kept and not quiet and os.environ.get("RANK", "0") == "0":
        print(f"warning: kept as the run was made with: {', '.join(kept)}", file=sys.stderr)
    return config


def evaluate_config(arguments: list[str]) -> EvaluateConfig:
    """The configuration that `evaluate.py` runs; raises ConfigError like `train_config`."""
    known, played = key_names(EvaluateConfig), None
    overrides: list[str] = []
    for name, text, _ in map(parse, arguments):
        if name == "env":
            played = train_config([f"env={text}"]).env
            overrides.insert(0, f"env.id={quoted(played.id)}")  # an id beside it counts
        else:
            require_key(name, known)
            overrides.append(f"{'++' * name.startswith('env.kwargs.')}{name}={text}")
    composed = compose("evaluate", overrides)
    if played is not None and composed["policy"] is not None:
        composed["env"]["kwargs"] = {**played.kwargs, **composed["env"]["kwargs"]}
    return build(EvaluateConfig, composed)


def train_overrides(parsed: list[tuple[str, str, Any]]) -> list[str]:
    """Checks every argument by itself, and rewrites them into what Hydra is to compose."""
    chosen: dict[str, str] = {}
    for name, _, value in parsed:
        if name in GROUPS:
            require_option(name, value)
            chosen[name] = value
    given = {name: value for name, _, value in parsed if name not in GROUPS}
    named = experiment(chosen.get("experiment"))
    require_fitting(named, chosen, given)
    sets = {**named, **chosen, **given}
    agent = meant("agent", sets.get("agent", "a2c"))
    require_keys([*given], agent if agent in AGENT_GROUPS else "a2c")
    overrides = [
        *(f"{'+' * (name == 'experiment')}{name}={quoted(file)}" for name, file in chosen.items()),
        *(f"++{name}={text}" for name, text, _ in parsed if name not in GROUPS),
    ]
    if "env.id" in sets and sets["env.id"] != meant("env", sets.get("env")):
        overrides.append("~tuned")  # made for the id of the file alone
        overrides += ["env=custom"] * ("env" not in sets)
    return overrides


def require_option(folder: str, name: Any) -> None:
    """Raises ConfigError unless `folder=name` has a file that can be read."""
    if not isinstance(name, str) or name not in options(folder):
        remedy = nearest(str(name), options(folder), "" if folder == "env" else "choose one")
        remedy += " for any Gymnasium id give env.id=ID" if folder == "env" else ""
        raise ConfigError(
            f"{folder}: {show(name)} is not one of {', '.join(options(folder))}; {remedy}"
        )
    group(folder, name)


def require_fitting(named: dict[str, Any], chosen: dict[str, str], given: dict[str, Any]) -> None:
    """Raises ConfigError where another agent or environment is chosen than an experiment's."""
    needed, own = named.get("agent"), named.get("env.id")
    if needed and chosen.get("agent", needed) != needed:
        raise ConfigError(
            f"agent: experiment={chosen['experiment']} is for agent={needed}; leave agent= out"
        )
    if own and "env" in chosen and "env.id" not in given and meant("env", chosen["env"]) != own:
        raise ConfigError(
            f"env: experiment={chosen['experiment']} sets env.id={show(own, quote=False)}; "
            "leave env= out, or give env.id=ID beside it"
        )


def require_keys(names: list[str], agent: str) -> None:
    """Raises ConfigError unless `train.py` takes all of these keys with this agent."""
    known = key_names(TrainConfig, agent)
    for name in names:
        require_key(name, known)


def require_key(name: str, known: list[str]) -> None:
    """Raises ConfigError with the nearest key unless `name` is one that may be given."""
    if name.startswith("env.kwargs."):
        check_plain(dict.fromkeys(name.split(".")[2:]), "env.kwargs")
        return
    if name in {key.partition(".")[0] for key in known if "." in key}:
        inside = next(key for key in known if key.startswith(f"{name}."))
        raise ConfigError(f"{name}: is a group of keys; set a single one, e.g. {inside}")
    if name not in known:
        if name.startswith("hydra"):
            raise ConfigError(f"{name}: is of sweeps; leave it out, or add -m to train.py")
        elsewhere = [a for a in AGENT_GROUPS if name in key_names(TrainConfig, a)]
        if elsewhere and any(k.startswith("agent.") for k in known):
            raise ConfigError(
                f"{name}: is a key of {' and '.join(elsewhere)} only; leave it out "
                f"or choose agent={' or agent='.join(elsewhere)}"
            )
        groups = GROUPS if any(k.startswith("agent.") for k in known) else ("env",)
        raise ConfigError(unknown_key(name, [*groups, *known] if "." not in name else known))
    if name == "env.kwargs":
        raise ConfigError("env.kwargs: is set one by one; give env.kwargs.NAME=VALUE")
    if name == "agent.name":
        raise ConfigError("agent.name: is set by the group; choose with agent=NAME")


def parse(given: str) -> tuple[str, str, Any]:
    """(name, text of the value, value) of one KEY=VALUE; a leading + is accepted and dropped.

    The value of a path is its text, where Hydra's grammar does not read it as another text, a list
    or a dictionary: quotes around all of it are no part of it.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    name, equals, text = given.partition("=")
    name = name.lstrip("+")
    if len(given) > LONGEST:
        raise ConfigError(
            f"{show(name, quote=False)}: is longer than {LONGEST} characters; shorten"
        )
    if not equals or not name or name.startswith(("~", "-")):
        raise ConfigError(f"{show(given, quote=False)}: is not KEY=VALUE; --help lists the keys")
    if "${" in given:
        raise ConfigError(
            f"{show(name, quote=False)}: refers to another key or the environment; "
            "write the value itself"
        )
    path = name in PATHS
    if path and text != text.strip(" ") and text.strip()[:1] not in ("", "'", '"', "~"):
        return name, quoted(text), text  # whose name begins or ends with a space
    if name in GROUPS and text in options(name):
        return name, quoted(text), text  # a file may be named by a number, or have a comma
    try:
        override = OverridesParser.create().parse_override(f"{name}={text}")
        several, value = override.is_sweep_override(), override.value()
    except Exception:
        plain = name == "env.id" and re.fullmatch(r"[\w./:-]+", text)  # in any alphabet
        if plain or (path and text[:1] not in ("", "~")):
            return name, quoted(text), text
        raise unreadable_text(name, text) from None
    if value == "???":
        raise ConfigError(f"{name}: is missing; give it a value")
    if path and (several or type(value) in (int, float)):
        return name, quoted(text), text  # a folder may be named by a number, or have a comma
    if several:
        one = f"quote it, '{name}=\"...\"'" if takes_text(name) else "give one"
        raise ConfigError(f"{name}: {show(text)} is several values; {one}, or -m to train.py")
    if path and not isinstance(value, str | None):
        remedy = f"quote it, {key_value(name, text)}" if len(text) < 60 else "quote it"
        raise ConfigError(f"{name}: {show(text)} is no text; {remedy}")
    return name, text, value


def unreadable_text(name: str, text: str) -> ConfigError:
    """What `parse` raises for a value that is not of its grammar."""
    key = show(name, quote=False)
    if not re.fullmatch(r"[\w@/-]+(\.[\w@/-]+)*", name):
        return ConfigError(f"{key}: is not a key; --help lists the keys")
    remedy = f"quote it, '{key}=\"...\"'" if takes_text(name) else "correct it"
    if text.startswith(("[", "{")):  # which a shell takes apart at a space
        remedy = f"quote all of it, '{key}={text[0]}...'"
    if text.startswith("~"):
        remedy = "write out the folder that ~ stands for"
    return ConfigError(f"{key}: {show(text)} cannot be read; {remedy}")


def takes_text(name: str) -> bool:
    """Whether a key may have any text; of the tools' keys it is not known."""
    keys = {key for agent in AGENT_GROUPS for key in key_names(TrainConfig, agent)}
    return name not in {*keys, *key_names(EvaluateConfig), *GROUPS} or name in TEXTS
