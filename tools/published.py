"""Curves that authors published, as figures alone: docs/learning/published/."""

import csv
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from common.errors import ConfigError

FOLDER = Path(__file__).resolve().parent.parent / "docs/learning/published"


@dataclass(frozen=True)
class Published:
    """A curve over the seeds of one agent on one task."""

    source: dict[str, str]  # a row of sources.csv: who, paper, updates, millions, licence, source
    task: str  # with its version
    seeds: int
    steps: np.ndarray  # of their evaluations, (points,)
    mean: np.ndarray
    std: np.ndarray  # over seeds, of a sample
    iqm: np.ndarray

    def line(self, task: str, step: float) -> str:
        """All that a reader needs to judge the curve beside their own of `task`, at this step."""
        at = min(step, self.steps[-1])
        figures = (np.interp(at, self.steps, one) for one in (self.mean, self.std, self.iqm))
        found = "mean {:,.0f}, deviation {:,.0f}, IQM {:,.0f} at step {:,.0f}".format(*figures, at)
        other = "" if task == self.task else f" (yours is {task})"
        repository = "/".join(self.source["source"].split("/")[3:5])
        return (
            f"{self.source['who']} on {self.task}{other}: {found}; {self.seeds} seeds, "
            f"updates per step: {self.source['updates']}, {self.source['millions']} million "
            f"parameters on HalfCheetah ({self.source['paper']}; {repository}, "
            f"{self.source['licence']})"
        )


def lines(theirs: Sequence[Published], task: str, step: float) -> list[str]:
    """One for each curve that has begun at this step of one's own `task`, one for the others."""
    begun = [one.line(task, step) for one in theirs if one.steps[0] <= step]
    later = ", ".join(one.source["who"] for one in theirs if one.steps[0] > step)
    return [*begun, *([f"not evaluated by step {step:,.0f}: {later}"] if later else [])]


def family(task: str) -> str:
    """The name of a task without its version and arguments: half_cheetah of HalfCheetah-v5."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", re.sub(r"-v\d.*", "", task)).lower()


@cache
def published() -> dict[str, list[Published]]:
    """All curves, by the family of their task, in the order of sources.csv."""
    files = [(FOLDER / name).read_text().splitlines() for name in ("sources.csv", "curves.csv")]
    sources, points = map(csv.DictReader, files)
    known = {source["who"]: source for source in sources}
    found: dict[str, list[Published]] = {}
    for (who, task), group in itertools.groupby(points, lambda row: (row["who"], row["task"])):
        seeds, *curve = np.array([[*map(int, [*row.values()][2:])] for row in group]).T
        one = Published(known[who], task, int(seeds[0]), *curve)
        found.setdefault(family(task), []).append(one)
    return found


def beside(names: str, tasks: list[str]) -> dict[str, list[Published]]:
    """Curves of these families for each of one's tasks; ConfigError where none is of a family."""
    wanted = names.split(",") if names else []
    if others := sorted({*wanted} - {*map(family, tasks)}):
        own = ", ".join(tasks)
        raise ConfigError(f"published: no run is of {others[0]}, all are of {own}; add runs of it")
    return {task: published()[family(task)] for task in tasks if family(task) in wanted}
