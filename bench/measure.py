"""From contestants to numbers: one process each, of which only one works at a time.

Peak memory counts from a child's fork, so this process stays smaller than any child: nothing here
imports torch.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from common.errors import LogpiError
from configs.compose import quoted

ROOT = Path(__file__).resolve().parents[1]
CONTESTANT = ("-m", "bench.contestant")
PATIENCE = 10.0  # seconds that a contestant has to end
KIB = 1024
Spec = dict[str, Any]  # what a process is given
Result = dict[str, Any]


class Side(NamedTuple):
    """One contestant; of several with one name the better one counts."""

    name: str
    variant: str
    spec: Spec


@dataclass(frozen=True)
class Comparison:
    """Sides that are measured in turn; bench/comparisons.yaml describes the fields."""

    title: str
    note: str
    targets: dict[str, tuple[float, float]]  # peer -> the ratio that is asked for, and aimed for
    sides: dict[str, Spec]
    measure: str = "rates"
    unit: str = "steps/s"
    on_gpu: bool = False

    @property
    def less_is_better(self) -> bool:
        return self.measure != "rates"

    @property
    def contestants(self) -> list[Side]:
        """Ours first, and each peer once for each number of threads."""
        found = []
        for name, given in self.sides.items():
            spec = dict(given)
            if "overrides" in spec:
                spec["overrides"] = " ".join(spec["overrides"]).split()
            for count in spec.pop("threads", [0]):
                threads = {"threads": count} if count else {}
                found.append(Side(name, threads_text(count) if count else "", spec | threads))
        return found


LISTED = yaml.safe_load((ROOT / "bench" / "comparisons.yaml").read_text(encoding="utf-8"))
COMPARISONS = {name: Comparison(**fields) for name, fields in LISTED.items()}


def threads_text(count: int) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"


class Worker:
    """A contestant's process; it has learned or is warm when this returns, and waits."""

    def __init__(self, spec: Spec) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed at the end
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

    def run(self, steps: int) -> Result:
        """Trains `steps` more steps; returns steps, updates, seconds and processor time."""
        print(f"run {steps}", file=self.questions, flush=True)
        return self.answer()

    def answer(self) -> Result:
        if line := self.answers.readline():
            return dict(json.loads(line))
        self.process.wait()
        raise LogpiError(f"bench: a contestant ended, {last_line(self.errors)}; fix it")

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
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


def rates(sides: Sequence[Side], blocks: int, seconds: float) -> list[Result]:
    """Steps per second of each side in `blocks` blocks of about `seconds`, A B A B ..."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(side.spec)) for side in sides]
        abouts = [worker.about for worker in workers]
        steps = [max(1, round(about["steps_per_second"] * seconds)) for about in abouts]
        measured: list[list[Result]] = [[] for _ in sides]
        for _ in range(blocks):
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


def costs(sides: Sequence[Side], rounds: int, cost: str) -> list[Result]:
    """The seconds or the memory of a whole process of each side, in turn.

    A round before is not counted: it reads the files from the disk.
    """
    values = [[whole_process(side.spec)[cost] for side in sides] for _ in range(rounds + 1)]
    return [
        {"name": side.name, "variant": side.variant, "values": list(taken)}
        for side, taken in zip(sides, zip(*values[1:], strict=True), strict=True)
    ]


def whole_process(spec: Spec) -> dict[str, float]:
    """Runs a process to its end; returns its seconds and its peak resident memory in MiB."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
        command = spec.get("command", [*CONTESTANT, json.dumps(spec)])
        if "overrides" in spec:
            command = ["train.py", *spec["overrides"], f"run_dir={quoted(Path(folder) / 'run')}"]
        nothing, started = subprocess.DEVNULL, time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdin=nothing, stdout=nothing, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)  # the usage of this child alone
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise LogpiError(f"bench: {command[0]} failed, {last_line(errors)}; fix it")
    unit = KIB**2 if sys.platform == "darwin" else KIB
    return {"seconds": seconds, "memory": usage.ru_maxrss / unit}
