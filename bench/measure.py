"""From contestants to numbers: one process each, of which only one works at a time.

Peak memory counts from a child's fork, so this process stays smaller than any child: nothing here
imports torch.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.comparisons import Side, Spec, ours_sac, threads_text
from bench.contestant import Curve, solved
from common.errors import LogpiError
from configs.compose import quoted

ROOT = Path(__file__).resolve().parents[1]
CONTESTANT = ("-m", "bench.contestant")
KIB = 1024
PATIENCE = 10.0  # seconds that a contestant has to end
AROUND_BLOCKS, AROUND_STEPS = 5, 800  # steps of a block, with one log in it
AROUND_WIDTHS = (256, 64)
Result = dict[str, Any]
Say = Callable[[str], None]


class Worker:
    """A contestant's process; it is warm when this returns, and waits."""

    def __init__(self, spec: Spec) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by close()
        self.process = subprocess.Popen(
            [sys.executable, *CONTESTANT, json.dumps(spec)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.questions: Any = self.process.stdin
        self.answers: Any = self.process.stdout
        self.about = self.answer()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, steps: int) -> Result:
        """Trains `steps` more steps; returns steps, updates, seconds and processor time."""
        print(f"run {steps}", file=self.questions, flush=True)
        return self.answer()

    def answer(self) -> Result:
        if line := self.answers.readline():
            return dict(json.loads(line))
        self.process.wait()
        raise LogpiError(f"bench: a contestant ended, {last_line(self.errors)}; fix it")

    def close(self) -> None:
        """Ends its input, and so the process; one that is in the middle of work is stopped."""
        self.questions.close()
        self.answers.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()


def last_line(errors: Any) -> str:
    """The last line that a process wrote to its standard error."""
    errors.seek(0)
    return (errors.read().strip().splitlines() or ["without a word"])[-1]


def rates(sides: tuple[Side, ...], blocks: int, seconds: float, say: Say) -> list[Result]:
    """Steps per second of each side in `blocks` blocks of about `seconds`, A B A B ..."""
    with ExitStack() as stack:
        workers = []
        for side in sides:
            say(f"warming up {side.name} {side.variant}")
            workers.append(stack.enter_context(Worker(side.spec)))
        abouts = [worker.about for worker in workers]
        steps = [max(1, round(about["steps_per_second"] * seconds)) for about in abouts]
        measured: list[list[Result]] = [[] for _ in sides]
        for block in range(blocks):
            say(f"block {block + 1} of {blocks}")
            for worker, count, taken in zip(workers, steps, measured, strict=True):
                taken.append(worker.run(count))
    return [
        {
            "name": side.name,
            "variant": side.variant
            or f"{threads_text(about['threads'])}, accelerate={about['accelerate']}",
            "values": [block["steps"] / block["seconds"] for block in taken],
            "about": about,
            "blocks": taken,
        }
        for side, about, taken in zip(sides, abouts, measured, strict=True)
    ]


def costs(sides: tuple[Side, ...], rounds: int, say: Say) -> list[Result]:
    """What a whole process of each side costs, in turn.

    Of seconds there is a round before that is not counted: it reads the files from the disk.
    """
    values: list[list[float]] = [[] for _ in sides]
    for index in range(rounds + 1):
        say(f"round {index} of {rounds}")
        for side, taken in zip(sides, values, strict=True):
            if index or side.spec["cost"] == "seconds":
                taken.append(whole_process(side.spec)[side.spec["cost"]])
    return [
        {"name": side.name, "variant": side.variant, "values": taken[-rounds:]}
        for side, taken in zip(sides, values, strict=True)
    ]


def whole_process(spec: Spec) -> dict[str, float]:
    """Runs a process to its end; returns its seconds and its peak resident memory in MiB.

    Windows has no count of the memory, which is then not a number.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
        command, questions = spec.get("command"), ""
        if command is None and spec["kind"] == "train":
            command = ["train.py", *spec["overrides"], f"run_dir={quoted(Path(folder) / 'run')}"]
        elif command is None:
            command, questions = [*CONTESTANT, json.dumps(spec)], f"run {spec['steps']}"
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(questions)
        process.stdin.close()
        memory = math.nan
        if hasattr(os, "wait4"):  # the usage of this child alone
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else KIB) / KIB**2
        process.wait()
        seconds = time.perf_counter() - started
        if process.returncode:
            raise LogpiError(f"bench: {command[0]} failed, {last_line(errors)}; fix it")
    return {"seconds": seconds, "memory": memory}


def race(sides: tuple[Side, ...], seeds: int, say: Say) -> list[Result]:
    """From nothing to a solved task: the seconds of every seed of every side; None is never."""
    curves: list[list[Curve]] = [[] for _ in sides]
    for seed in range(seeds):
        for side, taken in zip(sides, curves, strict=True):
            say(f"seed {seed} of {side.name}")
            run = race_ours if side.spec["kind"] == "train" else race_peer
            taken.append(run(side.spec, seed))
    return [
        {
            "name": side.name,
            "variant": side.variant,
            "values": [solved(curve, side.spec["at_least"], side.spec["hold"]) for curve in taken],
            "curves": taken,
        }
        for side, taken in zip(sides, curves, strict=True)
    ]


def race_ours(spec: Spec, seed: int) -> Curve:
    """The evaluations of one `train.py`, with the time at which its log has them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ends = [f"eval.stop_at={spec['at_least']}", f"eval.stop_after={spec['hold'] + 1}"]
    with tempfile.TemporaryDirectory() as folder:
        run_dir, started = Path(folder) / "run", time.time()
        output_of(
            ["train.py", *spec["overrides"], *ends, f"seed={seed}", f"run_dir={quoted(run_dir)}"],
            "train.py",
        )
        events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
        events.Reload()
        return [
            (event.step, event.wall_time - started, event.value)
            for event in events.Scalars("eval/return_mean")
        ]


def race_peer(spec: Spec, seed: int) -> Curve:
    """The evaluations of one peer; the seconds that they took are left out."""
    started = time.time()
    lines = output_of([*CONTESTANT, json.dumps(spec), str(seed)], "a peer")
    return [(step, at - started, score) for step, at, score in map(json.loads, lines.splitlines())]


def output_of(command: list[str], name: str) -> str:
    """What a Python process prints; LogpiError, with the last line of its errors, if it fails."""
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        if done.returncode:
            raise LogpiError(f"bench: {name} failed, {last_line(errors)}; fix it")
    return done.stdout


def around(say: Say) -> Result:
    """{units: microseconds of a SAC step on Pendulum without its update}, medians of blocks."""
    found = {}
    for width in AROUND_WIDTHS:
        say(f"2×{width} units")
        with Worker({**ours_sac(width), "kind": "around"}) as worker:
            blocks = [worker.run(AROUND_STEPS) for _ in range(AROUND_BLOCKS)]
        found[str(width)] = statistics.median(1e6 * b["around"] / b["steps"] for b in blocks)
    return {"around": found}
