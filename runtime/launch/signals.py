"""Signals end a run between two steps, never in the middle of one."""

import os
import signal
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING

from common.errors import Halt, Stopped

if TYPE_CHECKING:
    from runtime.launch.ranks import Ranks

CODES = {"SIGTERM": 75, "SIGUSR1": 75, "SIGHUP": 75, "SIGINT": 130}
PASSED_ON = "LOGPI_SIGNALS_PASSED_ON"  # an environment variable
ECHO = 1.0  # seconds


class Stop:
    """Notes SIGTERM, SIGUSR1, SIGHUP and SIGINT once installed; `check` raises the first of them.

    Between `open` and `hold` nothing can be lost, and a signal ends the program at once; a second
    one does so at any time. If another command of ours began the run, a signal that a terminal
    sends to all processes arrives from there again; this one does not count as the second.
    """

    def __init__(self) -> None:
        self.noted: Stopped | None = None
        self.came = 0.0  # when
        self.echo = ECHO if PASSED_ON in os.environ else 0.0
        self.at_once = False
        self.patient = False  # a second signal changes nothing

    def install(self) -> "Stop":
        """Handles the signals for the life of the process; SIGHUP not under `nohup`."""
        if threading.current_thread() is threading.main_thread():
            for name in CODES:
                if not hasattr(signal, name):
                    continue
                number = getattr(signal, name)
                if name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, self.note)
        return self

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler; it never blocks."""
        if self.noted is not None:
            if self.patient or time.monotonic() - self.came < self.echo:
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

    def hold(self) -> None:
        """From now on leaves a signal to `check`."""
        self.at_once = False

    def check(self) -> None:
        """Raises Stopped if a signal has arrived."""
        if self.noted is not None:
            raise self.noted


def passing_on() -> dict[str, str]:
    """The environment variables of a run that this process starts and passes signals on to."""
    return {**os.environ, PASSED_ON: "1"}


class AgreedStop(Stop):
    """Stops all ranks after the same step on a signal to any of them.

    A second one changes nothing: torchrun passes every signal on to all, as a terminal does.
    """

    def __init__(self, own: Stop, ranks: "Ranks") -> None:
        super().__init__()
        self.own, self.ranks = own, ranks
        own.patient = ranks.size > 1

    def check(self) -> None:
        """Raises Stopped on all ranks if a signal has arrived at one of them."""
        noted = self.own.noted
        code = self.ranks.most(noted.code if noted else 0)
        if code:
            raise noted or Stopped("stopped: by a signal to another rank", code)
