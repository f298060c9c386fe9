"""The only module that knows Hydra: command line -> one validated, fully resolved configuration."""

import os
import re
import sys
import warnings
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from common.errors import ConfigError, key_value, quoted
from configs.agents import AGENT_GROUPS
from configs.automatic import resolve
from configs.files import read_run, read_yaml, require_run, unreadable
from configs.resume import NONE, continued, flat, kept, leaves, resumed
from configs.schema import EnvConfig, EvaluateConfig, TrainConfig
from configs.validate import build, check_plain, key_names, nearest, show, unknown_key

DIRECTORY = Path(__file__).resolve().parent
GROUPS = ("env", "agent", "experiment")
LONGEST = 10_000  # characters of one argument
PATHS = ("run", "run_dir", "resume", "policy", "out", "study", "hydra.sweep.dir")
GLOBAL = "# @package _global_"  # what Hydra reads as: these are keys of the run
TEXTS = (*PATHS, "checkpoint", "device", "env.id")


def options(group: str) -> list[str]:
    """The names that `group=NAME` accepts."""
    files = (path for path in (DIRECTORY / group).glob("*.yaml") if path.is_file())
    names = sorted(path.stem for path in files)
    return [name for name in names if (group, name) != ("env", "custom")]


def train_config(arguments: list[str], quiet: bool = False) -> TrainConfig:
    """Composes, checks and resolves what `train.py` is to run.

    A resumed run keeps what is left out; unless `quiet`, one warning names what differs.

    Raises:
        ConfigError: one line that names the key, what is wrong with it, and the nearest valid one.
    """
    parsed = [parse(argument) for argument in arguments]
    given = {name: value for name, _, value in parsed}
    run = given.get("resume")
    if run in (None, "auto"):
        composed = compose("train", train_overrides(parsed))
        asked = build(TrainConfig, {**composed, "env": whole(composed["env"])})
        if run is None:
            return resolve(asked)
        if asked.run_dir is None:
            raise ConfigError("resume: auto needs a directory to look in; give run_dir=DIR")
        if not any(Path(asked.run_dir).glob("checkpoints/step-*")):
            return resolve(asked)
        recorded = read_run(Path(asked.run_dir))
        keys = {**experiment(given.get("experiment")), **given}
        config = continued(recorded, asked, keys)
        wanted = {**dict.fromkeys(dict(leaves(recorded)), NONE), **dict(leaves(asked))}
    else:
        recorded = read_run(require_run("resume", str(run)))
        wanted = require_groups(recorded, given)
        for name in given:
            if not name.startswith("env.kwargs."):
                accept(name, key_names(TrainConfig, recorded.agent.name))
        config = resumed(recorded, given, str(run))
    same = kept(recorded, wanted, config)
    if same and not quiet and os.environ.get("RANK", "0") == "0":
        print(f"warning: kept as the run was made with: {', '.join(same)}", file=sys.stderr)
    return config


def whole(env: Any) -> dict[str, Any]:
    """The keys of an environment, of which a file of one's own may lack some."""
    if not isinstance(env, dict):
        raise ConfigError(
            f"env: must be a group of keys, got {show(env)}; correct the file in configs/env/"
        )
    lacks = {declared.name for declared in fields(EnvConfig)} - {*env, "id"}
    general = group("env", "custom") if lacks else {}
    return {**{key: general[key] for key in lacks}, **env}


def require_groups(recorded: TrainConfig, given: dict[str, Any]) -> dict[str, Any]:
    """Takes out of what is given the groups that the run was made with; ConfigError for others.

    Returns:
        What the file of the environment sets, by key.
    """
    named: dict[str, Any] = {}
    if given.get("env") in options("env"):  # a file of this checkout's names the module
        named = dict(flat(group("env", given["env"]), "env."))
        if given.setdefault("env.id", named.get("env.id")) != named.get("env.id"):
            del given["env"]  # another id beside it counts
    known = {"env": recorded.env.id, "agent": recorded.agent.name, "experiment": None}
    for name, has in known.items():
        if name in given and meant(name, value := given.pop(name)) != has:
            which = f", which has {show(has)}" if has else ""
            raise ConfigError(
                f"{name}: {show(value)} cannot be given to a resumed run{which}; leave it out"
            )
    general = dict(flat(group("env", "custom"), "env."))
    return {key: value for key, value in named.items() if value != general.get(key)}


def evaluate_config(arguments: list[str]) -> EvaluateConfig:
    """Composes and checks what `evaluate.py` is to run; raises ConfigError like `train_config`."""
    known, played = key_names(EvaluateConfig), None
    overrides: list[str] = []
    for name, text, _ in map(parse, arguments):
        if name == "env":
            played = train_config([f"env={text}"]).env
            overrides.insert(0, f"env.id={quoted(played.id)}")  # an id beside it counts
        elif name.startswith("env.kwargs."):
            check_plain(dict.fromkeys(name.split(".")[2:]), "env.kwargs")
            overrides.append(f"++{name}={text}")
        elif accept(name, known):
            overrides.append(f"{name}={text}")
    composed = compose("evaluate", overrides)
    if played is not None and composed["policy"] is not None:
        composed["env"]["kwargs"] = {**played.kwargs, **composed["env"]["kwargs"]}
    return build(EvaluateConfig, composed)


