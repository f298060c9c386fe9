"""The command line -> one validated, fully resolved configuration.

`train_config` and `evaluate_config` are the way, `parse` is the grammar of one argument.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import ConfigError, key_value, quoted, warn
from configs.agents import AGENT_GROUPS
from configs.automatic import resolve
from configs.files import (
    COMMAND,
    GLOBAL,
    GROUPS,
    compose,
    experiment,
    find,
    flat,
    group,
    is_path,
    meant,
    naming,
    options,
    own_files,
    own_keys,
    place,
    read_run,
    require_run,
    to_yaml,
)
from configs.flags import FLAGS, instead
from configs.resume import continued, resumed
from configs.schema import EvaluateConfig, TrainConfig
from configs.validate import Group, build, check_plain, key_names, nearest, show, unknown_key

USUAL = {"env": "cartpole", "agent": "a2c"}  # as in train.yaml
LONGEST = 10_000  # characters of one argument
PATHS = ("run", "run_dir", "resume", "init", "policy", "out", "study", "hydra.sweep.dir")
TEXTS = (*PATHS, "checkpoint", "init_checkpoint", "device", "env.id")
UNREFERRING = (*GROUPS, "env.id", "resume")  # keys that are read before the others, like Hydra's
READ = re.compile(r"""$|["'~[{]|(null|true|false)$""", re.IGNORECASE)  # values of paths, by Hydra
Given = list[tuple[str, Any]]  # (key in full, value) of each argument
Values = dict[str, Any]  # key in full, or a group of files -> value


@dataclass(frozen=True)
class Asked:
    """The result of a command line."""

    config: Any  # a TrainConfig, of `evaluate.py` an EvaluateConfig
    kept: list[str] = field(default_factory=list)  # KEY=VALUE that a resumed run has otherwise
    sources: dict[str, str] = field(default_factory=dict)  # key -> what sets it, if no default

    def notes(self) -> tuple[list[str], list[str]]:
        """(lines, warnings) on tuned settings and kept values; none but in the first process."""
        if os.environ.get("RANK", "0") != "0":
            return [], []
        count = len(pair_keys(self.sources))
        pair = f"{self.sources.get('tuned')}, {count} key{'s' * (count > 1)}"
        tuned = [f"tuned pair: {pair}; tuned=null leaves it out"] if count else []
        warnings = [f"kept from the run: {', '.join(self.kept)}"] if self.kept else []
        counted = isinstance(self.config, TrainConfig) and self.config.eval.stop_after > 1
        if counted and self.config.eval.stop_at is None:
            warnings.append("eval.stop_after: does nothing without eval.stop_at=RETURN")
        return tuned, warnings

    def to_yaml(self) -> str:
        """The configuration as YAML, after comments on which key is set by what."""
        keys: dict[str, list[str]] = {}
        for key, what in self.sources.items():
            if key not in GROUPS:
                keys.setdefault(what, []).append(key)
        lines = [f"# {what}: {' '.join(keys[what])}\n" for what in sorted(keys)]
        return "".join(lines) + to_yaml(self.config)


def pair_keys(sources: dict[str, str]) -> list[str]:
    """The keys that a tuned pair sets."""
    pair = sources.get("tuned")
    return [key for key, what in sources.items() if what == pair and key not in GROUPS]


def train_config(arguments: list[str]) -> TrainConfig:
    """The configuration of `asked`, with its warnings."""
    found = asked(arguments)
    warn(*found.notes()[1])
    config: TrainConfig = found.config
    return config


def asked(arguments: list[str]) -> Asked:
    """The run that the arguments of `train.py` describe: a new one, or a resumed one.

    A resumed run keeps what is left out. Raises ConfigError: one line that names the key, what is
    wrong with it, and the nearest valid one.
    """
    with own_files(arguments) as words:
        return new_or_resumed([(name, value) for name, _, value in map(parse, words)])


def new_or_resumed(given: Given) -> Asked:
    """`asked`, from the arguments as (key, value)."""
    named = dict(given)
    run = named.get("resume")
    if run not in (None, "auto"):
        recorded = read_run(require_run("resume", str(run)))
        require_keys(given, TrainConfig, recorded.agent.name)
        for name, value in given:
            if "${" in str(value):
                raise ConfigError(f"{name}: refers to a key of a new run; write the value itself")
        return Asked(*resumed(recorded, named, str(run)))
    plain, sources = new_run(given)
    with naming(sources):
        config = build(TrainConfig, plain)
    if run == "auto" and config.run_dir is None:
        raise ConfigError("resume: auto needs a directory to look in; give run_dir=DIR")
    path = Path(str(config.run_dir))
    if run is None or not any(path.glob("checkpoints/step-*")):
        return Asked(resolve(config), sources=sources)
    stated = {**experiment(named.get("experiment")), **named}
    return Asked(*continued(read_run(path), config, stated))


