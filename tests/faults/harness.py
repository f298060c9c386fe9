"""Runs that are killed, and what is left of them."""

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from runtime.curves import read_curves
from storage.checkpoint import best_key, names

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds that a tiny run may take on a busy machine
RUNS = {  # (seconds of training, at most, and steps between two saves are all small)
    "a2c-cartpole": [
        *("env=cartpole", "env.vectorization=native", "env.kwargs.max_episode_steps=30"),
        *("env.num_envs=4", "agent.n_steps=8", "agent.hidden=[16]"),
        *("total_steps=1600", "checkpoint.every=50"),
    ],
    "a2c-pendulum": [
        *("env=pendulum", "agent=a2c", "env.num_envs=2", "agent.n_steps=8", "agent.hidden=[16]"),
        *("total_steps=1000", "checkpoint.every=50"),
    ],
    "sac-pendulum": [
        *("env=pendulum", "agent=sac", "agent.hidden=[16]", "agent.batch_size=16"),
        *("agent.learning_starts=50", "agent.normalise_obs=true", "agent.policy_delay=2"),
        *("env.num_envs=1", "agent.updates_per_step=1", "total_steps=300", "checkpoint.every=50"),
    ],
    "sac-mountaincar": [
        *("env=mountain_car_continuous", "agent=sac", "agent.hidden=[16]", "agent.batch_size=16"),
        *("agent.learning_starts=50", "agent.buffer_size=120", "env.num_envs=2"),
        *("agent.updates_per_step=1", "total_steps=400", "checkpoint.every=50"),
    ],
}
COMMON = ["eval.episodes=1", "eval.every=200", "log.every=50", "checkpoint.keep=2"]
SHORT = ("total_steps=120", "env.kwargs.max_episode_steps=40")  # where the length is no matter


@dataclass
class Child:
    """A process that trains."""

    nursery: "Nursery"
    pid: int
    out: Path

    def code(self) -> int | None:
        return self.nursery.ask({"wait": self.pid})["code"]

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit code; -N where signal N killed it."""
        end = time.monotonic() + patience
        while (code := self.code()) is None:
            assert time.monotonic() < end, f"still running: {self.out.read_text()}"
            time.sleep(0.002)
        return code

    def send(self, number: int, group: bool = False) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            (os.killpg if group else os.kill)(self.pid, number)


class Nursery:
    """Starts children; see nursery.py."""

    def __enter__(self) -> "Nursery":
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()

    def ask(self, order: dict) -> dict:
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def start(self, arguments: list[str], cwd: Path, prepare: dict | None = None) -> Child:
        out = cwd / "out.txt"
        order = {"start": arguments, "cwd": str(cwd), "out": str(out), "prepare": prepare}
        return Child(self, self.ask(order)["pid"], out)

    def run(self, arguments: list[str], cwd: Path, prepare: dict | None = None) -> int:
        return self.start(arguments, cwd, prepare).wait()


def command(name: str, *changes: str) -> list[str]:
    """The same for the first start and for every further one."""
    return [*RUNS[name], *COMMON, *changes, "run_dir=run", "resume=auto"]


def outcome(run: Path) -> tuple[str, dict[str, list[tuple[int, float]]]]:
    """(state digest, every logged scalar but the times) of a finished run.

    Among the scalars is the best checkpoint with its score.
    """
    digest = json.loads((run / "result.json").read_text())["state_digest"]
    curves = read_curves(run).items()
    scalars = {tag: curve for tag, curve in curves if not tag.startswith("time/")}
    score, name = max((best_key(run / "checkpoints" / name), name) for name in names(run))
    return digest, {**scalars, "best": [(int(name[5:]), score)]}


def reference(nursery: Nursery, folder: Path, *run: str) -> tuple[str, dict, float]:
    """The uninterrupted run of these arguments of `command`: (digest, scalars, seconds)."""
    cwd = folder / " ".join(run)
    cwd.mkdir()
    began = time.monotonic()
    child = nursery.start(command(*run), cwd)
    assert child.wait() == 0, child.out.read_text()
    seconds = time.monotonic() - began
    return *outcome(cwd / "run"), seconds


def assert_no_orphans(run: Path) -> None:
    """No process is left that has anything to do with the run."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            where = os.readlink(folder / "cwd")
        except OSError:
            continue
        assert not where.startswith(str(run.parent)), (folder / "cmdline").read_bytes()
