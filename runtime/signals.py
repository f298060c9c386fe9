"""Signals are noted and obeyed between two steps, never in the middle of one."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from runtime.errors import Halt, Stopped

CODES = {"SIGTERM": 75, "SIGUSR1": 75, "SIGINT": 130}


class Stop:
    """While it is entered, SIGTERM, SIGUSR1 and SIGINT are noted; `check` raises what was noted.

    Before `hold` is called nothing can be lost, and a signal ends the program at once; so does the
    second one in any case.
    """

    def __init__(self) -> None:
        self.noted: Stopped | None = None
        self.holding = False
        self.old: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for name in CODES:
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self.old[number] = signal.signal(number, self.note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler; does nothing that could wait for anything."""
        if self.noted is not None:
            os._exit(128 + number)
        name = signal.Signals(number).name
        what = "interrupted" if name == "SIGINT" else "stopped"
        self.noted = Stopped(f"{what}: by {name}; nothing was begun, start again", CODES[name])
        if not self.holding:
            raise Halt(self.noted)

    def hold(self) -> None:
        """From now on a signal waits for `check`."""
        self.holding = True

    def check(self) -> None:
        """Raises Stopped where a signal has come."""
        if self.noted is not None:
            raise self.noted
