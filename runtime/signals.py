"""Signals are noted and obeyed between two steps, never in the middle of one."""

import os
import signal
import threading
from types import FrameType

from runtime.errors import Halt, Stopped

CODES = {"SIGTERM": 75, "SIGUSR1": 75, "SIGHUP": 75, "SIGINT": 130}


class Stop:
    """Once installed, it notes SIGTERM, SIGUSR1, SIGHUP and SIGINT; `check` raises what was noted.

    Between `open` and `hold` nothing can be lost, and a signal ends the program at once; so does a
    second one at any time.
    """

    def __init__(self) -> None:
        self.noted: Stopped | None = None
        self.at_once = False
        self.patient = False  # a second signal changes nothing

    def install(self) -> "Stop":
        """Takes the signals over for the life of the process; SIGHUP not under `nohup`."""
        if threading.current_thread() is threading.main_thread():
            for name in CODES:
                if not hasattr(signal, name):
                    continue
                number = getattr(signal, name)
                if name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, self.note)
        return self

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler; does nothing that could wait for anything."""
        if self.noted is not None:
            if self.patient:
                return
            os._exit(128 + number)
        name = signal.Signals(number).name
        what = "interrupted" if name == "SIGINT" else "stopped"
        self.noted = Stopped(
            f"{what}: by {name}; nothing is lost, give the command again", CODES[name]
        )
        if self.at_once:
            raise Halt(self.noted)

    def open(self) -> None:
        """From now on a signal is raised where it comes, one that has come here."""
        self.at_once = True
        self.check()

    def hold(self) -> None:
        """From now on a signal waits for `check`."""
        self.at_once = False

    def check(self) -> None:
        """Raises Stopped where a signal has come."""
        if self.noted is not None:
            raise self.noted
