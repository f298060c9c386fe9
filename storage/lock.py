"""One process at a time in a run directory."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from common.errors import StorageFault, remedy, warn

NAME = "lock"
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
BEYOND = 1 << 20  # the byte that Windows locks, behind the text, which others may then read


@contextmanager
def locked(run_dir: Path, patience: float = 0.0) -> Iterator[None]:
    """Context that locks the directory; the system unlocks it when the process ends in any way.

    Raises StorageFault if another process has locked it, for so many seconds of `patience`.
    """
    path, until = run_dir / NAME, time.monotonic() + patience
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o666)
        except OSError as error:
            why = f"cannot be opened, {error.strerror}"
            raise StorageFault(f"{path}: {why}; {remedy(error)}") from error
        if not try_lock(descriptor):
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            if time.monotonic() < until:
                time.sleep(0.05)
                continue
            raise StorageFault(f"{run_dir}: is in use by {holder}; wait for it, or end it")
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        os.close(descriptor)  # the file was removed meanwhile
    try:
        with suppress(OSError):  # on a full disk the lock has no text
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Whether the file is now locked by this process, or the file system has no locks."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        msvcrt: Any = import_module("msvcrt")
        os.lseek(descriptor, BEYOND, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        why = f"this file system has no locks, {error.strerror}"
        warn(f"{why}; do not use the run directory in a second process")
    return True
