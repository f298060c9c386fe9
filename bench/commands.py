"""What the measuring commands share: seeds, and training with the project's own commands."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import process
from configs.compose import quoted
from tools.shared import Keys, key

Row = dict[str, Any]  # what one seed came to


@dataclass(frozen=True)
class Seeds(Keys):
    """What learns and evaluates seeds takes."""

    seeds: str = key("")
    out: str = key("")

    def check(self) -> None:
        self.chosen(1)

    def chosen(self, usual: int) -> range:
        """FIRST-LAST, or one seed; the `usual` first ones where none are given."""
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", self.seeds or f"0-{usual - 1}")
        found = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        remedy = "give FIRST-LAST, the smaller one first"
        self.require(bool(found), "seeds", f"{self.seeds} are none", remedy)
        return found


def train_and_evaluate(
    overrides: Sequence[str], seed: int, run_dir: Path, *evaluation: str
) -> tuple[Row, dict[str, Any]]:
    """One seed with the project's own commands: what it came to, and its result.json.

    The first is of the evaluation, but for the seconds and the curve, [[step, return], ...].
    """
    from runtime.curves import read_scalars

    run = quoted(run_dir.absolute())
    _, cost = process(["train.py", *overrides, f"seed={seed}", f"run_dir={run}"])
    repeated = [given for given in overrides if given.startswith("env.id=")]
    process(["evaluate.py", f"run={run}", *repeated, *evaluation])
    evaluated = json.loads((run_dir / "evaluation.json").read_text())
    row = {
        "seed": seed,
        "return_mean": evaluated["return_mean"],
        "return_sem": evaluated["return_sem"],
        "seconds": cost["seconds"],
        "curve": read_scalars(run_dir, "eval/return_mean"),
    }
    return row, json.loads((run_dir / "result.json").read_text())