def train_overrides(parsed: list[tuple[str, str, Any]]) -> list[str]:
    """Checks every argument by itself, and rewrites them into what Hydra is to compose."""
    chosen: dict[str, str] = {}
    overrides = []
    for name, _, value in parsed:
        if name in GROUPS:
            if not isinstance(value, str) or value not in options(name):
                said = nearest(str(value), options(name), "" if name == "env" else "choose one")
                said += " for any Gymnasium id give env.id=ID" if name == "env" else ""
                raise ConfigError(
                    f"{name}: {show(value)} is not one of {', '.join(options(name))}; {said}"
                )
            chosen[name] = value
            group(name, value)  # what cannot be read is told by its name
            overrides.append(f"{'+' * (name == 'experiment')}{name}={quoted(value)}")
    named = experiment(chosen.get("experiment"))
    own = named.get("env.id", "")
    given = {name for name, _, _ in parsed}
    if own and "env" in chosen and "env.id" not in given and meant("env", chosen["env"]) != own:
        raise ConfigError(
            f"env: experiment={chosen['experiment']} sets env.id={show(own, quote=False)}; "
            "leave env= out, or give env.id=ID beside it"
        )
    sets = {**named, **chosen}
    known = key_names(TrainConfig, chosen_agent(chosen, named))
    for name, text, value in parsed:
        if name.startswith("env.kwargs."):
            check_plain(dict.fromkeys(name.split(".")[2:]), "env.kwargs")
        elif name in GROUPS or not accept(name, known):
            continue
        if name == "env.id":
            sets[name] = str(value)
        overrides.append(f"++{name}={text}")  # also where a file of one's own lacks it
    if "env.id" in sets and sets["env.id"] != meant("env", sets.get("env")):
        overrides.append("~tuned")  # made for the id of the file alone
        overrides += ["env=custom"] * ("env" not in sets)
    return overrides


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


def accept(name: str, known: list[str]) -> bool:
    """True for a known key; raises ConfigError with the nearest one otherwise."""
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
    return True


def chosen_agent(chosen: dict[str, str], named: dict[str, Any]) -> str:
    """The agent whose keys are valid: of the experiment that is named, else chosen, else a2c."""
    given, needed = chosen.get("agent"), named.get("agent")
    if given and needed and given != needed:
        raise ConfigError(
            f"agent: experiment={chosen['experiment']} is for agent={needed}; leave agent= out"
        )
    name = meant("agent", needed or given or "a2c")
    return name if name in AGENT_GROUPS else "a2c"


def group(folder: str, name: str) -> dict[str, Any]:
    """The file of `folder=name`; of an environment what it comes to, with all that it refers to."""
    file = read_yaml(DIRECTORY / folder / f"{name}.yaml")
    if folder == "env" and ({"defaults", "env"} & {*file} or "${" in str(file)):
        composed = compose("train", [f"env={quoted(name)}", "~tuned"], whole=False)["env"]
        return composed if isinstance(composed, dict) else file
    return file


def meant(folder: str, name: Any) -> Any:
    """The id of the environment, or the name of the agent, that `folder=name` stands for."""
    key = {"env": "id", "agent": "name"}.get(folder)
    if name in AGENT_GROUPS:  # whose files have their names
        return name
    return group(folder, name).get(key) if key and name in options(folder) else name


def experiment(name: Any) -> dict[str, Any]:
    """What an experiment sets, by key, and the groups that it chooses; its own bases included."""
    if name not in options("experiment"):
        return {}
    file = group("experiment", name)
    sets: dict[str, Any] = {}
    for entry in file.pop("defaults", None) or []:
        for key, value in entry.items() if isinstance(entry, dict) else [("", entry)]:
            chosen = key.rpartition("/")[2] or "experiment"
            last = str(value).rpartition("/")[2]
            sets |= experiment(last) if chosen == "experiment" else {chosen: last}
    return {**sets, **dict(flat(file))}


def compose(name: str, overrides: list[str], whole: bool = True) -> dict[str, Any]:
    """Hydra's composition as plain data; whatever it has to complain of becomes one line.

    Unless `whole`, a key may be without a value.
    """
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
            plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=whole)
    except Exception as error:
        if mark := getattr(error, "problem_mark", None):
            raise unreadable("configuration", Path(mark.name), error) from error
        first = str(error).strip().splitlines() or [type(error).__name__]
        require_global(re.findall(r"@(\w+)", first[0]))
        raise ConfigError(f"configuration: {first[0]}; correct the files in configs/") from error
    assert isinstance(plain, dict)
    require_global(plain)
    return {str(key): value for key, value in plain.items()}


def require_global(keys: Iterable[Any]) -> None:
    """Raises ConfigError where what a file sets came below the name of its folder."""
    for folder in {"tuned", "experiment"}.intersection(keys):
        raise ConfigError(f"{folder}: the file in configs/{folder}/ does not begin with the line "
                          f"{GLOBAL}; make it the first, in UTF-8 without BOM")  # fmt: skip
