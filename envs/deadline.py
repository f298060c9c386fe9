"""A deadline for calls of environments in this process."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from common.errors import EnvironmentFault

MAKING = 60.0  # seconds that an environment has at least to load its modules and be made


@contextmanager
def within(seconds: float | None, env_id: str, where: str) -> Iterator[None]:
    """Context that raises EnvironmentFault after a time, if the system has a timer."""
    main = threading.current_thread() is threading.main_thread()
    if seconds is None or not main or not hasattr(signal, "setitimer"):
        yield
        return

    def late(number: int, frame: FrameType | None) -> None:
        raise EnvironmentFault(
            f"env {env_id}: has not answered for {seconds:g} s {where}; raise env.timeout above "
            f"that, for evaluate.py in config.yaml of the run, or fix the environment"
        )

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again, should the first be caught
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
