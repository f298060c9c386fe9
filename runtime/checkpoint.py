"""Checkpoints that are whole or not there: tensors and JSON, every file named with its SHA-256."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from runtime.errors import ConfigError, StorageFault

FORMAT = 1
TENSORS, VALUES, MANIFEST = "state.safetensors", "state.json", "manifest.json"


def save(run_dir: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Writes `checkpoints/step-<12 digits>`, reads it back, then removes what is no longer kept.

    Written beside `checkpoints/`, synced and renamed, so that a kill at any instant leaves the old
    ones or the new one, never half a one. A step is written once.

    Raises:
        StorageFault: it could not be written, or does not read back; free the disk.
    """
    target = run_dir / "checkpoints" / f"step-{step:012d}"
    temporary = run_dir / f"tmp-{os.getpid()}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        target.parent.mkdir(exist_ok=True)
        values, tensors = split(state)
        files = {
            TENSORS: save_tensors(tensors),
            VALUES: json.dumps(values, allow_nan=False).encode(),
        }
        manifest = {
            "format": FORMAT,
            "step": step,
            "files": {
                name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in files.items()
            },
        }
        for name, content in {**files, MANIFEST: json.dumps(manifest).encode()}.items():
            write_synced(temporary / name, content)
        sync_directory(temporary)
        temporary.rename(target)
        sync_directory(target.parent)
        load(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageFault(
            f"checkpoint {target}: cannot be written, {error}; free the disk or "
            "choose another run_dir"
        ) from error
    prune(run_dir, keep)
    return target


def load(path: Path) -> dict[str, Any]:
    """The state in one checkpoint directory, every file verified against the manifest.

    Raises:
        StorageFault: a file is missing, or differs from what was written.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT or path.name != f"step-{manifest['step']:012d}":
            raise ValueError("the manifest is another's")
        contents = {}
        for name in (TENSORS, VALUES):
            content = (path / name).read_bytes()
            recorded = manifest["files"][name]
            if hashlib.sha256(content).hexdigest() != recorded["sha256"]:
                raise ValueError("sha256 does not match", name)
            contents[name] = content
        return join(json.loads(contents[VALUES]), load_tensors(contents[TENSORS]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason, file = f"{type(error).__name__} {error}", MANIFEST
        if isinstance(error, ValueError) and len(error.args) == 2:
            reason, file = error.args
        raise StorageFault(
            f"checkpoint {path} is damaged ({reason}): {file}; restore it"
        ) from error


def load_newest(run_dir: Path, which: str = "latest") -> tuple[int, dict[str, Any], list[str]]:
    """The newest checkpoint that is valid (or `best`, or a name), with a warning per damaged one.

    Returns:
        (step, state, warnings).

    Raises:
        StorageFault: none is valid.
    """
    names = sorted(path.name for path in (run_dir / "checkpoints").glob("step-" + "[0-9]" * 12))
    if which not in ("latest", "best"):
        if which not in names:
            raise ConfigError(f"checkpoint: {which} is not in {run_dir}; use latest or best")
        names = [name for name in names if name == which]
    elif which == "best":
        names.sort(key=lambda name: (best_key(run_dir / "checkpoints" / name), name))
    damaged: list[str] = []
    for name in reversed(names):
        try:
            state = load(run_dir / "checkpoints" / name)
        except StorageFault as fault:
            damaged.append(str(fault).rsplit("; ", 1)[0])
            continue
        return int(name[5:]), state, [f"{text}; using {name}" for text in damaged]
    found = damaged[0] if damaged else f"{run_dir} has no checkpoint {which}"
    raise StorageFault(f"{found}; no valid checkpoint is left, restore one from a backup")


def best_key(path: Path) -> float:
    """The evaluation recorded in a checkpoint; -inf where there is none or it cannot be read."""
    try:
        score = json.loads((path / VALUES).read_bytes())["return_mean"]
    except (OSError, ValueError, KeyError, TypeError):
        return float("-inf")
    return float("-inf") if score is None else float(score)


def prune(run_dir: Path, keep: int) -> None:
    """Removes all checkpoints but the newest `keep` and the best."""
    paths = sorted((run_dir / "checkpoints").glob("step-" + "[0-9]" * 12))
    best = max(paths, key=lambda path: (best_key(path), path.name))
    for path in paths[:-keep]:
        if path != best:
            dying = run_dir / f"tmp-{os.getpid()}"
            path.rename(dying)  # first out of sight, so that no half of it is ever there
            shutil.rmtree(dying)


def split(state: Any, path: str = "") -> tuple[Any, dict[str, Tensor]]:
    """A tree of dicts, lists, numbers and tensors -> (the same as JSON, its tensors by name)."""
    if isinstance(state, Tensor):
        return {"tensor": path}, {path: state.detach().cpu().contiguous().clone()}
    tensors: dict[str, Tensor] = {}
    if isinstance(state, dict):
        values: Any = {}
        for name, child in state.items():
            values[name], found = split(child, f"{path}/{name}")
            tensors |= found
        return {"dict": values} if path else values, tensors
    if isinstance(state, (list, tuple)):
        values = []
        for index, child in enumerate(state):
            value, found = split(child, f"{path}/{index}")
            values.append(value)
            tensors |= found
        return values, tensors
    return state, tensors


def join(values: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `split`."""
    if isinstance(values, dict):
        if set(values) == {"tensor"}:
            return tensors[values["tensor"]]
        inner = values["dict"] if set(values) == {"dict"} else values
        return {name: join(child, tensors) for name, child in inner.items()}
    if isinstance(values, list):
        return [join(child, tensors) for child in values]
    return values


def digest(state: dict[str, Any]) -> str:
    """SHA-256 over every tensor and number of a state, with their names."""
    values, tensors = split(state)
    hasher = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    if os.name == "posix":  # elsewhere a directory cannot be opened
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
