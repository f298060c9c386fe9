"""Files on a disk that may fail: written through to it, and known by their size and SHA-256."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from common.errors import StorageFault

MOST_JSON = 64 << 20  # bytes; what is larger was not written here
FORBIDDEN = (errno.EACCES, errno.EPERM)
LOST = (
    *(None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO),
    getattr(errno, "ESTALE", errno.EIO),
)

T = TypeVar("T")
Record = dict[str, Any]  # name, size and sha256 of a file


class Damage(ValueError):
    """A file is not what was written.

    Args:
        file, reason: which, and how that is seen.
        other_format: whether another revision may have written it so.
    """

    def __init__(self, file: str, reason: str, other_format: bool = False) -> None:
        super().__init__(f"({reason}): {file}")
        self.other_format = other_format


def seal(content: bytes) -> dict[str, Any]:
    """Size and SHA-256 of a file with this content."""
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


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
        remedy = "make it readable" if error.errno in FORBIDDEN else "try again"
        raise StorageFault(f"{path}: cannot be read, {error.strerror}; {remedy}") from error


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
    """A file of the size and the hash recorded, read once and parsed.

    Raises:
        Damage: it differs.
        StorageFault: there is not the memory for its content, and once more for what is parsed.
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
    """So many bytes are allocated inside; StorageFault where they are not free."""
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
    """Writes a new file, through to the disk; a link of this name is replaced."""
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def own_folder(path: Path) -> Path:
    """The folder, made where it is missing; OSError where it is a link."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a link, which a run directory does not have", str(path))
    if not path.is_dir():
        path.mkdir(exist_ok=True)  # other ranks make it, too
        sync_directory(path.parent)
    return path


def sync_directory(path: Path) -> None:
    """Writes the names in a directory through to the disk."""
    if os.name == "posix":  # elsewhere a directory cannot be opened
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
