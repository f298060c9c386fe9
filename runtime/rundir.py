"""The run directory: where a run lies, and the files beside its checkpoints."""

import errno
import json
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from runtime.errors import ConfigError, StorageFault
from runtime.sealed import read_file, sync_directory, write_synced

ROOT = Path(__file__).resolve().parent.parent
PATCH = "uncommitted.patch"
LARGEST_PATCH = 1 << 20  # bytes
COMPUTING = ("agents", "configs", "data", "networks", "policies", "runtime")
CODE = (*COMPUTING, "tools")
DIFF = ("diff", "--no-ext-diff", "--no-color", "--no-textconv", "--binary", "--src-prefix=a/",
        "--dst-prefix=b/")  # fmt: skip
PACKAGES = ("torch", "gymnasium", "numpy", "tensorboard", "hydra-core", "safetensors")
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
    stamp = time.strftime("%Y%m%d-%H%M%S")
    default = root / name / agent_name / f"{stamp}-s{seed}"
    if again and run_dir and Path(run_dir).is_dir():
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
    except (ValueError, RecursionError):
        return {}
    return result if isinstance(result, dict) else {}


def make_new(wanted: Path, key: str) -> Path:
    """Makes the directory `wanted`, which the user named by `key`; a taken name gets a suffix.

    Raises:
        ConfigError: it cannot be made; choose another.
    """
    for attempt in range(1, 1000):
        path = wanted if attempt == 1 else wanted.with_name(f"{wanted.name}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.is_dir():
                raise ConfigError(f"{key}: {path} is a file; choose another") from None
            continue
        except OSError as error:
            raise ConfigError(
                f"{key}: {path} cannot be made, {error.strerror}; choose another"
            ) from error
        return path
    raise ConfigError(f"{key}: {wanted} and its suffixes are taken; choose another")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a small JSON file, whole or not at all."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a small file, whole or not at all; raises StorageFault."""
    write_bytes(path, text.encode())


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


def remedy(error: OSError) -> str:
    """What helps where nothing can be written."""
    forbidden = (errno.EACCES, errno.EPERM, errno.EROFS)
    return "make the folder writable" if error.errno in forbidden else "free the disk"


def versions(*others: str) -> dict[str, str]:
    """What the run was made with, and the versions of other packages."""
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, *others):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def revision() -> str:
    """The commit of this checkout; `none` outside git."""
    return git("rev-parse", "HEAD").decode().strip() or "none"


def code() -> bytes:
    """All that a run is computed by, with the names of the files, wherever they were copied."""
    files = sorted(path for folder in COMPUTING for path in (ROOT / folder).glob("*.py"))
    return b"".join(f"{path.parent.name}/{path.name}".encode() + path.read_bytes()
                    for path in files)  # fmt: skip


def uncommitted() -> bytes:
    """What this checkout differs in from that commit, as a patch; empty outside git.

    Files that are not yet added to git are in it where code or configurations lie; tests and
    documents, which change no run, are not.
    """
    patch = git(*DIFF, "HEAD", "--", ".", ":!tests", ":!docs", ":!*.md")
    inside = [":(glob)*.py", *CODE]
    fresh = git("ls-files", "-z", "--others", "--exclude-standard", "--", *inside)
    for name in fresh.decode(errors="surrogateescape").split("\0")[:-1]:
        patch += git(*DIFF, "--no-index", "--", "/dev/null", name, code=1)  # 1: they differ
    return patch


def keep_patch(path: Path) -> None:
    """Leaves in a fresh run directory what is not committed, so that the run can be repeated."""
    patch = uncommitted()
    if len(patch) > LARGEST_PATCH:
        print(f"warning: {len(patch):,} bytes of changes are not committed, which is too much to "
              "keep beside the run; commit them to repeat it", file=sys.stderr)  # fmt: skip
    elif patch:
        write_bytes(path / PATCH, patch)


def git(*arguments: str, code: int = 0) -> bytes:
    """What git says of this checkout; empty outside git, and where it does not end with `code`."""
    if not (ROOT / ".git").exists():
        return b""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout if done.returncode == code else b""
