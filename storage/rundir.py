"""The run directory: where a run lies, and the files beside its checkpoints."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from common.errors import ConfigError, LogpiError, StorageFault, remedy, shown
from storage.sealed import read_file, sync_directory, write_synced

ROOT = Path(__file__).resolve().parent.parent
PATCH = "uncommitted.patch"
LARGEST_PATCH = 1 << 20  # bytes
COMPUTING = (
    *("agents", "audit", "common", "configs", "data", "envs", "networks", "policies", "runtime"),
    "storage",
)
CODE = (*COMPUTING, "bench", "tools")
DOORS = ("train.py", "evaluate.py")
KINDS = (".py", ".yaml", ".yml")  # of files that a run may depend on
CHANGED = ("HEAD", "--", *(f":(glob)**/*{kind}" for kind in KINDS), ":!tests", ":!docs")
FRESH = [f":(glob){place}*{kind}" for place in ("", *(f"{folder}/**/" for folder in CODE))
         for kind in KINDS]  # fmt: skip
DIFF = ("diff", "--no-ext-diff", "--no-color", "--no-textconv", "--no-renames", "--binary",
        "--src-prefix=a/", "--dst-prefix=b/")  # fmt: skip
PATIENCE = 10.0  # seconds, with git
STAMP = "%Y%m%d-%H%M%S"
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
    return head()[0]


def head() -> tuple[str, str]:
    """(commit of this checkout or `none`, why that is unknown where there is a `.git`)."""
    try:
        return git("rev-parse", "--verify", "HEAD").decode().strip(), ""
    except GitFailed as error:
        return "none", f"{error}"


def made_by(path: Path) -> str:
    """The revision that a run names as its own: in its result, or in its newest checkpoint."""
    if "revision" in (result := read_result(path)):
        return str(result["revision"])
    for file in sorted(path.glob("checkpoints/step-*/state.json"), reverse=True):
        with suppress(StorageFault, ValueError, LookupError, TypeError, RecursionError):
            return str(json.loads(read_file(file.parent, file.name))["setting"]["dict"]["revision"])
    return "none"


def other_revision(made_by: object) -> str:
    """Which revision made the files of a run and which reads them; empty where it is the same.

    Args:
        made_by: what they name.
    """
    made, now = str(made_by), revision()
    if not re.fullmatch("[0-9a-f]{7,64}", made) or made == now:
        return ""
    return (f"made by revision {made[:12]}, read by revision {now[:12]}; git checkout {made[:12]} "
            "reads it")  # fmt: skip


def code() -> bytes:
    """All that a run is computed by, with the names of the files, wherever they were copied.

    What only has the name of one (a folder, an editor's dead link) is left out.
    """
    files = [ROOT / door for door in DOORS]
    files += [path for folder in COMPUTING for path in (ROOT / folder).rglob("*.py")]
    named = sorted((path.relative_to(ROOT).as_posix(), path) for path in files
                   if path.is_file() and os.access(path, os.R_OK))  # fmt: skip
    return b"".join(f"{name}\0".encode(errors="surrogateescape") + path.read_bytes() + b"\0"
                    for name, path in named)  # fmt: skip


class TooLarge(LogpiError):
    """What is not committed is more than is kept beside a run."""


def uncommitted() -> bytes:
    """What this checkout differs in from its commit, as a patch; empty outside git.

    Code and configurations alone; tests and documents, which change no run, are left out. Files
    that git does not track are taken from the top and from the folders of this code.

    Raises:
        GitFailed: git names the commit, and not what differs from it.
        TooLarge: it is more than `LARGEST_PATCH`.
    """
    try:
        return difference()
    except GitFailed:
        if head()[0] != "none":
            raise
        return b""


def difference() -> bytes:
    """The patch of `uncommitted`; raises GitFailed outside git, too."""
    with listing() as index:
        names = split(git("diff", "--name-only", "-z", *CHANGED, index=index))
        sizes = {name: size_of(ROOT / name) for name in names}
        largest = max(sizes, key=sizes.__getitem__, default="")
        patch = b""
        if names and (kept := sizes[largest] <= LARGEST_PATCH):
            patch = git(*DIFF, *CHANGED, most=LARGEST_PATCH + 1, index=index)
            kept = len(patch) <= LARGEST_PATCH
        if names and not kept:
            raise TooLarge(
                f"more than {LARGEST_PATCH >> 20} MiB of code is not committed, too much to keep "
                f"beside the run, the largest file {largest} ({sizes[largest]:,} bytes); commit "
                "it, or name it in .gitignore"
            )
        return patch


@contextmanager
def listing() -> Iterator[Path | None]:
    """A copy of git's index in which code that is not tracked is listed, too; None without any."""
    fresh = split(git("ls-files", "-z", "--others", "--exclude-standard", "--", *FRESH))
    if not fresh:
        yield None
        return
    commit, _, kept = git("rev-parse", "HEAD", "--git-path", "index").rstrip().partition(b"\n")
    entry = b"100644 " + b"1" * len(commit) + b"\t"  # no content is stored for a difference
    entries = b"".join(entry + os.fsencode(name) + b"\0" for name in fresh)
    try:
        folder = tempfile.TemporaryDirectory(prefix="logpi-")
    except OSError as error:
        raise GitFailed(f"no temporary folder, {error.strerror}; {remedy(error)}") from error
    with folder as name:
        index = Path(name) / "index"
        try:
            if (ROOT / os.fsdecode(kept)).is_file():
                shutil.copy2(ROOT / os.fsdecode(kept), index)  # git compares its time with files
        except OSError as error:
            why = f"git's index cannot be copied, {error.strerror}"
            raise GitFailed(f"{why}; {remedy(error)}") from error
        git("update-index", "-z", "--index-info", index=index, given=entries)
        yield index


def split(names: bytes) -> list[str]:
    """File names that git ends with NUL each."""
    return [os.fsdecode(name) for name in names.split(b"\0")[:-1]]


def size_of(path: Path) -> int:
    """Bytes of a file; 0 of one that is not there."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def keep_patch(path: Path) -> None:
    """Leaves in a fresh run directory what is not committed, so that the run can be repeated."""
    try:
        patch = uncommitted()
    except TooLarge as error:
        print(f"warning: {error}", file=sys.stderr)
        return
    except GitFailed as error:
        print(f"warning: what is not committed is not kept beside the run: {error}",
              file=sys.stderr)  # fmt: skip
        return
    if patch:
        write_bytes(path / PATCH, patch)


class GitFailed(Exception):
    """Git gave no answer: why, and what to do; empty outside git."""


def git(*arguments: str, given: bytes = b"", most: int = -1, index: Path | None = None) -> bytes:
    """The answer of git about this checkout, whatever repository the environment names.

    Args:
        given: its standard input.
        most: bytes of the answer, after which git is ended; -1: all.
        index: in place of the user's own.

    Raises:
        GitFailed: it did not answer.
    """
    if not (ROOT / ".git").exists():
        raise GitFailed("")
    kept = {name: value for name, value in os.environ.items()  # git's settings stay the user's
            if not name.startswith("GIT_") or name.startswith("GIT_CONFIG_")}  # fmt: skip
    kept |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    kept |= {"GIT_INDEX_FILE": str(index)} if index else {}
    with tempfile.TemporaryFile() as sent, tempfile.TemporaryFile() as complaint:
        sent.write(given)
        sent.seek(0)
        try:
            process = subprocess.Popen(["git", *arguments], cwd=ROOT, env=kept, stdin=sent,
                                       stdout=subprocess.PIPE, stderr=complaint)  # fmt: skip
        except OSError as error:
            raise GitFailed(f"git cannot be started, {error.strerror}; install it") from error
        timer = threading.Timer(PATIENCE, process.kill)
        with process:
            timer.start()
            assert process.stdout is not None
            answer = process.stdout.read(most)
            if len(answer) == most:
                process.kill()
            process.wait()
            timer.cancel()
        complaint.seek(0)
        if process.returncode and len(answer) != most:
            raise GitFailed(mended(complaint.read().decode(errors="replace")))
    return answer


def mended(complaint: str) -> str:
    """Git's complaint and what helps, in one line."""
    first = (complaint.splitlines() or [f"it gave no answer in {PATIENCE:.0f} s"])[0]
    first = first.removeprefix("fatal: ")
    allow = "git config --global --add safe.directory"
    if "dubious ownership" in first or allow in complaint:
        found = re.search(rf"{re.escape(allow)} (.+)", complaint)
        return f"{first}; allow it: {allow} {found[1] if found else shown(ROOT)}"
    if "single revision" in first:
        return "there is no commit yet; make one"
    return f"{first}; see what git status says there"
