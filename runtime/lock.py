"""One process at a time in a run directory."""

import json
import os
import socket
from pathlib import Path
from types import TracebackType

from runtime.errors import StorageFault

NAME = "lock"


class Lock:
    """Held while it is entered; the system releases it when the process ends, however it ends.

    Raises:
        StorageFault: another process holds it.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / NAME
        self.descriptor: int | None = None

    def __enter__(self) -> "Lock":
        while True:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise StorageFault(
                    f"{self.path}: cannot be opened, {error.strerror}; choose another run_dir"
                ) from error
            if not try_lock(descriptor):
                holder = os.read(descriptor, 200).decode(errors="replace").strip()
                os.close(descriptor)
                raise StorageFault(
                    f"{self.path.parent}: is in use by {holder or 'another process'}; wait for it, "
                    "or end it"
                )
            if same_file(descriptor, self.path):
                break
            os.close(descriptor)  # its holder removed it just now
        os.ftruncate(descriptor, 0)
        os.write(
            descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
        )
        self.descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self.descriptor)


def try_lock(descriptor: int) -> bool:
    """Whether this process now has the file to itself."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def same_file(descriptor: int, path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return (found.st_ino, found.st_dev) == (
        os.fstat(descriptor).st_ino,
        os.fstat(descriptor).st_dev,
    )