def evaluate_config(arguments: list[str]) -> EvaluateConfig:
    """The configuration that `evaluate.py` runs; raises ConfigError like `train_config`."""
    with own_files(arguments) as words:
        given = [(name, value) for name, _, value in map(parse, words)]
        require_keys(given, EvaluateConfig)
        named, file = dict(given), Given()
        if "env" in named:
            played = train_config([f"env={quoted(named['env'])}"]).env
            file = [("env.id", played.id)]
            if named.get("policy") is not None:  # of a run, the arguments are its own
                file += [("env.kwargs", played.kwargs), ("env.wrappers", played.wrappers)]
        rest = [(name, value) for name, value in given if name != "env"]
        return build(EvaluateConfig, compose("evaluate", [], [*file, *rest]))


def new_run(given: Given, whole: bool = True) -> tuple[dict[str, Any], dict[str, str]]:
    """Checks the arguments of a new run, and composes them with the files that they name.

    Returns:
        The configuration as plain data, and {key: what sets it} of all but the defaults.
    """
    chosen = {name: value for name, value in given if name in GROUPS}
    values = [(name, value) for name, value in given if name not in GROUPS]
    require_files(chosen)
    named = experiment(chosen.get("experiment"))
    require_agreement(named, chosen, dict(values))
    files = {**named, **chosen}
    sets = {**USUAL, **files, **dict(values)}
    agent = meant("agent", sets["agent"])
    require_keys(values, TrainConfig, agent)
    pair = files.get("tuned", f"{sets['env']}-{sets['agent']}")
    other_id = "env.id" in sets and sets["env.id"] != meant("env", files.get("env"))
    if other_id:
        pair = files.get("tuned")  # the usual one was made for the id of the file alone
    tuned = dict(flat(group("tuned", pair))) if find("tuned", pair) else {}
    for key in tuned:  # a pair that is named may be one of another agent
        if key.startswith("agent.") and key not in key_names(TrainConfig, agent):
            having = [
                f"agent={name}" for name in AGENT_GROUPS if key in key_names(TrainConfig, name)
            ]
            if having:
                why = f"{pair} sets {key}, which agent={agent} does not have"
                raise ConfigError(f"tuned: {why}; give tuned=null, or choose {' or '.join(having)}")
    sources = {
        **own_keys("env", files.get("env")),
        **own_keys("agent", files.get("agent")),
        **(dict.fromkeys(tuned, place("tuned", pair)) if tuned else {}),
        **(dict.fromkeys(named, place("experiment", chosen["experiment"])) if named else {}),
        **dict.fromkeys(dict(values), COMMAND),
        **({"tuned": place("tuned", pair)} if tuned else {}),
    }
    if is_path(chosen.get("experiment")):  # which is none of Hydra's: as if it were typed
        values = [*((key, named[key]) for key in named if key not in GROUPS), *values]
        chosen = {folder: files[folder] for folder in files if folder in ("env", "agent")}
    chosen.pop("tuned", None)
    flag = {"experiment": f"+experiment{GLOBAL}"}
    groups = [f"{flag.get(name, name)}={quoted(chosen[name])}" for name in chosen]
    groups += ["env=custom"] * (other_id and "env" not in files)
    groups.append(f"tuned{GLOBAL}={quoted(pair)}" if tuned else f"~tuned{GLOBAL}")
    with naming(sources):
        return compose("train", groups, values, whole), sources


def require_files(chosen: Values) -> None:
    """Raises ConfigError with the nearest name unless each is a file that can be read."""
    for folder, name in chosen.items():
        if find(folder, name):
            group(folder, name)
        elif (folder, name) != ("tuned", None):
            known = options(folder)
            remedy = nearest(str(name), known, "choose one")
            remedy += " or give env.id=ID for any other" if folder == "env" else ""
            raise ConfigError(f"{folder}: {show(name)} is not one of {', '.join(known)}; {remedy}")


