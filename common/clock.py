"""Time spent on training itself."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds since it was started, without those in which it was paused."""

    started: float = field(default_factory=lambda: time.perf_counter())  # tests replace it
    paused: float = 0.0
    stopped: float | None = None  # when the present pause began

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Context whose time does not count: an evaluation, an audit, a checkpoint."""
        self.stopped = begun = time.perf_counter()
        try:
            yield
        finally:
            self.stopped = None
            self.paused += time.perf_counter() - begun

    def elapsed(self) -> float:
        now = time.perf_counter() if self.stopped is None else self.stopped
        return now - self.started - self.paused
