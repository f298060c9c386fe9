"""Files that are known by their size and SHA-256: whatever differs is damage, and is named."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from common.errors import StorageFault

FORMAT, OTHER_FORMAT = 2, "its format is"
TENSORS, VALUES, MANIFEST = "state.safetensors", "state.json", "manifest.json"
MOST_JSON = 64 << 20  # bytes; what is larger was not written here
FORBIDDEN = (errno.EACCES, errno.EPERM)
LOST = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO,
        getattr(errno, "ESTALE", errno.EIO))  # fmt: skip

T = TypeVar("T")
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
        if manifest["format"] != FORMAT:
            raise Damage(
                MANIFEST, f"{OTHER_FORMAT} {manifest['format']}, and {FORMAT} is read here"
            )
        if path.name != f"step-{manifest['step']:012d}":
            raise Damage(MANIFEST, f"it is that of step {manifest['step']}")
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


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """A file is read inside: Damage where the disk has lost it, StorageFault where all else fails.

    A good file is not called damaged because memory, handles or rights are short.
    """
    try:
        yield
    except OSError as error:
        if error.errno in LOST:
            raise Damage(path.name, error.strerror or str(error)) from error
        raise StorageFault(
            f"{path}: cannot be read, {error.strerror}; "
            + ("make it readable" if error.errno in FORBIDDEN else "try again")
        ) from error


def read_file(folder: Path, name: str) -> bytes:
    """A file's content; raises Damage where it is missing, a link, or JSON of absurd size."""
    path = folder / name
    with reading(path):
        size = size_of(folder, name)
        if name.endswith(".json") and size > MOST_JSON:
            raise Damage(name, "it is too large")
        return path.read_bytes()


def size_of(folder: Path, name: str) -> int:
    """A file's size in bytes; raises Damage where it is missing, or a link."""
    path = folder / name
    if folder.is_symlink() or path.is_symlink() or not path.is_file():
        raise Damage(name, "it is not a file" if path.exists() else "it is missing")
    return path.stat().st_size


def read_sealed(folder: Path, name: str, sealed: dict[str, Any], parse: Callable[[bytes], T]) -> T:
    """What is in a file, which has the size and the hash recorded; read once.

    Raises:
        Damage: it differs.
        StorageFault: there is not the memory to hold it, and once more what is in it.
    """
    with reading(folder / name):
        require_size(folder, name, sealed["size"])
    with room_for(folder / name, 2 * sealed["size"]):
        content = read_file(folder, name)
        if hashlib.sha256(content).hexdigest() != sealed["sha256"]:
            raise Damage(name, "sha256 does not match")
        return parse(content)


@contextmanager
def room_for(what: Path, needed: int) -> Iterator[None]:
    """So many bytes are taken inside; StorageFault where they are not free, before or then."""
    import torch

    from common.limits import limits

    free = sorted((bytes_, name) for name, bytes_ in limits(torch.device("cpu")))
    left = f" and {free[0][1]} leaves {mebibytes(free[0][0])}" if free else ""
    short = f"{what}: to read it takes {mebibytes(needed)} of memory{left}; free memory for it"
    if free and needed > free[0][0]:
        raise StorageFault(short)
    try:
        yield
    except MemoryError as error:
        raise StorageFault(short) from error


def mebibytes(count: int) -> str:
    return f"{count / (1 << 20):,.1f} MiB"


def require_size(folder: Path, name: str, size: int) -> None:
    """Raises Damage where a file has not the size recorded."""
    if (found := size_of(folder, name)) != size:
        raise Damage(name, f"it has {found:,} bytes, not {size:,}")


def verify(folder: Path, record: Record) -> None:
    """Raises Damage where the file is not the recorded one; reads it piece by piece."""
    name, hasher = record["name"], hashlib.sha256()
    with reading(folder / name):
        require_size(folder, name, record["size"])
        with (folder / name).open("rb") as file:
            while piece := file.read(1 << 20):
                hasher.update(piece)
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
