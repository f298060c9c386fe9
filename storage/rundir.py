"""The run directory: its name, and the files beside the checkpoints."""

import json
import os
import time
from pathlib import Path
from typing import Any

from common.errors import ConfigError, StorageFault, key_value, shown
from configs.resume import modules_in
from configs.schema import TrainConfig
from storage.files import read_json, sync_directory, write_synced, writing

COMMANDS = "commands.txt"  # in the run directory
STAMP = "%Y%m%d-%H%M%S"
RUNS = Path("runs")
REPEATED = Path("runs/reproduced")  # not among other runs, where a seed would count twice


def create(
    run_dir: str | None, env: str, agent: str, seed: int, again: bool = False, root: Path = RUNS
) -> Path:
    """Makes a new directory: `run_dir`, or where none is given one below `root`; see `make_new`.

    A taken name gets a suffix; with `again` the directory is used as it is.
    """
    if again and run_dir and Path(run_dir).is_dir():
        return require_writable(Path(run_dir), "run_dir", "choose another")
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in env)
    default = root / name / agent / f"{time.strftime(STAMP)}-s{seed}"
    return make_new(Path(run_dir) if run_dir else default, "run_dir")


def existing(run_dir: str | None) -> Path | None:
    """The directory of a run that has begun, else None."""
    path = Path(run_dir or "")
    return path if run_dir and (path / "config.yaml").is_file() else None


def without_goal(path: Path, config: TrainConfig, launcher: str = "python") -> str:
    """The command that continues a run which its evaluations ended, to its whole length."""
    words = f"total_steps={config.total_steps} eval.stop_at=null eval.patience=null"
    return command(path, config, words, launcher)


def command(path: Path, config: TrainConfig, words: str, launcher: str = "python") -> str:
    """The command that continues the run there, with more words."""
    own = f" {shown(f'env.id={config.env.id}')}" if modules_in(config.env) else ""
    return f"{launcher} train.py {key_value('resume', path)}{own} {words}"


def commands(path: Path) -> str:
    """The commands that began and continued the run, as they were typed."""
    file = path / COMMANDS
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def beginning(path: Path) -> str:
    """How to begin a run that ended before its first checkpoint, in its directory."""
    typed = [line for line in commands(path).splitlines() if not line.startswith("#")]
    words = f"{key_value('run_dir', path)} resume=auto"
    return f"begin it: {typed[-1]} {words}" if typed else f"give its command again, with {words}"


def finished(path: Path, config: TrainConfig, launcher: str = "python") -> str | None:
    """How to continue the finished run there; None where it is not finished.

    A run is finished at `total_steps`, or where its evaluations ended it by the keys of `config`.
    """
    result = read_result(path)
    why = result.get("stopped")
    if why and stopping(config, why).items() <= result.items():
        return f"{why}; to continue: {without_goal(path, config, launcher)}"
    if not isinstance(steps := result.get("steps"), int) or steps < config.total_steps:
        return None
    if config.agent.lr_schedule == "linear":
        fallen = "its learning rate has fallen to 0 (agent.lr_schedule=linear)"
        return f"{fallen}; for more steps begin another run, or give {key_value('init', path)}"
    longer = f"total_steps={2 * config.total_steps}"
    return f"for more steps: {command(path, config, longer, launcher)}"


def stopping(config: TrainConfig, why: str) -> dict[str, Any]:
    """What `result.json` has of a run that its evaluations ended: the reason, and the keys."""
    names = ("stop_at", "stop_after", "patience")
    return {"stopped": why, **{f"eval.{name}": getattr(config.eval, name) for name in names}}


def read_result(path: Path) -> dict[str, Any]:
    """`result.json` of a run; empty if it is missing or invalid."""
    try:
        return read_json(path / "result.json")
    except StorageFault:
        return {}


def make_new(wanted: Path, key: str) -> Path:
    """Makes the directory `wanted`, the value of `key`; a taken name gets a suffix.

    Raises ConfigError if it cannot be made.
    """
    if wanted.name in ("", ".."):
        raise ConfigError(f"{key}: {wanted} is there already; name a new folder")
    for attempt in range(1, 1000):
        path = wanted if attempt == 1 else wanted.with_name(f"{wanted.name}-{attempt}")
        try:
            path.mkdir(parents=True)
            return path
        except (OSError, ValueError) as error:
            if not (isinstance(error, FileExistsError) and path.is_dir()):
                raise not_made(key, path, error) from error
    raise ConfigError(f"{key}: {wanted} and its suffixes are taken; choose another")


def make_by_time(parent: Path) -> Path:
    """Makes a directory in `parent`, named by date and time, with a suffix if it is taken."""
    return make_new(parent / time.strftime(STAMP), "out")


def make_folder(name: str | Path, key: str = "out") -> Path:
    """Makes the directory that is the value of `key`, or uses an existing one.

    Raises ConfigError if it cannot be made or written.
    """
    path = Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise not_made(key, path, error) from error
    return require_writable(path, key, "choose another")


def not_made(key: str, path: Path, error: OSError | ValueError) -> ConfigError:
    """The error for a directory; ValueError is that of an invalid path."""
    why = getattr(error, "strerror", None) or error
    return ConfigError(f"{key}: {path} cannot be made, {why}; choose another")


def require_writable(path: Path, key: str, remedy: str) -> Path:
    """The directory; ConfigError if it cannot be written."""
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"{key}: {path} cannot be written; {remedy}")
    return path


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a small JSON file atomically; raises StorageFault."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a small text file atomically; raises StorageFault."""
    write_bytes(path, text.encode(errors="surrogateescape"))


def write_bytes(path: Path, content: bytes, temporary: Path | None = None) -> None:
    """Writes a file atomically, by renaming a temporary one; raises StorageFault."""
    temporary = temporary or path.with_name(f"{path.stem}-{os.getpid()}.tmp")
    with writing(path, temporary):
        write_synced(temporary, content)
        temporary.replace(path)
        sync_directory(path.parent)
