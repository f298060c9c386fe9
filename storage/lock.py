"""One process at a time in a run directory."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from common.errors import StorageFault, remedy

NAME = "lock"
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
BEYOND = 1 << 20  # the byte that Windows locks; nobody else may read it, so it is none of the name


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Holds the directory; the system releases it when the process ends, however it ends.

    Raises:
        StorageFault: another process holds it; wait for it, or end it.
    """
    path = run_dir / NAME
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o666)
        except OSError as error:
            why = f"cannot be opened, {error.strerror}"
            raise StorageFault(f"{path}: {why}; {remedy(error)}") from error
        if not try_lock(descriptor):
            holder = named(os.read(descriptor, 200))
            os.close(descriptor)
            raise StorageFault(f"{run_dir}: is in use by {holder}; wait for it, or end it")
        if is_at(descriptor, path):
            break
        os.close(descriptor)  # its holder removed it just now
    try:
        with suppress(OSError):  # on a full disk it is held without a name
            os.ftruncate(descriptor, 0)
            holding = {"pid": os.getpid(), "host": socket.gethostname()}
            os.write(descriptor, json.dumps(holding).encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def named(content: bytes) -> str:
    """The holder of a lock, from what it wrote there."""
    try:
        holder = json.loads(content)
        return f"process {int(holder['pid'])} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def try_lock(descriptor: int) -> bool:
    """Whether this process now has the file to itself, or the file system has no locks."""
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
        print(
            f"warning: this file system keeps no locks, {error.strerror}; see to it that no second "
            "process uses the run directory",
            file=sys.stderr,
        )
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
