"""Configurations as files: those of a run, and those of this folder."""

import dataclasses
from pathlib import Path
from typing import Any

from common.errors import ConfigError, shown
from configs.schema import TrainConfig
from configs.validate import build

LARGEST_FILE = 1 << 20  # characters of a run's config.yaml


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
        if ": is missing" in str(error) or ": is not a key" in str(error):
            fault.run = str(path)
        raise fault from None


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
    """A file of this folder that is no YAML, with the line where YAML says one."""
    mark = getattr(error, "problem_mark", None)
    line = "" if mark is None else f"line {mark.line + 1}: "
    reason = getattr(error, "problem", None) or str(error).strip() or type(error).__name__
    return ConfigError(f"{name}: {path} cannot be read, {line}{reason.splitlines()[0]}; "
                       "correct the file")  # fmt: skip


def to_yaml(config: TrainConfig) -> str:
    """The resolved configuration as YAML, plain data."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))
