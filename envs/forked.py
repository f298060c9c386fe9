"""Loaded by the process that workers are forked from: the environments' side, once for all of them.

While that takes its seconds, neither that process nor a new worker can yet tell in the usual way
that its parent has gone. Until then a timer of the system's looks.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from types import TracebackType

PARENT = "LOGPI_PARENT"  # environment variable: the process that the workers are for
BOUND = "LOGPI_BOUND"  # environment variable: whether its main thread begins them
EVERY = 0.1  # seconds
PR_SET_PDEATHSIG = 1  # of Linux's prctl


def watch(parent: int) -> None:
    """From now on this process ends soon after its parent has."""

    def look(*_: object) -> None:
        if os.getppid() != parent:
            os._exit(1)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)


def bind() -> None:
    """Lets the system kill this process with its parent, whatever it is doing: it may be stopped,
    or in C code that lets no other thread look. Linux alone can do so."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Shows what a worker dies of, unless its parent has taken back what the worker is made of: a
    signal may come while workers are begun."""
    last = trace
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = "" if last is None else last.tb_frame.f_globals.get("__name__", "")
    if not (isinstance(error, (OSError, EOFError)) and where.startswith("multiprocessing.")):
        sys.__excepthook__(kind, error, trace)


def rest() -> None:
    """It can tell by itself."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def load(parent: int) -> None:
    """Loads; every worker begins its life watched."""
    own = os.getpid()
    watch(parent)
    if BOUND in os.environ:
        bind()
    sys.excepthook = tell
    os.register_at_fork(after_in_child=lambda: watch(own))
    import_module("envs.backends")  # by its name: it imports this module
    rest()


if PARENT in os.environ:
    load(int(os.environ[PARENT]))
