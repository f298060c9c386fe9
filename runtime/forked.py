"""Loaded by the process that workers are forked from: the environments' side, once for all of them.

While that takes its seconds, neither that process nor a new worker can yet tell in the usual way
that its parent has gone. Until then a timer of the system's looks.
"""

import os
import signal

PARENT = "LOGPI_PARENT"  # environment variable: the process that the workers are for
EVERY = 0.1  # seconds


def watch(parent: int) -> None:
    """From now on this process ends soon after its parent has."""

    def look(*_: object) -> None:
        if os.getppid() != parent:
            os._exit(1)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)


def rest() -> None:
    """It can tell by itself."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def load(parent: int) -> None:
    """Loads; every worker begins its life watched."""
    own = os.getpid()
    watch(parent)
    os.register_at_fork(after_in_child=lambda: watch(own))
    import runtime.backends  # noqa: F401

    rest()


if PARENT in os.environ:
    load(int(os.environ[PARENT]))
