"""From contestants to numbers: a process for each number, one at a time.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.contestant import Spec, threads_text
from common.errors import LogpiError
from configs.compose import quoted

ROOT = Path(__file__).resolve().parents[1]
CONTESTANT = ("-m", "bench.contestant")
KIB = 1024
Result = dict[str, Any]


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
    def contestants(self) -> list[tuple[str, str, Spec]]:
        """(side, variant, what its process is given); of several variants the better one counts.

        Ours first, and each peer once for each number of threads.
        """
        found = []
        for name, given in self.sides.items():
            spec = dict(given)
            if "overrides" in spec:
                spec["overrides"] = " ".join(spec["overrides"]).split()
            for count in spec.pop("threads", [0]):
                threads = {"threads": count} if count else {}
                found.append((name, threads_text(count) if count else "", spec | threads))
        return found


LISTED = yaml.safe_load((ROOT / "bench" / "comparisons.yaml").read_text(encoding="utf-8"))
COMPARISONS = {name: Comparison(**fields) for name, fields in LISTED.items()}


def measured(comparison: Comparison, blocks: int, seconds: float) -> list[Result]:
    """The sides with a value of each block, A B A B ..., and the cores that were used.

    A block before is not counted: it reads files from the disk, and compiles.
    """
    sides = comparison.contestants
    found = [
        [value(spec, comparison.measure, seconds) for *_, spec in sides] for _ in range(blocks + 1)
    ]
    return [
        {
            "name": name,
            "variant": own[0].get("variant", variant),
            "values": [one[comparison.measure] for one in own],
            "cores": [one["cores"] for one in own],
        }
        for (name, variant, _), own in zip(sides, zip(*found[1:], strict=True), strict=True)
    ]


def value(spec: Spec, measure: str, seconds: float) -> Result:
    """What one process of a side comes to, in a rate or in costs."""
    if measure == "rates":
        return answer({**spec, "seconds": seconds})
    with tempfile.TemporaryDirectory() as folder:
        command = spec.get("command", [*CONTESTANT, json.dumps(spec)])
        if "overrides" in spec:
            command = ["train.py", *spec["overrides"], f"run_dir={quoted(Path(folder) / 'run')}"]
        return process(command)[1]


def answer(spec: Spec) -> Result:
    """What a contestant answers."""
    return dict(json.loads(process([*CONTESTANT, json.dumps(spec)])[0]))


def process(command: Sequence[str]) -> tuple[str, Result]:
    """(what a Python process prints; its seconds, peak resident memory in MiB, and cores used)."""
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=errors,
        )
        _, status, usage = os.wait4(child.pid, 0)  # the usage of this child alone
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        errors.seek(0)
        if child.returncode:
            last = (errors.read().strip().splitlines() or ["without a word"])[-1]
            raise LogpiError(f"bench: {' '.join(command[:2])} failed, {last}; fix it")
        unit = KIB**2 if sys.platform == "darwin" else KIB
        cores = (usage.ru_utime + usage.ru_stime) / seconds
        costs = {"seconds": seconds, "memory": usage.ru_maxrss / unit, "cores": cores}
        return printed.read(), costs
