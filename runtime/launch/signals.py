"""Signals are noted and obeyed between two steps, never in the middle of one."""

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
    """Once installed, it notes SIGTERM, SIGUSR1, SIGHUP and SIGINT; `check` raises what was noted.

    Between `open` and `hold` nothing can be lost, and a signal ends the program at once; so does a
    second one at any time. Where another command of ours began the run, what a terminal sends to
    all of them comes again from there: that is no second one.
    """

    def __init__(self) -> None:
        self.noted: Stopped | None = None
        self.came = 0.0  # when
        self.echo = ECHO if PASSED_ON in os.environ else 0.0
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


def passing_on() -> dict[str, str]:
    """The environment variables of a run that this process begins, and passes its signals on to."""
    return {**os.environ, PASSED_ON: "1"}


class AgreedStop(Stop):
    """A signal to any rank stops them all after the same step.

    A second one changes nothing: torchrun passes on every signal to all, as the terminal does.
    """

    def __init__(self, own: Stop, ranks: "Ranks") -> None:
        super().__init__()
        self.own, self.ranks = own, ranks
        own.patient = ranks.size > 1

    def check(self) -> None:
        """Raises Stopped on all ranks where a signal has come to one of them."""
        noted = self.own.noted
        code = self.ranks.most(noted.code if noted else 0)
        if code:
            raise noted or Stopped("stopped: by a signal to another rank", code)
