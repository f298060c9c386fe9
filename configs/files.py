"""The YAML files: those of this folder, which Hydra composes, and the config.yaml of runs."""

import dataclasses
import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from common.errors import ConfigError, quoted, shown
from configs.agents import AGENT_GROUPS
from configs.flags import take
from configs.schema import EvaluateConfig, TrainConfig
from configs.validate import build

DIRECTORY = Path(__file__).resolve().parent
COMMAND = "the command line"  # as what sets a key
GLOBAL = "@_global_"  # Hydra's mark of a group whose keys are those of the run
RESOLVER = re.compile(r"\$\{[^}]*[:$]")
GROUPS = ("env", "agent", "experiment", "tuned")  # folders of DIRECTORY, and of one's own
OWN: ContextVar[Path | None] = ContextVar("OWN", default=None)  # the folder of --config-dir
LARGEST_FILE = 1 << 20  # characters of a run's config.yaml


# the groups of this folder


@contextmanager
def own_files(arguments: Sequence[str]) -> Iterator[list[str]]:
    """The arguments without --config-dir DIR; meanwhile, files are found in that folder, too.

    Raises ConfigError where it has no files, or one with the name of another here.
    """
    folder, rest = take(arguments, "--config-dir", "-cd")
    if folder is None:
        yield rest
        return
    own = [(group, path) for group in GROUPS for path in Path(folder).glob(f"{group}/*.yaml")]
    if not own:
        why = f"there is no YAML file in env, agent, experiment or tuned of {folder}"
        raise ConfigError(f"--config-dir: {why}; put one there, or name another folder")
    for group, path in own:
        if (DIRECTORY / group / path.name).is_file():
            remedy = f"rename it, and choose it by {group}=NAME"
            raise ConfigError(f"--config-dir: {path} has the name of a file of configs/; {remedy}")
    token = OWN.set(Path(folder))
    try:
        yield rest
    finally:
        OWN.reset(token)


def folders() -> list[Path]:
    """Where the files of groups are."""
    return [DIRECTORY, *filter(None, [OWN.get()])]


def options(group: str) -> list[str]:
    """The names that `group=NAME` accepts."""
    paths = (path for folder in folders() for path in (folder / group).glob("*.yaml"))
    names = sorted(path.stem for path in paths if path.is_file())
    return [name for name in names if (group, name) != ("env", "custom")]


def is_path(name: Any) -> bool:
    """Whether `experiment=name` is the path of a file."""
    return isinstance(name, str) and name.endswith((".yaml", ".yml"))


def find(folder: str, name: Any) -> Path | None:
    """The file of `folder=name`; None where there is none."""
    if folder == "experiment" and is_path(name):
        return Path(name) if os.path.isfile(name) else None
    if name not in options(folder):
        return None
    return next(path for own in folders() if (path := own / folder / f"{name}.yaml").is_file())


def group(folder: str, name: str) -> dict[str, Any]:
    """The content of a file; for an environment or agent composed with all files it refers to."""
    file = read_yaml(find(folder, name) or DIRECTORY / folder / f"{name}.yaml")
    if folder in ("env", "agent") and ({"defaults", folder} & {*file} or "${" in str(file)):
        with naming(own_keys(folder, name)):
            chosen = [f"{folder}={quoted(name)}", f"~tuned{GLOBAL}"]
            whole = compose("train", chosen, whole=False)[folder]
        return whole if isinstance(whole, dict) else file
    return file


def place(folder: str, name: str) -> str:
    """The path of the file of `folder=name`; of one here, from configs/ on."""
    path = find(folder, name) or Path(name)
    return str(path).replace(f"{DIRECTORY.parent}{os.sep}", "")


def own_keys(folder: str, name: Any) -> dict[str, str]:
    """{key: path} of what a file of one's own, of an environment or an agent, itself sets."""
    path = find(folder, name)
    if path is None or DIRECTORY in path.parents:
        return {}
    file = read_yaml(path)
    file.pop("defaults", None)
    # a file that begins with # @package _global_ has the group itself
    prefix = "" if folder in file else f"{folder}."
    return dict.fromkeys(dict(flat(file, prefix)), place(folder, name))


@contextmanager
def naming(sources: dict[str, str]) -> Iterator[None]:
    """Adds the file that sets the key to a ConfigError inside."""
    try:
        yield
    except ConfigError as error:
        if (file := sources.get(error.key, COMMAND)) == COMMAND:
            raise
        raise ConfigError(f"{error.problem}, in {file}; {error.remedy}") from error


def meant(folder: str, name: Any) -> Any:
    """The id of the environment, or the name of the agent, that `folder=name` stands for."""
    if name not in options(folder) or name in AGENT_GROUPS:  # whose files have their names
        return name
    return group(folder, name).get({"env": "id", "agent": "name"}[folder])


def experiment(name: Any) -> dict[str, Any]:
    """The keys that an experiment sets and the groups that it chooses, with those of its bases."""
    if not find("experiment", name):
        return {}
    file = group("experiment", name)
    sets: dict[str, Any] = {}
    for entry in file.pop("defaults", None) or []:
        for key, value in entry.items() if isinstance(entry, dict) else [("", entry)]:
            chosen = key.rpartition("/")[2] or "experiment"
            last = str(value).rpartition("/")[2]
            sets |= experiment(last) if chosen == "experiment" else {chosen: last}
    return {**sets, **dict(flat(file))}


