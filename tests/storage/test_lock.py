"""One process at a time in a run directory, on every system."""

import os
import sys
from contextlib import ExitStack
from threading import Timer
from types import SimpleNamespace

import pytest

from common.errors import StorageFault
from storage import lock
from storage.lock import locked


def windows(monkeypatch):
    """Locks as there: of one byte, from where the file stands, which nobody else may read."""
    held, read = {}, os.read

    def locking(descriptor, mode, count):
        place = (os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR))
        if held.setdefault(place, descriptor) != descriptor:
            raise PermissionError(13, "Permission denied")

    def guarded(descriptor, count):
        start, inode = os.lseek(descriptor, 0, os.SEEK_CUR), os.fstat(descriptor).st_ino
        if any(place == inode and start <= byte < start + count for place, byte in held):
            raise PermissionError(13, "Permission denied")
        return read(descriptor, count)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking))
    monkeypatch.setattr(os, "read", guarded)


def test_where_the_file_system_keeps_no_locks_the_run_begins_with_a_warning(
    tmp_path, monkeypatch, capsys
):
    fcntl = pytest.importorskip("fcntl")

    def unknown(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with locked(tmp_path):
        pass
    assert "has no locks, Function not implemented" in capsys.readouterr().err


@pytest.mark.parametrize("system", [lambda monkeypatch: None, windows])
def test_the_second_is_told_who_was_first(system, tmp_path, monkeypatch):
    system(monkeypatch)
    taken = f"is in use by process {os.getpid()} on "
    with locked(tmp_path), pytest.raises(StorageFault, match=taken), locked(tmp_path):
        pass
    assert not (tmp_path / "lock").exists()


def test_who_has_patience_waits_for_the_first(tmp_path):
    with ExitStack() as first:
        first.enter_context(locked(tmp_path))
        Timer(0.02, first.close).start()
        with locked(tmp_path, 60.0):
            pass


def test_a_file_that_its_holder_has_just_removed_locks_nobody_out(tmp_path, monkeypatch):
    """Whoever has opened it would hold a file that no other process finds."""
    real, calls = lock.try_lock, []

    def late(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / lock.NAME).unlink()
        return real(descriptor)

    monkeypatch.setattr(lock, "try_lock", late)
    with locked(tmp_path):
        assert f"process {os.getpid()} on " in (tmp_path / lock.NAME).read_text()
    assert len(calls) == 2
