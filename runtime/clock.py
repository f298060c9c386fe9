"""Time spent on training itself."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds since it was started, without those in which it was paused."""

    started: float = field(default_factory=lambda: time.perf_counter())  # as it is by then
    paused: float = 0.0

    @contextmanager
    def pause(self) -> Iterator[None]:
        """For evaluations, audits and checkpoints, finished or not."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.paused += time.perf_counter() - begun

    def elapsed(self) -> float:
        return time.perf_counter() - self.started - self.paused
