"""One contestant in a process of its own: `python -m bench.benchmark.worker '{"kind": ...}'`.

Builds, warms up, says so, and then trains K more steps for every line `run K` on its input; each
answer is a line of JSON. Between two lines it waits and uses no processor time.
"""

import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Protocol, TextIO

from bench.benchmark.contestants import Spec


class Runner(Protocol):
    """What a contestant is."""

    about: dict[str, Any]

    def run(self, steps: int) -> dict[str, Any]:
        """Trains at least `steps` more steps; returns `steps`, `updates` and what else there is."""

    def close(self) -> None: ...


def make(spec: Spec, folder: Path) -> Runner:
    """The contestant that the spec describes; imports only what that one needs."""
    kind = spec["kind"]
    if kind == "peer":
        from bench.benchmark.peers import Peer

        return Peer(spec, folder)
    if kind == "floor":
        from bench.benchmark.floor import Floor

        return Floor(spec, folder)
    from bench.benchmark import ours

    kinds: dict[str, type[ours.Loop]] = {
        "loop": ours.Loop,
        "update": ours.Update,
        "around": ours.Around,
        "profile": ours.Profile,
    }
    return kinds[kind](spec, folder)


def serve(spec: Spec, questions: TextIO, answers: TextIO, folder: Path) -> None:
    """Answers until the input ends."""

    def answer(values: dict[str, Any]) -> None:
        print(json.dumps(values), file=answers, flush=True)

    started = perf_counter()
    runner = make(spec, folder)
    try:
        rate = warm_up(runner, int(spec["warmup"]))
        answer({**runner.about, "steps_per_second": rate, "warmup": perf_counter() - started})
        cpu = process_time()
        for question in questions:
            idle = process_time() - cpu
            done, seconds, busy = timed(runner, int(question.removeprefix("run ")))
            answer({**done, "seconds": seconds, "cpu": busy, "idle_cpu": idle})
            cpu = process_time()
    finally:
        runner.close()


def warm_up(runner: Runner, steps: int) -> float:
    """Runs `steps` steps, in two halves; returns the steps per second of the second."""
    if not steps:
        return 0.0
    runner.run(steps - steps // 2)
    done, seconds, _ = timed(runner, steps // 2)
    return done["steps"] / seconds


def timed(runner: Runner, steps: int) -> tuple[dict[str, Any], float, float]:
    """(what the run returned, its seconds, the processor's seconds over all threads)."""
    started, cpu = perf_counter(), process_time()
    done = runner.run(steps)
    return done, perf_counter() - started, process_time() - cpu


def main(arguments: list[str]) -> int:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    with tempfile.TemporaryDirectory() as folder:
        serve(json.loads(arguments[0]), sys.stdin, answers, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
