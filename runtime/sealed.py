"""Files that are known by their size and SHA-256: whatever differs is damage, and is named."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

FORMAT = 2
TENSORS, VALUES, MANIFEST = "state.safetensors", "state.json", "manifest.json"
MOST_JSON = 64 << 20  # bytes; what is larger was not written here

Record = dict[str, Any]  # name, size and sha256 of a file


class Damage(ValueError):
    """(file, reason)."""

    def __str__(self) -> str:
        return f"({self.args[1]}): {self.args[0]}"


def seal(content: bytes) -> dict[str, Any]:
    """What a file is known by."""
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def seal_of(manifest: dict[str, Any]) -> str:
    """The hash of what a manifest says, however it is spelled."""
    said = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def open_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint; raises Damage where it is not one, or another's."""
    try:
        content = read_file(path, MANIFEST)
        manifest = json.loads(content)
        if manifest["format"] != FORMAT or path.name != f"step-{manifest['step']:012d}":
            raise ValueError("is another's")
        if manifest["sha256"] != seal_of(manifest):
            raise Damage(MANIFEST, "sha256 does not match")
        if sorted(manifest["files"]) != sorted((TENSORS, VALUES)):
            raise ValueError("names other files")
        for record in manifest["segments"]:
            if Path(record["name"]).name != record["name"]:
                raise ValueError("names a file elsewhere")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, Damage):
            raise
        raise Damage(MANIFEST, f"{type(error).__name__} {error}") from error
    return dict(manifest)


def read_file(folder: Path, name: str) -> bytes:
    """A file's content; raises Damage where it is missing, a link, or JSON of absurd size."""
    path = folder / name
    try:
        if folder.is_symlink() or path.is_symlink() or not path.is_file():
            raise Damage(name, "it is not a file" if path.exists() else "it is missing")
        if name.endswith(".json") and path.stat().st_size > MOST_JSON:
            raise Damage(name, "it is too large")
        return path.read_bytes()
    except OSError as error:
        raise Damage(name, str(error)) from error


def read_sealed(folder: Path, name: str, sealed: dict[str, Any]) -> bytes:
    """A file's content, which has the size and the hash recorded and fits; raises Damage."""
    import torch

    from runtime.memory import limits

    verify(folder, {**sealed, "name": name}, size_only=True)
    free = [bytes_ for _, bytes_ in limits(torch.device("cpu"))]
    if free and sealed["size"] > min(free):
        raise Damage(name, "it is larger than the memory that is free")
    content = read_file(folder, name)
    if hashlib.sha256(content).hexdigest() != sealed["sha256"]:
        raise Damage(name, "sha256 does not match")
    return content


def verify(folder: Path, record: Record, size_only: bool = False) -> None:
    """Raises Damage where the file is not the recorded one; reads it piece by piece."""
    path, name = folder / record["name"], record["name"]
    try:
        if folder.is_symlink() or path.is_symlink() or not path.is_file():
            raise Damage(name, "it is not a file" if path.exists() else "it is missing")
        if path.stat().st_size != record["size"]:
            raise Damage(name, "sha256 does not match")  # nor the size
        if size_only:
            return
        hasher = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                hasher.update(piece)
    except OSError as error:
        raise Damage(name, str(error)) from error
    if hasher.hexdigest() != record["sha256"]:
        raise Damage(name, "sha256 does not match")


def write_synced(path: Path, content: bytes) -> None:
    """Writes a new file, through to the disk; a link that has its name is replaced."""
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def own_folder(path: Path) -> Path:
    """The folder, made where it is missing; OSError where it is a link to who knows where."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a link, which a run directory does not have", str(path))
    if not path.is_dir():
        path.mkdir(exist_ok=True)  # other ranks make it, too
        sync_directory(path.parent)
    return path


def sync_directory(path: Path) -> None:
    if os.name == "posix":  # elsewhere a directory cannot be opened
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
