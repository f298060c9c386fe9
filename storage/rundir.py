"""The run directory: where a run lies, and the files beside its checkpoints."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.errors import ConfigError, StorageFault, remedy
from storage.files import read_file, sync_directory, write_synced

STAMP = "%Y%m%d-%H%M%S"
REPEATED = Path("runs/reproduced")  # among the others one seed would count twice


def create(
    run_dir: str | None,
    env_name: str,
    agent_name: str,
    seed: int,
    again: bool = False,
    root: Path = Path("runs"),
) -> Path:
    """Makes a new directory: `run_dir`, or where none is given one below `root`.

    A taken name gets a suffix, or with `again` is used.

    Raises:
        ConfigError: it cannot be made; choose another run_dir.
    """
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in env_name)
    default = root / name / agent_name / f"{time.strftime(STAMP)}-s{seed}"
    if again and run_dir and Path(run_dir).is_dir():
        require_writable(Path(run_dir), "run_dir", "choose another")
        return Path(run_dir)
    return make_new(Path(run_dir) if run_dir else default, "run_dir")


def existing(run_dir: str | None) -> Path | None:
    """The directory of a run that has begun; None where there is none yet."""
    path = Path(run_dir or "")
    return path if run_dir and (path / "config.yaml").is_file() else None


def finished(path: Path, total_steps: int) -> bool:
    """Whether the run there has reached so many steps and left its result."""
    try:
        return bool(read_result(path)["steps"] >= total_steps)
    except (KeyError, TypeError):
        return False


def read_result(path: Path) -> dict[str, Any]:
    """`result.json` of a run; empty where there is none, or not one of ours."""
    try:
        result = json.loads(read_file(path, "result.json"))
    except (StorageFault, ValueError, RecursionError):
        return {}
    return result if isinstance(result, dict) else {}


def make_new(wanted: Path, key: str) -> Path:
    """Makes the directory `wanted`, which the user named by `key`; a taken name gets a suffix.

    Raises:
        ConfigError: it cannot be made; choose another.
    """
    if wanted.name in ("", ".."):
        raise ConfigError(f"{key}: {wanted} is there already; name a new folder")
    for attempt in range(1, 1000):
        path = wanted if attempt == 1 else wanted.with_name(f"{wanted.name}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.is_dir():
                raise ConfigError(f"{key}: {path} is a file; choose another") from None
            continue
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{key}: {path} cannot be made, {reason(error)}; choose another"
            ) from error
        return path
    raise ConfigError(f"{key}: {wanted} and its suffixes are taken; choose another")


def make_by_time(parent: Path, key: str = "out") -> Path:
    """Makes a directory in `parent` that is named by the present second, with a suffix if taken."""
    return make_new(parent / time.strftime(STAMP), key)


def make_folder(name: str | Path, key: str = "out") -> Path:
    """The directory, which the user named by `key` and which may exist already.

    Raises:
        ConfigError: it cannot be made or written; choose another.
    """
    path = Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{key}: {path} cannot be made, {reason(error)}; choose another"
        ) from error
    require_writable(path, key, "choose another")
    return path


def require_writable(path: Path, key: str, remedy: str) -> None:
    """Raises ConfigError where no file can be made in a directory."""
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"{key}: {path} cannot be written; {remedy}")


def reason(error: OSError | ValueError) -> str:
    """Why a path cannot be used; ValueError is of one that cannot be handed to the system."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a small JSON file, whole or not at all."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a small file, whole or not at all; raises StorageFault."""
    write_bytes(path, text.encode(errors="surrogateescape"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a small file, whole or not at all; raises StorageFault."""
    temporary = path.with_name(f"{path.stem}-{os.getpid()}.tmp")
    try:
        write_synced(temporary, content)
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageFault(
            f"{path}: cannot be written, {error.strerror}; {remedy(error)}"
        ) from error
