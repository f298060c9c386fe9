"""Revision, code, versions, and everything else that the bits of a run depend on."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import StorageFault, remedy, shown, warn
from configs.schema import TrainConfig
from storage.files import read_json
from storage.rundir import read_result, write_bytes

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "gymnasium", "numpy", "tensorboard", "hydra-core", "safetensors")
PHYSICS = {"mujoco": "mujoco", "Box2D": "box2d", "ale_py": "ale-py"}  # module -> package
UNCOMPARED = ("revision", "variables")  # the code itself is compared, and each variable
VARIABLES = (  # by which libraries choose instructions, precision or number of threads
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
PATCH = "uncommitted.patch"
LARGEST_PATCH = 1 << 20  # bytes
KINDS = (".py", ".yaml", ".yml")  # files that a run may depend on
CHANGED = ("HEAD", "--", *(f":(glob)**/*{kind}" for kind in KINDS), ":!tests", ":!docs")
UNTRACKED = ("", *(f"{folder}/**/" for folder in (*COMPUTING, "bench", "tools")))  # searched
DIFF = (
    *("diff", "--no-ext-diff", "--no-color", "--no-textconv", "--no-renames", "--binary"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
PATIENCE = 10.0  # seconds, for git


def setting(config: TrainConfig, device: "torch.device") -> dict[str, Any]:
    """By name: threads, device, the instructions of the processor, versions, the code.

    The environment has to be made before, which loads its module.
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
    found = {
        package: next((one.version for one in distributions(name=package)), "none")
        for package in (*PACKAGES, *others)
    }
    return {"python": platform.python_version(), **found}


def variables() -> dict[str, str]:
    """Those of `VARIABLES` that are set; the effect of ATEN_CPU_CAPABILITY is `instructions`."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The differences between two settings, as text."""
    return [
        f"{name} was {before.get(name)}, is {value}"
        for name, value in now.items()
        if name not in UNCOMPARED and before.get(name) != value
    ] + changed_variables(before.get("variables"), now.get("variables", {}))


def changed_variables(before: dict[str, str] | None, now: dict[str, str]) -> list[str]:
    """The same for environment variables; empty if `before` is None: nothing is recorded."""
    if before is None:
        return []
    return [
        f"{name} was {before.get(name, 'not set')}, is {now.get(name, 'not set')}"
        for name in VARIABLES
        if before.get(name) != now.get(name)
    ]


def code() -> bytes:
    """The names and contents of all files by which a run is computed.

    Folders and dead links with such a name are left out.
    """
    files = [ROOT / "train.py", ROOT / "evaluate.py"]
    files += [path for folder in COMPUTING for path in (ROOT / folder).rglob("*.py")]
    content = b""
    for path in sorted(files):
        if path.is_file() and os.access(path, os.R_OK):
            name = path.relative_to(ROOT).as_posix().encode(errors="surrogateescape")
            content += name + b"\0" + path.read_bytes() + b"\0"
    return content


def revision() -> str:
    """The commit of this checkout; `none` outside git."""
    return head()[0]


def head() -> tuple[str, str]:
    """(commit of this checkout or `none`, the reason if there is a `.git` all the same)."""
    try:
        return git("rev-parse", "--verify", "HEAD").decode().strip(), ""
    except GitFailed as error:
        return "none", f"{error}"


def made_by(path: Path) -> str:
    """The revision recorded in a run: in its result, or in its newest checkpoint."""
    if "revision" in (result := read_result(path)):
        return str(result["revision"])
    for file in sorted(path.glob("checkpoints/step-*/state.json"), reverse=True):
        with suppress(StorageFault, LookupError, TypeError):
            return str(read_json(file)["setting"]["dict"]["revision"])
    return "none"


def other_revision(made_by: object) -> str:
    """A remedy with the revisions that made and that read a run; empty if they are the same."""
    made, now = str(made_by), revision()
    if not re.fullmatch("[0-9a-f]{7,64}", made) or made == now:
        return ""
    both = f"made by revision {made[:12]}, read by revision {now[:12]}"
    return f"{both}; git checkout {made[:12]} reads it"


class GitFailed(Exception):
    """Git failed, or its output is too long: reason and remedy; empty outside git."""


def keep_patch(path: Path) -> None:
    """Writes uncommitted changes into a new run directory, so that the run can be repeated."""
    try:
        if patch := uncommitted():
            write_bytes(path / PATCH, patch)
    except GitFailed as error:
        warn(f"uncommitted changes are not stored with the run: {error}")


def uncommitted() -> bytes:
    """Uncommitted code and configurations of this checkout as a patch; empty without a commit.

    Untracked files, at the top level and in the folders of this code, are added to a copy of git's
    index with a placeholder as hash. Raises GitFailed.
    """
    try:
        commit, _, kept = git("rev-parse", "HEAD", "--git-path", "index").rstrip().partition(b"\n")
    except GitFailed:  # `head` has the reason
        return b""
    patterns = [f":(glob){place}*{kind}" for place in UNTRACKED for kind in KINDS]
    listed = git("ls-files", "-z", "--others", "--exclude-standard", "--", *patterns)
    untracked = listed.split(b"\0")[:-1]
    entries = [b"100644 " + b"1" * len(commit) + b"\t" + name + b"\0" for name in untracked]
    try:
        size = sum((ROOT / os.fsdecode(name)).lstat().st_size for name in untracked)
        with tempfile.TemporaryDirectory(prefix="logpi-") as folder:
            index = Path(folder) / "index"
            if (ROOT / os.fsdecode(kept)).is_file():
                shutil.copy2(ROOT / os.fsdecode(kept), index)  # its time matters to git
            git("update-index", "-z", "--index-info", index=index, given=b"".join(entries))
            patch = git(*DIFF, *CHANGED, index=index) if size <= LARGEST_PATCH else b""
    except OSError as error:
        why = f"git's index cannot be copied, {error.strerror}"
        raise GitFailed(f"{why}; {remedy(error)}") from error
    if max(size, len(patch)) > LARGEST_PATCH:
        most = f"it is more than {LARGEST_PATCH >> 20} MiB of code"
        raise GitFailed(f"{most}; commit it, or name it in .gitignore")
    return patch


def git(*arguments: str, given: bytes = b"", index: Path | None = None) -> bytes:
    """The output of git for this checkout, regardless of git's environment variables.

    `given` is its input, `index` replaces the user's own. Raises GitFailed.
    """
    if not (ROOT / ".git").exists():
        raise GitFailed("")
    environment = {
        name: value
        for name, value in os.environ.items()  # git's settings are those of the user
        if not name.startswith("GIT_") or name.startswith("GIT_CONFIG_")
    }
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    command = ["git", *arguments]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, input=given, capture_output=True, timeout=PATIENCE
        )
    except OSError as error:
        raise GitFailed(f"git cannot be started, {error.strerror}; install it") from error
    except subprocess.TimeoutExpired as error:
        why = f"git gave no answer in {PATIENCE:.0f} s"
        raise GitFailed(f"{why}; see git status there") from error
    if not done.returncode:
        return done.stdout
    complaint = done.stderr.decode(errors="replace")
    first = complaint.partition("\n")[0].removeprefix("fatal: ") or "git was ended"
    allow, help = "git config --global --add safe.directory", "see git status there"
    if allow in complaint:
        help = f"allow it: {allow} {shown(ROOT)}"
    elif "single revision" in first:
        first, help = "there is no commit yet", "make one"
    raise GitFailed(f"{first}; {help}")
