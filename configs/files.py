"""The YAML files: those of this folder, which Hydra composes, and the config.yaml of runs."""

import dataclasses
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from common.errors import ConfigError, quoted, shown
from configs.agents import AGENT_GROUPS
from configs.schema import TrainConfig
from configs.validate import OtherKeys, build

DIRECTORY = Path(__file__).resolve().parent
GLOBAL = "# @package _global_"  # Hydra's mark of a file whose keys are those of the run
LARGEST_FILE = 1 << 20  # characters of a run's config.yaml


# the groups of this folder


def options(group: str) -> list[str]:
    """The names that `group=NAME` accepts."""
    files = (path for path in (DIRECTORY / group).glob("*.yaml") if path.is_file())
    names = sorted(path.stem for path in files)
    return [name for name in names if (group, name) != ("env", "custom")]


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
    """Hydra's composition of `name`.yaml as plain data; its complaints become one line.

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
        raise ConfigError(
            f"{folder}: the file in configs/{folder}/ does not begin with the line {GLOBAL}; "
            "make it the first, in UTF-8 without BOM"
        )


def read_yaml(path: Path) -> dict[str, Any]:
    """A file of this folder as plain data, its references unresolved; ConfigError for no YAML."""
    from omegaconf import OmegaConf

    try:
        plain: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:
        raise unreadable(path.parent.name, path, error) from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path.parent.name}: {path} is not a group of keys; correct the file")
    return {str(key): value for key, value in plain.items()}


def unreadable(name: str, path: Path, error: Exception) -> ConfigError:
    """The error for a file of this folder that is no YAML, with the line where one is known."""
    mark = getattr(error, "problem_mark", None)
    line = "" if mark is None else f"line {mark.line + 1}: "
    reason = getattr(error, "problem", None) or str(error).strip() or type(error).__name__
    return ConfigError(
        f"{name}: {path} cannot be read, {line}{reason.splitlines()[0]}; correct the file"
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
    """The directory of an existing run; ConfigError where it is none, naming the newest in it."""
    path = Path(run)
    try:
        found = (path / "config.yaml").is_file()
    except OSError as error:
        raise ConfigError(
            f"{key}: {run} cannot be looked at, {error.strerror}; give another"
        ) from None
    if not found:
        inside = [file for depth in range(1, 4) for file in path.glob("*/" * depth + "config.yaml")]
        newest = max(inside, key=lambda file: file.stat().st_mtime, default=None)
        raise ConfigError(
            f"{key}: {run} is not a run directory; give one that holds config.yaml"
            + (f", such as {shown(newest.parent)}" if newest else "")
        )
    return path


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
    except PermissionError as error:
        raise ConfigError(
            f"run: {path / 'config.yaml'} cannot be read, {error.strerror}; make it readable"
        ) from error
    except Exception as error:
        raise ConfigError(f"run: {path / 'config.yaml'} cannot be read; restore it") from error
    try:
        return build(TrainConfig, plain, recorded=True)
    except ConfigError as error:
        fault = ConfigError(f"run: {path / 'config.yaml'}, {error} in that file")
        if isinstance(error, OtherKeys):
            fault.run = str(path)
        raise fault from None


def to_yaml(config: TrainConfig) -> str:
    """The resolved configuration as YAML, plain data."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))