def compose(
    name: str, groups: list[str], values: Iterable[tuple[str, Any]] = (), whole: bool = True
) -> dict[str, Any]:
    """Hydra's composition of `name`.yaml as plain data, then each (key in full, value) set in it.

    Unless `whole`, a key may be without a value. Raises ConfigError, in one line.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import GrammarParseError, InterpolationResolutionError

    try:
        found = composed(name, groups)
        for key, value in values:
            try:
                OmegaConf.update(found, key, value, force_add=True)
            except TypeError:  # a group where a list was: refused below, by name
                OmegaConf.update(found, key, value, force_add=True, merge=False)
        raw: Any = OmegaConf.to_container(found, resolve=False)
        for key, value in flat(raw):
            if resolver := RESOLVER.search(str(value)):
                why = f"{resolver[0]}...}} would be executed, and configurations are data"
                raise ConfigError(f"{key}: {why}; write the value, or refer to a key, ${{seed}}")
        plain: Any = OmegaConf.to_container(found, resolve=True, throw_on_missing=whole)
    except ConfigError:
        raise
    except (GrammarParseError, InterpolationResolutionError) as error:
        why = f"its ${{...}} cannot be resolved, {first_line(error)}"
        raise ConfigError(f"{error.full_key}: {why}; use a key that --help lists") from error
    except Exception as error:
        if mark := getattr(error, "problem_mark", None):
            raise unreadable(Path(mark.name), error) from error
        remedy = f"correct the files in {OWN.get() or 'configs'}"
        raise ConfigError(f"configuration: {first_line(error)}; {remedy}") from error
    return {str(key): value for key, value in plain.items()}


def composed(name: str, overrides: list[str], **options: Any) -> Any:
    """Hydra's composition of `name`.yaml with overrides, without its warnings."""
    import hydra

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    for folder in folders()[1:]:
        path = quoted(f"file://{folder.absolute()}")
        overrides = [*overrides, f"hydra.searchpath=[{path}]"]
    with warnings.catch_warnings(), hydra.initialize_config_dir(str(DIRECTORY), version_base="1.3"):
        warnings.simplefilter("ignore")
        return hydra.compose(name, overrides=overrides, **options)


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_yaml(path: Path) -> dict[str, Any]:
    """A file of this folder as plain data, its references unresolved; ConfigError for no YAML."""
    from omegaconf import OmegaConf

    try:
        plain: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:
        raise unreadable(path, error) from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path.parent.name}: {path} is not a group of keys; correct the file")
    return {str(key): value for key, value in plain.items()}


def unreadable(path: Path, error: Exception) -> ConfigError:
    """The error for a file of this folder that is no YAML, with the line where one is known."""
    mark = getattr(error, "problem_mark", None)
    line = f"line {mark.line + 1}: " if mark else ""
    reason = getattr(error, "problem", None) or first_line(error)
    return ConfigError(
        f"{path.parent.name}: {path} cannot be read, {line}{reason}; correct the file"
    )


def flat(plain: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key in full, value); each argument of the environment is one."""
    for name, value in plain.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


# the configurations of runs


def require_run(key: str, run: str) -> Path:
    """The directory of an existing run; ConfigError where it is none.

    The run that it is a part of is named, else the newest in it, or, if it is no folder, in `runs`.
    """
    path, why = Path(run), "is not a run directory"
    try:
        if stat.S_ISREG((path / "config.yaml").stat().st_mode):
            return path  # `is_file` gives no reason from Python 3.14 on
    except (FileNotFoundError, NotADirectoryError, ValueError):
        pass
    except OSError as error:
        why = f"cannot be read, {error.strerror}"
    there = path if os.path.isdir(run) else Path("runs")
    above = [file for one in path.parents if os.path.isfile(file := one / "config.yaml")][:1]
    below = [file for depth in range(1, 4) for file in there.glob("*/" * depth + "config.yaml")]
    newest = max(above or below, key=lambda file: file.stat().st_mtime, default=None)
    such = f", such as {shown(newest.parent)}" if newest else ""
    raise ConfigError(f"{key}: {run} {why}; give one that holds config.yaml{such}")


def read_run(path: Path) -> TrainConfig:
    """The configuration of an existing run; ConfigError where its config.yaml is not one."""
    import yaml
    from omegaconf import OmegaConf

    try:
        with (path / "config.yaml").open(encoding="utf-8") as file:
            text = file.read(LARGEST_FILE)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("a few aliases can stand for billions of values")
        plain = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except Exception as error:
        reason = f", {error.strerror}; make it readable, or" if isinstance(error, OSError) else ";"
        raise ConfigError(
            f"run: {path / 'config.yaml'} cannot be read{reason} restore it"
        ) from error
    try:
        return build(TrainConfig, plain, recorded=True)
    except ConfigError as error:
        fault = ConfigError(f"run: {path / 'config.yaml'}, {error} in that file")
        fault.run = str(path)
        raise fault from None


def to_yaml(config: TrainConfig | EvaluateConfig) -> str:
    """The resolved configuration as YAML, plain data."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))