def require_agreement(named: Values, chosen: Values, values: Values) -> None:
    """Raises ConfigError where an experiment is for another environment or agent than is chosen."""
    for folder, key in (("agent", "agent"), ("env", "env.id")):
        own = named.get(key)
        if not own or folder not in chosen or key in values:
            continue
        if meant(folder, chosen[folder]) != meant(folder, own):
            why = f"experiment={chosen['experiment']} is for {key}={show(own, quote=False)}"
            raise ConfigError(f"{folder}: {why}; leave {folder}= out")


def require_keys(given: Given, group: type[Group], agent: str = "") -> None:
    """Raises ConfigError with the nearest key unless each is one of `group`, with this agent."""
    known, agents = key_names(group, agent), AGENT_GROUPS if agent else {}
    files = GROUPS if agent else ("env",)
    for name in [name for name, _ in given if name not in files]:
        if name.startswith("env.kwargs."):
            check_plain(dict.fromkeys(name.split(".")[2:]), "env.kwargs")
            continue
        single = [key for key in (*known, "env.kwargs.NAME") if key.startswith(f"{name}.")]
        having = [one for one in agents if name in key_names(group, one)]
        if single:
            why = f"is a group of keys; set a single one, e.g. {single[0]}=VALUE"
        elif name == "agent.name":
            why = "is set by the group; choose with agent=NAME"
        elif name in known:
            continue
        elif name.startswith("hydra"):
            why = f"is not used here; {instead(name)}"
        elif having:
            choice = f"choose agent={' or agent='.join(having)}"
            why = f"is a key of {' and '.join(having)} only; leave it out or {choice}"
        else:
            raise ConfigError(unknown_key(name, known if "." in name else [*files, *known]))
        raise ConfigError(f"{name}: {why}")


def parse(given: str) -> tuple[str, str, Any]:
    """(name, text of the value, value) of one KEY=VALUE; a leading + is accepted and dropped.

    The value of a path is its text, unless all of it is in quotes, or null.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    name, equals, text = given.partition("=")
    name = name.lstrip("+")
    key, what, path = show(name or given, quote=False), show(text), name in PATHS
    if len(given) > LONGEST:
        raise ConfigError(f"{key}: is longer than {LONGEST} characters; shorten")
    if not equals or not re.fullmatch(r"[\w@/][\w@/-]*(\.[\w@/-]+)*", name):
        remedy = instead(given) or nearest(given, FLAGS if given[:1] == "-" else [])
        agents = [key for agent in AGENT_GROUPS for key in key_names(TrainConfig, agent)]
        if (bare := name.lstrip("-")) in (*GROUPS, *agents, *key_names(EvaluateConfig)):
            remedy = f"write {bare}={text or 'VALUE'}" + ", without spaces" * (not equals)
        if os.path.isfile(os.path.join(given, "config.yaml")):
            remedy = f"give {key_value('run', given)}, to train.py {key_value('resume', given)}"
        raise ConfigError(f"{key}: is not KEY=VALUE; {remedy}")
    if "${" in text and (name in UNREFERRING or name.startswith("hydra")):
        raise ConfigError(f"{key}: is read before other keys; write the value itself")
    if text == "None":
        raise ConfigError(f"{name}: None is a text here; write {name}=null")
    if (path and not READ.match(text)) or (name in GROUPS and find(name, text)):
        return name, text, text
    try:
        override = OverridesParser.create().parse_override(f"{name}={text}")
        several, value = override.is_sweep_override(), override.value()
    except Exception:
        in_any_alphabet = name == "env.id" and re.fullmatch(r"[\w./:-]+", text)
        if in_any_alphabet or (path and text[:1] not in ("", "~")):
            return name, text, text
        remedy = f"""correct it, a text as '{key}="..."', a list as '{key}=[...]'"""
        if text.startswith("~"):
            remedy = "write out the folder that ~ stands for"
        elif text.count("[") > text.count("]"):  # the shell took a blank for its end
            remedy = "leave out the blanks in it, or put quotes around the argument"
        raise ConfigError(f"{key}: {what} cannot be read; {remedy}") from None
    if value == "???":
        raise ConfigError(f"{name}: is missing; give it a value")
    if several:
        remedy = (
            f"""give one, or -m for each; a list as '{key}=[{text}]', a text as '{key}="{text}"'"""
        )
        raise ConfigError(f"{key}: {what} is several values; {remedy}")
    if path and not isinstance(value, str | None):
        raise ConfigError(f"{name}: {what} is no text; quote it, {key_value(name, text)}")
    return name, text, value
