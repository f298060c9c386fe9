"""From contestants to numbers: one process each, of which only one works at a time."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.benchmark.contestants import Side, Spec
from common.errors import LogpiError
from configs.compose import quoted

ROOT = Path(__file__).resolve().parents[2]
KIB = 1024
PATIENCE = 10.0  # seconds that a contestant has to end
Result = dict[str, Any]
Say = Callable[[str], None]


class Worker:
    """A contestant's process; it is warm when this returns, and waits.

    Args:
        spec: what it is told to build.
        environment: variables of its environment, beside those of this process.
    """

    def __init__(self, spec: Spec, environment: dict[str, str] | None = None) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by close()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.benchmark.worker", json.dumps(spec)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
        self.about = self.answer()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, steps: int) -> dict[str, Any]:
        """Lets it train `steps` more steps; returns steps, updates, seconds and processor time."""
        assert self.process.stdin is not None
        print(f"run {steps}", file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise LogpiError(f"bench: a contestant ended, {last_line(self.errors)}; mend it")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends its input, and so the process; one that is in the middle of work is stopped."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
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
    """Steps per second of each side in `blocks` blocks of about `seconds`, A B A B ...

    Returns:
        For each side its name, variant, values, and the blocks as measured.
    """
    workers: list[Worker] = []
    try:
        for side in sides:
            say(f"warming up {side.name} {side.variant}")
            workers.append(Worker(side.spec))
        steps = [max(1, round(w.about["steps_per_second"] * seconds)) for w in workers]
        measured: list[list[Result]] = [[] for _ in sides]
        for block in range(blocks):
            say(f"block {block + 1} of {blocks}")
            for worker, count, taken in zip(workers, steps, measured, strict=True):
                taken.append(worker.run(count))
        abouts = [worker.about for worker in workers]
    finally:
        for worker in workers:
            worker.close()
    return [
        {
            "name": side.name,
            "variant": side.variant or variant_of(about),
            "values": [block["steps"] / block["seconds"] for block in taken],
            "about": about,
            "blocks": taken,
        }
        for side, about, taken in zip(sides, abouts, measured, strict=True)
    ]


def variant_of(about: dict[str, Any]) -> str:
    """What ours chose by itself, in words."""
    from bench.benchmark.contestants import threads_text

    return f"{threads_text(about['threads'])}, accelerate={about['accelerate']}"


def costs(sides: tuple[Side, ...], rounds: int, say: Say) -> list[Result]:
    """What a whole process of each side costs, in turn.

    Of seconds there is a round before that is not counted: it reads the files from the disk.
    """
    values: list[list[float]] = [[] for _ in sides]
    for index in range(rounds + 1):
        say(f"round {index} of {rounds}")
        for side, taken in zip(sides, values, strict=True):
            if index:
                taken.append(whole_process(side.spec)[side.spec["cost"]])
            elif side.spec["cost"] == "seconds":
                whole_process(side.spec)
    return [
        {"name": side.name, "variant": side.variant, "values": taken}
        for side, taken in zip(sides, values, strict=True)
    ]


def whole_process(spec: Spec) -> dict[str, float]:
    """Runs a process to its end; returns its seconds and its peak resident memory in MiB.

    Windows does not tell the memory, which is then not a number.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
        command, questions = command_of(spec, Path(folder))
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, text=True,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(questions)
        process.stdin.close()
        memory = math.nan
        if hasattr(os, "wait4"):
            # The usage of this child alone. It counts from its fork, so this process has to be
            # smaller than any child that is measured: nothing here imports torch.
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else KIB) / KIB**2
        process.wait()
        seconds = time.perf_counter() - started
        if process.returncode:
            raise LogpiError(f"bench: {command[0]} failed, {last_line(errors)}; mend it")
    return {"seconds": seconds, "memory": memory}


def command_of(spec: Spec, folder: Path) -> tuple[list[str], str]:
    """(arguments of Python, what the process is to read) for a side of `costs`."""
    if "command" in spec:
        return spec["command"], ""
    if spec["kind"] == "train":
        return ["train.py", *spec["overrides"], f"run_dir={quoted(folder / 'run')}"], ""
    return ["-m", "bench.benchmark.worker", json.dumps(spec)], f"run {spec['steps']}\n"


def median(values: list[float | None]) -> float:
    """The median, where None counts as infinite: it never happened."""
    ordered = sorted(math.inf if value is None else value for value in values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return 0.5 * (ordered[middle - 1] + ordered[middle])
