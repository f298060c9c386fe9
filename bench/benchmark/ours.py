"""Ours as a contestant: the parts and the loop of `train.py`, run as many steps as asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.benchmark.contestants import Spec

BATCHES = 16  # different ones, between which an update alone goes round


class Loop:
    """The training loop with its logger, in a folder of its own; evaluates and saves nothing.

    Args:
        spec: `overrides`, as on the command line of `train.py`.
        folder: where TensorBoard events go.
    """

    def __init__(self, spec: Spec, folder: Path) -> None:
        from configs.compose import train_config
        from runtime.build import make_parts
        from runtime.console import Progress
        from runtime.logger import Logger
        from runtime.saver import Saver
        from runtime.schedule import Schedule

        class Unsaved(Schedule):
            """Without audits and checkpoints."""

            def audit(self, step: int) -> None: ...

            def checkpoint(self, step: int, final: bool = False) -> None: ...

        config = train_config(spec["overrides"])
        self.parts = make_parts(config)
        self.about = {"threads": int(config.threads), "accelerate": str(config.accelerate)}
        self.schedule = Unsaved(
            config,
            self.parts,
            Saver(folder, config, self.parts, started=0.0),
            Logger(folder, device=self.parts.agent.device),
            Progress(config.total_steps),
        )
        self.step = 0

    def run(self, steps: int) -> dict[str, Any]:
        """Trains at least `steps` more steps; returns how many, and the updates among them."""
        from runtime.loop import advance

        parts, schedule = self.parts, self.schedule
        first, updates = self.step, schedule.record.updates
        while self.step < first + steps:
            self.step = advance(parts.agent, parts.envs, parts.buffer, schedule, self.step)
        return {"steps": self.step - first, "updates": schedule.record.updates - updates}

    def close(self) -> None:
        self.schedule.logger.close()
        self.parts.close()


class Update(Loop):
    """The update alone, on batches drawn before; a step is an update."""

    def __init__(self, spec: Spec, folder: Path) -> None:
        super().__init__(spec, folder)
        super().run(int(spec["warmup"]))
        self.batches = [self.parts.buffer.sample() for _ in range(BATCHES)]

    def run(self, steps: int) -> dict[str, Any]:
        for index in range(steps):
            self.parts.agent.update(self.batches[index % BATCHES])
        return {"steps": steps, "updates": steps}


class Clocks:
    """Seconds spent in named parts, each without the parts inside it."""

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
        self.now = now
        self.spent: dict[str, float] = {}
        self.open: list[str] = []
        self.since = now()

    def switch(self) -> None:
        """Books the time since the last switch on the innermost open part."""
        now = self.now()
        if self.open:
            name = self.open[-1]
            self.spent[name] = self.spent.get(name, 0.0) + now - self.since
        self.since = now

    def enter(self, name: str) -> None:
        self.switch()
        self.open.append(name)

    def leave(self) -> None:
        self.switch()
        self.open.pop()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def wrap(self, owner: Any, method: str, name: str) -> None:
        """Lets `owner.method` book its time on `name`."""
        inner = getattr(owner, method)

        def outer(*given: Any, **options: Any) -> Any:
            self.enter(name)  # not with `part`, which takes three times as long
            try:
                return inner(*given, **options)
            finally:
                self.leave()

        setattr(owner, method, outer)

    def wrap_iterator(self, owner: Any, method: str, name: str) -> None:
        """The same for a method that yields: what happens between its items is not its time."""
        inner = getattr(owner, method)

        def outer() -> Iterator[Any]:
            items = iter(inner())
            while True:
                with self.part(name):
                    item = next(items, None)
                if item is None:
                    return
                yield item

        setattr(owner, method, outer)


class Around(Loop):
    """The loop with one clock, around the update; a run also returns the seconds of each part."""

    def __init__(self, spec: Spec, folder: Path) -> None:
        super().__init__(spec, folder)
        self.clocks = Clocks()
        self.clocks.wrap(self.parts.agent, "update", "update")

    def run(self, steps: int) -> dict[str, Any]:
        self.clocks.spent.clear()
        with self.clocks.part("the loop itself"):
            done = super().run(steps)
        return {**done, "parts": dict(self.clocks.spent)}


class Profile(Around):
    """The same with clocks around all parts."""

    def __init__(self, spec: Spec, folder: Path) -> None:
        super().__init__(spec, folder)
        clocks = self.clocks
        agent, envs, schedule = self.parts.agent, self.parts.envs, self.schedule
        wrap = clocks.wrap
        wrap(agent, "act", "act")
        wrap(agent, "explore", "act")
        wrap(envs, "step", "step: checks and copies")
        wrap(envs.backend, "step", "step: Gymnasium")
        wrap(agent, "observe", "observe")
        wrap(self.parts.buffer, "add", "add")
        clocks.wrap_iterator(self.parts.buffer, "batches", "sample")
        wrap(schedule, "updated", "metrics")
        wrap(schedule, "due", "metrics")
        wrap(schedule.logger, "flush", "log, once per interval")
