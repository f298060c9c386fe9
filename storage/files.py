"""Reading and writing files safely: synced, and recorded by size and SHA-256."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from common.errors import Damaged, StorageFault, remedy

MOST_JSON = 64 << 20  # bytes; larger files are not of this project
MIB = 1 << 20
LOST = {None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO}
LOST.add(getattr(errno, "ESTALE", None))  # missing on Windows

T = TypeVar("T")
Record = dict[str, Any]  # name, size and sha256 of a file


def seal(content: bytes) -> dict[str, Any]:
    """Size and SHA-256 of this content."""
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def damaged(path: Path, reason: str, other_format: bool = False) -> Damaged:
    """The error for a file that is not as it was written; `checkpoint.load` completes it."""
    return Damaged(f"({reason}): {path.name}", other_format=other_format)


@contextmanager
def reading(path: Path, size: int | None = None) -> Iterator[None]:
    """Context in which a file is read, with its recorded size if there is one.

    Raises:
        Damaged: it is missing, a link or of another size, or cannot be read from the disk.
        StorageFault: it cannot be read for lack of handles or permissions.
    """
    try:
        if path.parent.is_symlink() or path.is_symlink() or not path.is_file():
            raise damaged(path, "it is not a file" if path.exists() else "it is missing")
        if size is not None and (found := path.stat().st_size) != size:
            raise damaged(path, f"it has {found:,} bytes, not {size:,}")
        yield
    except OSError as error:
        if error.errno in LOST:
            raise damaged(path, error.strerror or str(error)) from error
        help = "make it readable" if isinstance(error, PermissionError) else "try again"
        raise StorageFault(f"{path}: cannot be read, {error.strerror}; {help}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file without a record; Damaged if it is not a JSON object."""
    with reading(path):
        if path.stat().st_size > MOST_JSON:
            raise damaged(path, "it is too large")
        content = path.read_bytes()
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged(path, f"{type(error).__name__} {error}") from error


def read_sealed(path: Path, record: Record, parse: Callable[[bytes], T]) -> T:
    """The content of a recorded file, read once and parsed; Damaged if it is not as recorded.

    StorageFault if the free memory is less than twice its size, for the content and the result.
    """
    import torch

    from common.limits import limits

    with reading(path, record["size"]):
        needed = 2 * record["size"]
        known = {free: name for name, free in limits(torch.device("cpu"))}
        free = min(known, default=needed)
        left = f" and {known[free]} leaves {free / MIB:,.1f} MiB" if known else ""
        try:
            if needed > free:
                raise MemoryError
            content = path.read_bytes()
            if seal(content)["sha256"] != record["sha256"]:
                raise damaged(path, "sha256 does not match")
            return parse(content)
        except MemoryError as error:
            short = f"to read it takes {needed / MIB:,.1f} MiB of memory{left}"
            raise StorageFault(f"{path}: {short}; free memory for it") from error


def verify(path: Path, record: Record) -> None:
    """Raises Damaged if the file is not the recorded one; reads it in pieces."""
    hasher = hashlib.sha256()
    with reading(path, record["size"]), path.open("rb") as file:
        while piece := file.read(MIB):
            hasher.update(piece)
    if hasher.hexdigest() != record["sha256"]:
        raise damaged(path, "sha256 does not match")


@contextmanager
def writing(what: object, temporary: Path) -> Iterator[None]:
    """Context in which `what` is written; after an error `temporary` is removed: StorageFault."""
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            remove(temporary)
        raise StorageFault(
            f"{what}: cannot be written, {error.strerror}; {remedy(error)}"
        ) from error


def write_synced(path: Path, content: bytes) -> None:
    """Writes and syncs a new file; one of this name, or a link, is replaced."""
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def remove(path: Path) -> None:
    """Removes a file, a link or a whole folder."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def own_folder(path: Path) -> None:
    """Makes the folder if it is missing; OSError if it is a link."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a link, which a run directory does not have", str(path))
    if not path.is_dir():
        path.mkdir(exist_ok=True)  # other ranks do so, too
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Syncs the names in a directory."""
    if os.name == "posix":  # elsewhere a directory cannot be opened
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
