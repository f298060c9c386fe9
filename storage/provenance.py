"""Where a run comes from: revision, code, versions, and all else that its bits depend on."""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import ConfigError, LogpiError, StorageFault, remedy, shown
from storage.files import read_file
from storage.rundir import read_result, write_bytes

if TYPE_CHECKING:
    import torch

    from configs.schema import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "gymnasium", "numpy", "tensorboard", "hydra-core", "safetensors")
PHYSICS = {"mujoco": "mujoco", "Box2D": "box2d", "ale_py": "ale-py"}  # module -> package
UNCOMPARED = ("revision", "variables")  # the code itself is compared, and each variable
VARIABLES = (  # by which libraries choose instructions, precision, or how many threads add up
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "OMP_NUM_THREADS", "OMP_DYNAMIC"),
    *("OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES"),
    *("NPY_ENABLE_CPU_FEATURES", "GLIBC_TUNABLES", "NVIDIA_TF32_OVERRIDE"),
    *("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG"),
)
COMPUTING = (
    *("agents", "audit", "common", "configs", "data", "envs", "networks", "policies", "runtime"),
    "storage",
)
DOORS = ("train.py", "evaluate.py")
PATCH = "uncommitted.patch"
LARGEST_PATCH = 1 << 20  # bytes
KINDS = (".py", ".yaml", ".yml")  # of files that a run may depend on
CHANGED = ("HEAD", "--", *(f":(glob)**/*{kind}" for kind in KINDS), ":!tests", ":!docs")
UNTRACKED = ("", *(f"{folder}/**/" for folder in (*COMPUTING, "bench", "tools")))  # where to look
DIFF = (
    *("diff", "--no-ext-diff", "--no-color", "--no-textconv", "--no-renames", "--binary"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
PATIENCE = 10.0  # seconds, with git


def setting(config: "TrainConfig", device: "torch.device") -> dict[str, Any]:
    """By name: threads, device, the instructions of the processor, versions, the code.

    The environment has been made, so that its module is loaded.
    """
    import torch

    from envs.make import source

    env_code = source(config.env.id)
    physics = [package for name, package in PHYSICS.items() if name.encode() in env_code]
    return {
        "threads": int(config.threads),
        "accelerate": config.accelerate,
        "device": config.device,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "kind": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        **versions(*physics),
        "revision": revision(),
        "code": hashlib.sha256(code()).hexdigest()[:12],
        "the environment's code": hashlib.sha256(env_code).hexdigest()[:12],
        "variables": variables(),
    }


def versions(*others: str) -> dict[str, str]:
    """Versions of Python, of the packages that every run uses, and of others."""
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, *others):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def variables() -> dict[str, str]:
    """The environment variables of this process that change arithmetic, where they are set.

    ATEN_CPU_CAPABILITY is not among them: its effect is recorded, as `instructions`.
    """
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two settings, in words."""
    return [
        f"{name} was {before.get(name)}, is {value}"
        for name, value in now.items()
        if name not in UNCOMPARED and before.get(name) != value
    ] + changed_variables(before.get("variables"), now.get("variables", {}))


def changed_variables(before: dict[str, str] | None, now: dict[str, str]) -> list[str]:
    """The same of environment variables; empty where `before` is None: a run without a record."""
    if before is None:
        return []
    return [
        f"{name} was {before.get(name, 'not set')}, is {now.get(name, 'not set')}"
        for name in VARIABLES
        if before.get(name) != now.get(name)
    ]


def require_as_long(recorded: dict[str, Any], config: "TrainConfig") -> None:
    """Raises ConfigError where a run has fewer steps than the configuration of its checkpoint.

    A schedule keeps its first horizon: steps after it are made at a learning rate of 0.
    """
    total, planned = config.total_steps, int(recorded["total_steps"])
    if total < planned:
        raise ConfigError(
            f"total_steps: {total} is less than the {planned} that the run was made with; "
            "restore config.yaml"
        )
    if config.agent.lr_schedule == "linear" and total > planned:
        print(
            f"warning: agent.lr_schedule=linear has fallen to 0 at step {planned:,}, after which "
            "nothing is learned; train longer from the start instead",
            file=sys.stderr,
        )


def edited(key: str, was: object, now: object) -> ConfigError:
    return ConfigError(
        f"{key}: {now} is not what the run was made with, {was}; restore config.yaml"
    )


def code() -> bytes:
    """The names and contents of all files by which a run is computed.

    What only has the name of one (a folder, an editor's dead link) is left out.
    """
    files = [ROOT / door for door in DOORS]
    files += [path for folder in COMPUTING for path in (ROOT / folder).rglob("*.py")]
    files = [path for path in files if path.is_file() and os.access(path, os.R_OK)]
    named = sorted((path.relative_to(ROOT).as_posix(), path) for path in files)
    return b"".join(
        f"{name}\0".encode(errors="surrogateescape") + path.read_bytes() + b"\0"
        for name, path in named
    )


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
    """The revision recorded in a run: in its result, or in its newest checkpoint."""
    if "revision" in (result := read_result(path)):
        return str(result["revision"])
    for file in sorted(path.glob("checkpoints/step-*/state.json"), reverse=True):
        with suppress(StorageFault, ValueError, LookupError, TypeError, RecursionError):
            return str(json.loads(read_file(file.parent, file.name))["setting"]["dict"]["revision"])
    return "none"


def other_revision(made_by: object) -> str:
    """Which revision made the files of a run and which reads them; empty where it is the same.

    Args:
        made_by: the revision recorded in them.
    """
    made, now = str(made_by), revision()
    if not re.fullmatch("[0-9a-f]{7,64}", made) or made == now:
        return ""
    return (
        f"made by revision {made[:12]}, read by revision {now[:12]}; git checkout {made[:12]} "
        "reads it"
    )


class TooLarge(LogpiError):
    """What is not committed is more than is kept beside a run."""


class GitFailed(Exception):
    """Git gave no answer: why, and what to do; empty outside git."""


def keep_patch(path: Path) -> None:
    """Leaves in a fresh run directory what is not committed, so that the run can be repeated."""
    try:
        patch = uncommitted()
    except TooLarge as error:
        print(f"warning: {error}", file=sys.stderr)
    except GitFailed as error:
        why = "what is not committed is not kept beside the run"
        print(f"warning: {why}: {error}", file=sys.stderr)
    else:
        if patch:
            write_bytes(path / PATCH, patch)


def uncommitted() -> bytes:
    """The difference of this checkout from its commit, as a patch; empty outside git.

    Code and configurations alone; tests and documents, which change no run, are left out. Files
    that git does not track are taken from the top and from the folders of this code.

    Raises:
        GitFailed: git gives the commit, and not the difference from it.
        TooLarge: it is more than `LARGEST_PATCH`.
    """
    try:
        with index_with_untracked() as index:
            return difference(index)
    except GitFailed:
        if head()[0] != "none":
            raise
        return b""


@contextmanager
def index_with_untracked() -> Iterator[Path | None]:
    """A copy of git's index that lists untracked code, too; None where there is no such code."""
    patterns = [f":(glob){place}*{kind}" for place in UNTRACKED for kind in KINDS]
    untracked = split(git("ls-files", "-z", "--others", "--exclude-standard", "--", *patterns))
    if not untracked:
        yield None
        return
    commit, _, kept = git("rev-parse", "HEAD", "--git-path", "index").rstrip().partition(b"\n")
    entry = b"100644 " + b"1" * len(commit) + b"\t"  # no content is stored for a difference
    entries = b"".join(entry + os.fsencode(name) + b"\0" for name in untracked)
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


def difference(index: Path | None) -> bytes:
    """The patch of `uncommitted`; a file that alone is too large is not read."""
    names = split(git("diff", "--name-only", "-z", *CHANGED, index=index))
    if not names:
        return b""
    sizes = {name: size_of(ROOT / name) for name in names}
    largest = max(sizes, key=sizes.__getitem__)
    if sizes[largest] <= LARGEST_PATCH:
        patch = git(*DIFF, *CHANGED, most=LARGEST_PATCH + 1, index=index)
        if len(patch) <= LARGEST_PATCH:
            return patch
    raise TooLarge(
        f"more than {LARGEST_PATCH >> 20} MiB of code is not committed, too much to keep beside "
        f"the run, the largest file {largest} ({sizes[largest]:,} bytes); commit it, or name it "
        "in .gitignore"
    )


def split(names: bytes) -> list[str]:
    """File names that git ends with NUL each."""
    return [os.fsdecode(name) for name in names.split(b"\0")[:-1]]


def size_of(path: Path) -> int:
    """Bytes of a file; 0 of one that is not there."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def git(*arguments: str, given: bytes = b"", most: int = -1, index: Path | None = None) -> bytes:
    """The output of git on this checkout, whatever repository the environment names.

    Args:
        given: its standard input.
        most: bytes of the output, after which git is ended; -1: all.
        index: in place of the user's own.

    Raises:
        GitFailed: it failed, or took longer than `PATIENCE`.
    """
    if not (ROOT / ".git").exists():
        raise GitFailed("")
    environment = {
        name: value
        for name, value in os.environ.items()  # git's settings stay the user's
        if not name.startswith("GIT_") or name.startswith("GIT_CONFIG_")
    }
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    with tempfile.TemporaryFile() as sent, tempfile.TemporaryFile() as complaint:
        sent.write(given)
        sent.seek(0)
        try:
            process = subprocess.Popen(
                ["git", *arguments],
                cwd=ROOT,
                env=environment,
                stdin=sent,
                stdout=subprocess.PIPE,
                stderr=complaint,
            )
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
            raise GitFailed(explained(complaint.read().decode(errors="replace")))
    return answer


def explained(complaint: str) -> str:
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
