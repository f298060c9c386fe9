"""The only module that knows Hydra: command line -> one validated, fully resolved configuration."""

import os
import re
import warnings
from pathlib import Path
from typing import Any

from configs.agents import AGENT_GROUPS
from configs.automatic import resolve
from configs.files import read_run, require_run
from configs.resume import continued, resumed
from configs.schema import EvaluateConfig, TrainConfig
from configs.validate import build, check_plain, key_names, nearest, show, unknown_key
from runtime.errors import ConfigError

DIRECTORY = Path(__file__).resolve().parent
GROUPS = ("env", "agent", "experiment")
LONGEST = 10_000  # characters of one argument
PATHS = ("run", "run_dir", "resume")


def options(group: str) -> list[str]:
    """The names that `group=NAME` accepts."""
    names = sorted(path.stem for path in (DIRECTORY / group).glob("*.yaml"))
    return [name for name in names if (group, name) != ("env", "custom")]


def train_config(arguments: list[str]) -> TrainConfig:
    """Composes, checks and resolves what `train.py` is to run.

    Raises:
        ConfigError: one line that names the key, what is wrong with it, and the nearest valid one.
    """
    given = {name: value for name, _, value in map(parse, arguments)}
    run = given.get("resume")
    if run in (None, "auto"):
        asked = compose("train", train_overrides(arguments))
        config = resolve(build(TrainConfig, asked))
        if run is None:
            return config
        if config.run_dir is None:
            raise ConfigError("resume: auto needs a directory to look in; give run_dir=DIR")
        if not any(Path(config.run_dir).glob("checkpoints/step-*")):
            return config
        return continued(read_run(Path(config.run_dir)), asked, given)
    recorded = read_run(require_run("resume", str(run)))
    require_groups(recorded, given)
    for name in given:
        if not name.startswith("env.kwargs."):
            accept(name, key_names(TrainConfig, recorded.agent.name))
    return resumed(recorded, given, str(run))


def require_groups(recorded: TrainConfig, given: dict[str, Any]) -> None:
    """Takes out of what is given the groups that the run was made with; ConfigError for others."""
    known = {"env": recorded.env.id, "agent": recorded.agent.name, "experiment": None}
    if given.get("env") in options("env"):  # a file of this checkout's names the module
        given.setdefault("env.id", env_id(given["env"]))
    for group in GROUPS:
        value = given.pop(group, None)
        asked = env_id(value) if group == "env" and value in options("env") else value
        if asked != known[group] and value is not None:
            has = f", which has {show(known[group])}" if known[group] else ""
            raise ConfigError(
                f"{group}: {show(value)} cannot be given to a resumed run{has}; leave it out"
            )


def evaluate_config(arguments: list[str]) -> EvaluateConfig:
    """Composes and checks what `evaluate.py` is to run; raises ConfigError like `train_config`."""
    known, overrides, played = key_names(EvaluateConfig), [], None
    for name, text, _ in map(parse, arguments):
        if name == "env":
            played = train_config([f"env={text}"]).env
            overrides.append(f"env.id={quoted(played.id)}")
        elif name.startswith("env.kwargs."):
            check_plain(dict.fromkeys(name.split(".")[2:]), "env.kwargs")
            overrides.append(f"++{name}={text}")
        elif accept(name, known):
            overrides.append(f"{name}={text}")
    composed = compose("evaluate", overrides)
    if played is not None and composed["policy"] is not None:
        composed["env"]["kwargs"] = {**played.kwargs, **composed["env"]["kwargs"]}
    return build(EvaluateConfig, composed)


def train_overrides(arguments: list[str]) -> list[str]:
    """Checks every argument by itself, and rewrites them into what Hydra is to compose."""
    chosen: dict[str, str] = {}
    overrides = []
    agent = chosen_agent(arguments)
    for name, text, value in map(parse, arguments):
        if name in GROUPS:
            if not isinstance(value, str) or value not in options(name):
                raise ConfigError(
                    f"{name}: {show(value)} is not one of {', '.join(options(name))}; "
                    + (
                        nearest(str(value), options(name))
                        if name != "env"
                        else f"{nearest(str(value), options(name), '')} for any Gymnasium id give "
                        "env.id=ID"
                    )
                )
            chosen[name] = value
            overrides.append(f"+{name}={value}" if name == "experiment" else f"{name}={value}")
        elif name.startswith("env.kwargs."):
            check_plain(dict.fromkeys(name.split(".")[2:]), "env.kwargs")
            overrides.append(f"++{name}={text}")
        else:
            accept(name, key_names(TrainConfig, agent))
            if name == "env.id":
                chosen["env.id"] = str(value)
            overrides.append(f"{name}={text}")
    if "env.id" in chosen and chosen["env.id"] != env_id(chosen.get("env")):
        overrides = ["env=custom"] + [o for o in overrides if not o.startswith("env=")]
    return overrides


