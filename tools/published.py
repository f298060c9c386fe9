"""Curves that authors published, as figures alone: docs/learning/published/."""

import csv
import itertools
import re
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
        figures = (np.interp(at, self.steps, one) for one in (self.iqm, self.mean, self.std))
        found = "IQM {:,.0f}, mean {:,.0f}, deviation {:,.0f} at step {:,.0f}".format(*figures, at)
        if at < self.steps[0]:
            found = f"nothing before step {self.steps[0]:,.0f}"
        other = "" if task == self.task else f" (yours is {task})"
        return (
            f"{self.source['who']} ({self.source['paper']}) on {self.task}{other}: {found}; "
            f"{self.seeds} seeds, updates per step: {self.source['updates']}, "
            f"{self.source['millions']} million parameters on HalfCheetah; "
            f"{self.source['licence']}, {self.source['source']}"
        )


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
