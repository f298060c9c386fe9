"""Signals end a run between two steps, never in the middle of one."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any

from common.errors import Halt, Stopped

CODES = {"SIGTERM": 75, "SIGUSR1": 75, "SIGHUP": 75, "SIGINT": 130}
PASSED_ON = "LOGPI_SIGNALS_PASSED_ON"  # an environment variable
ECHO = 1.0  # seconds


def numbers(names: Iterable[str]) -> list[int]:
    """Those of the signals that this system has; not of SIGHUP under `nohup`."""
    there = [name for name in names if hasattr(signal, name)]
    if "SIGHUP" in there and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        there.remove("SIGHUP")
    return [getattr(signal, name) for name in there]


def passing_on() -> dict[str, str]:
    """The environment variables of a run that this process starts and passes signals on to."""
    return {**os.environ, PASSED_ON: "1"}


class Stop:
    """Notes SIGTERM, SIGUSR1, SIGHUP and SIGINT once installed; `check` raises the first of them.

    Between `open` and `hold` nothing can be lost, and a signal ends the program at once; a second
    one does so at any time. If another command of ours began the run, a signal that a terminal
    sends to all processes arrives from there again; within `echo` it does not count as the second.
    """

    def __init__(self) -> None:
        self.noted: Stopped | None = None
        self.came = 0.0  # when
        self.echo = ECHO if PASSED_ON in os.environ else 0.0  # seconds
        self.at_once = False
        self.before: dict[int, Any] = {}  # the handlers that were there

    def install(self) -> "Stop":
        """Handles the signals until `restore`."""
        if threading.current_thread() is threading.main_thread():
            for number in numbers(CODES):
                self.before[number] = signal.signal(number, self.note)
        return self

    def restore(self) -> None:
        """Sets back the handlers in an interactive process, which continues after the run.

        Any other one is about to end, and a signal that comes meanwhile changes nothing.
        """
        if hasattr(sys, "ps1") or "IPython" in sys.modules:
            for number, handler in self.before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler; it never blocks."""
        if self.noted is not None:
            if time.monotonic() - self.came < self.echo:
                return
            os._exit(128 + number)
        self.came = time.monotonic()
        name = signal.Signals(number).name
        what = "interrupted" if name == "SIGINT" else "stopped"
        self.noted = Stopped(
            f"{what}: by {name}; nothing is lost, give the command again", CODES[name]
        )
        if self.at_once:
            raise Halt(self.noted)

    def open(self) -> None:
        """From now on raises a signal where it arrives; raises one that has arrived before."""
        self.at_once = True
        self.check()

    def hold(self, ranks: int = 1) -> None:
        """Leaves a signal to `check` from now on; with several ranks a second changes nothing."""
        self.at_once = False
        if ranks > 1:
            self.echo = math.inf  # torchrun passes every signal on to all, as a terminal does

    def check(self) -> None:
        """Raises Stopped if a signal has arrived."""
        if self.noted is not None:
            raise self.noted