def parse(argument: str) -> tuple[str, str, Any]:
    """(name, text of the value, value) of one KEY=VALUE; a leading + is accepted and dropped."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    name, equals, text = argument.partition("=")
    name = name.lstrip("+")
    if len(argument) > LONGEST:
        raise ConfigError(
            f"{show(name, quote=False)}: is longer than {LONGEST} characters; shorten"
        )
    if not equals or not name or name.startswith(("~", "-")):
        raise ConfigError(f"{show(argument, quote=False)}: is not KEY=VALUE; --help lists the keys")
    if "${" in argument:
        raise ConfigError(
            f"{show(name, quote=False)}: refers to another key or the environment; "
            "write the value itself"
        )
    try:
        override = OverridesParser.create().parse_override(f"{name}={text}")
        value = override.value()
    except Exception:
        remedy = f"quote it, '{show(name, quote=False)}=\"...\"'"
        if text.startswith(("[", "{")):  # which a shell takes apart at a space
            remedy = f"quote all of it, '{show(name, quote=False)}={text[0]}...'"
        if text.startswith("~"):
            remedy = "write out the folder that ~ stands for"
        raise ConfigError(
            f"{show(name, quote=False)}: {show(text)} cannot be read; {remedy}"
        ) from None
    if value == "???":
        raise ConfigError(f"{name}: is missing; give it a value")
    if override.is_sweep_override():
        raise ConfigError(f"{name}: {show(text)} is several values; give one, or -m to train.py")
    if name in PATHS and isinstance(value, (int, float)) and not isinstance(value, bool):
        return name, quoted(text), text  # a folder may be named by a number
    return name, text, value


def quoted(text: object) -> str:
    """Any text as a value that `parse` reads as this text."""
    ends = re.sub(r'(\\*)("|$)', r"\1\1\2", str(text))  # backslashes count only before a quote
    return '"' + ends.replace('"', '\\"') + '"'


def accept(name: str, known: list[str]) -> bool:
    """True for a known key; raises ConfigError with the nearest one otherwise."""
    if name in {key.partition(".")[0] for key in known if "." in key}:
        inside = next(key for key in known if key.startswith(f"{name}."))
        raise ConfigError(f"{name}: is a group of keys; set a single one, e.g. {inside}")
    if name not in known:
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
    return True


def chosen_agent(arguments: list[str]) -> str:
    """The agent whose keys are valid: named by the arguments, by an experiment, or the default."""
    given, experiment, needed = None, None, None
    for argument in arguments:
        group, _, text = argument.lstrip("+").partition("=")
        value = text.strip().strip("'\"")
        if group == "agent" and value in AGENT_GROUPS:
            given = value
        if group == "experiment" and value in options("experiment"):
            text = (DIRECTORY / "experiment" / f"{value}.yaml").read_text(encoding="utf-8")
            found = re.search(r"override /agent: (\w+)", text)
            experiment, needed = value, found.group(1) if found else None
    if given and needed and given != needed:
        raise ConfigError(f"agent: experiment={experiment} is for agent={needed}; leave agent= out")
    return needed or given or "a2c"


def env_id(group: str | None) -> str | None:
    """The Gymnasium id in configs/env/<group>.yaml; None without a group."""
    if group is None:
        return None
    lines = (DIRECTORY / "env" / f"{group}.yaml").read_text(encoding="utf-8").splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("id:"))


def compose(name: str, overrides: list[str]) -> dict[str, Any]:
    """Hydra's composition as plain data; whatever it has to complain of becomes one line."""
    import hydra
    from omegaconf import OmegaConf

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        with (
            warnings.catch_warnings(),
            hydra.initialize_config_dir(str(DIRECTORY), version_base="1.3"),
        ):
            warnings.simplefilter("ignore")
            composed = hydra.compose(name, overrides=overrides)
            plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except Exception as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"configuration: {first[0]}; --help lists the keys") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
