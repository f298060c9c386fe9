"""Runs in groups, and statistics of few runs.

Two groups on one task are compared by their means, as in Colas et al. 2019 (arXiv 1904.06979);
over several tasks scores are pooled as in Agarwal et al. 2021 (arXiv 2108.13264), section 4.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from common.errors import ConfigError, LogpiError, shown, warn
from configs.files import read_run
from configs.resume import values_of
from configs.schema import TrainConfig
from runtime.curves import read_scalars
from storage.rundir import REPEATED, read_result

# Keys, and groups of keys, that may differ within a group of runs.
SAME = (
    *("seed", "run_dir", "resume", "device", "debug", "threads", "accelerate", "log", "eval"),
    *("checkpoint", "audit", "env.id", "env.kwargs", "env.timeout", "env.vectorization"),
)
STUDY = "study.journal"  # in the folder of a search of settings
NAMED = 3  # runs in a warning
WIDEST = 36  # characters of a group's name in tables and legends
SHORT = 0.9  # of the median of the runs' last steps
RESAMPLES = 2000
LEVEL = 0.95
POWER = 0.8
MOST = 10**6  # runs of a group
Scores = Sequence[np.ndarray]  # of each task, one number per run


@dataclass(eq=False)
class Run:
    """A run with one of its curves."""

    path: Path
    config: TrainConfig
    task: str
    settings: dict[str, Any]  # by key, without those in SAME
    steps: np.ndarray
    values: np.ndarray
    digest: str | None = None  # of everything at its end
    cut: int = 0  # episodes of its last evaluation that were cut short
    group: str = ""  # its name in full

    def at(self, steps: np.ndarray | float) -> np.ndarray:
        """The curve at these steps, on the line between two points."""
        return np.interp(steps, self.steps, self.values)


Groups = dict[tuple[str, str], list[Run]]  # (task, label) -> runs that differ in SAME alone


def find(paths: list[str], tag: str) -> list[Run]:
    """All runs in these directories and below that have logged the tag.

    Those of a search of settings, or of tools/reproduce.py, are found only where that is named.

    Raises:
        ConfigError: there is none in one of them.
        LogpiError: of none the configuration and the log can be read; else such runs are left out.
    """
    runs: dict[Path, Run] = {}
    without: list[Path] = []
    unreadable: list[LogpiError] = []
    for given in paths:
        found = sorted(Path(given).rglob("config.yaml"))
        if not found:
            raise ConfigError(
                f"{given}: contains no run; name run directories, or folders that contain some"
            )
        own = [file.parent for file in found if not apart(file, Path(given))]
        if not own:
            folder = shown(apart(found[0], Path(given)))
            why = "contains only runs of a search, or repetitions"
            raise ConfigError(f"{given}: {why}; name their folder, such as {folder}")
        for path in own:
            try:
                if curve := read_scalars(path, tag):
                    runs[path.resolve()] = read(path, curve)
                else:
                    without.append(path)
            except LogpiError as error:
                unreadable.append(error)
    if unreadable and not runs:
        raise unreadable[0]
    warn(*(f"{error.problem}; the run is left out" for error in unreadable))
    if not runs:
        raise ConfigError(f"tag: no run has {tag}; see the tags in docs/logging.md")
    if without:
        warn(f"{named(without)} {'have' if without[1:] else 'has'} no {tag}; left out")
    return distinct(list(runs.values()))


def apart(file: Path, given: Path) -> Path | None:
    """The folder of a search, or of repetitions, below `given` that holds the file."""
    below = [above for above in file.parents if given in above.parents]
    return next((a for a in below if (a / STUDY).exists() or a.name == REPEATED.name), None)


def read(path: Path, curve: list[tuple[int, float]]) -> Run:
    config, result = read_run(path), read_result(path)
    arguments = "".join(f" {name}={value}" for name, value in sorted(config.env.kwargs.items()))
    steps, values = np.array(curve, dtype=np.float64).T
    settings = {
        key: value
        for key, value in values_of(config).items()
        if not f"{key}.".startswith(tuple(f"{same}." for same in SAME))
    }
    settings["ranks"] = result.get("ranks", 1)  # each of which has `env.num_envs` copies
    if cut := int(result.get("episodes_cut", 0)):  # returns are of as many steps
        settings["eval.max_length"] = config.eval.max_length
    if config.agent.lr_schedule == "constant":
        del settings["total_steps"]  # a longer run is the same as far as both have come
    task = f"{config.env.id}{arguments}"
    return Run(path, config, task, settings, steps, values, result.get("state_digest"), cut)


def distinct(runs: list[Run]) -> list[Run]:
    """Each run once: without bit-for-bit repetitions, and shorter ones of the same seed."""
    first: dict[str, Run] = {}
    for run in runs:
        same = first.setdefault(run.digest or str(run.path), run)
        if same is not run:
            warn(f"{run.path} is {same.path} again, bit for bit; left out")
    kept: dict[str, Run] = {}  # the longest of those with one seed and the same settings
    for run in sorted(first.values(), key=lambda run: -float(run.steps[-1])):
        settings = sorted(run.settings.items())
        beginning = repr((run.task, run.config.agent.name, settings, run.config.seed))
        longer = kept.setdefault(beginning, run)
        if longer is not run:
            warn(f"{run.path} has the settings and the seed of {longer.path}; left out")
            del first[run.digest or str(run.path)]
    return list(first.values())


def overlapping(runs: list[Run]) -> list[Run]:
    """The most runs of each task that all have a value at one step; of as many, the later ones."""
    kept: list[Run] = []
    for task in sorted({run.task for run in runs}):
        of_task = [run for run in runs if run.task == task]
        starts = sorted({run.steps[0] for run in of_task}, reverse=True)
        counts = [sum(run.steps[0] <= step <= run.steps[-1] for run in of_task) for step in starts]
        common = starts[int(np.argmax(counts))]
        compared = [run for run in of_task if run.steps[0] <= common <= run.steps[-1]]
        where = f"step {common:,.0f}, at which most on {task} have a value; left out"
        if short := [run.path for run in of_task if run.steps[-1] < common]:
            warn(f"{named(short)}: the last value is before {where}")
        if late := [run.path for run in of_task if run.steps[0] > common]:
            warn(f"{named(late)}: the first value is after {where}")
        first = min(compared, key=lambda run: run.steps[-1])
        if first.steps[-1] < SHORT * np.median([run.steps[-1] for run in compared]):
            where = f"ends at step {first.steps[-1]:,.0f}, and all on {task} are compared there"
            warn(f"{first.path} {where}; leave it out, or train it longer")
        kept += compared
    return kept


def named(paths: Sequence[Path]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(map(str, paths[:NAMED])) + more


def grouped(runs: list[Run]) -> Groups:
    """Groups, named by the agent where there are several, and by the values that are compared.

    Those of a key are compared that differ between runs of the same task and agent: settings tuned
    for a task are a part of it. Numbers stand for names that would fill the table.
    """
    values = defaultdict[tuple[str, str, str], set[str]](set)  # of a key, on a task with an agent
    for run in runs:
        for key, value in run.settings.items():
            values[run.task, run.config.agent.name, key].add(str(value))
    compared = defaultdict[tuple[str, str], set[str]](set)  # of an agent's key, on any task
    for (_, agent, key), found in values.items():
        compared[agent, key] |= found if len(found) > 1 else set()
    several = len({run.config.agent.name for run in runs}) > 1
    for run in runs:
        agent, settings = run.config.agent.name, sorted(run.settings.items())
        own = [(key, value) for key, value in settings if str(value) in compared[agent, key]]
        words = [f"{key.removeprefix('agent.')}={value}" for key, value in own]
        run.group = " ".join([agent, *words] if several or not own else words)
    names = sorted({run.group for run in runs})
    wide = max(map(len, names), default=0) > WIDEST
    groups = defaultdict[tuple[str, str], list[Run]](list)
    for run in runs:
        groups[run.task, f"#{names.index(run.group) + 1}" if wide else run.group].append(run)
    return dict(sorted(groups.items()))


def scored(groups: Groups) -> dict[tuple[str, str], tuple[float, np.ndarray]]:
    """Of each group the last step that all runs of the task reach, and each run's value there.

    By task, and of a task the group with the highest mean first.
    """
    found = {}
    for task, label in groups:
        of_task = (run for (other, _), runs in groups.items() if other == task for run in runs)
        last = min(run.steps[-1] for run in of_task)
        found[task, label] = (last, np.array([run.at(last) for run in groups[task, label]]))
    return dict(sorted(found.items(), key=lambda one: (one[0][0], -one[1][1].mean())))


def interquartile_mean(scores: Scores) -> float:
    """Of all runs of all tasks, without the lowest and the highest quarter, rounded down."""
    every = np.sort(np.concatenate(scores))
    cut = len(every) // 4
    return float(every[cut : len(every) - cut].mean())


def mean(scores: Scores) -> np.ndarray:
    """Over all runs of all tasks; of curves, (runs, steps), at each step."""
    return np.concatenate(scores).mean(0)


def probability_of_improvement(ours: Scores, theirs: Scores) -> float:
    """How likely a run of ours is above one of theirs, ties counting half; the mean over tasks.

    In each task the statistic of Mann and Whitney (1947), eq. 1, as a share of all pairs.
    """
    shares = [
        float(np.mean((own[:, None] > other) + 0.5 * (own[:, None] == other)))
        for own, other in zip(ours, theirs, strict=True)
    ]
    return sum(shares) / len(shares)


def beyond(critical: float, degrees: float, difference: float = 0.0) -> float:
    """The probability of |t| > critical where the means differ by so many standard errors.

    The noncentral t distribution (Cohen 1988, section 12.8), integrated over the estimated standard
    error as a share of the true one, whose square is chi-square / degrees.
    """
    ratio = (torch.arange(1_000, dtype=torch.float64) + 0.5) / 250  # up to 4
    weights = torch.softmax((degrees - 1) * ratio.log() - degrees * ratio**2 / 2, 0)
    above, below = difference - critical * ratio, -difference - critical * ratio
    return float(weights @ (torch.special.ndtr(above) + torch.special.ndtr(below)))


class Welch(NamedTuple):
    """What two groups show, by the t test of Welch (1947) of their means, two-sided."""

    p: float  # how often chance alone separates the means as far
    least: float  # the smallest difference that so many runs show at 5 % with 80 % power
    needed: int  # runs of each group that show the one seen; MOST where even those are too few


def welch(ours: np.ndarray, theirs: np.ndarray) -> Welch:
    """Of groups of two runs or more, not all of them equal."""
    variances = np.array([ours.var(ddof=1), theirs.var(ddof=1)])

    def test(*counts: int) -> tuple[float, float]:
        """(degrees of freedom, standard error of the difference) with so many runs."""
        of_means = variances / counts
        degrees = of_means.sum() ** 2 / (of_means**2 / (np.array(counts) - 1)).sum()
        return float(degrees), math.sqrt(of_means.sum())

    def smallest(*counts: int) -> float:
        """The difference that so many runs show."""
        degrees, error = test(*counts)
        grid = np.arange(0, 100, 0.001)
        critical = grid[bisect_left(grid, LEVEL, key=lambda one: 1 - beyond(one, degrees))]
        shown = bisect_left(grid, POWER, key=lambda one: beyond(critical, degrees, one))
        return float(grid[shown]) * error

    seen, counts = abs(ours.mean() - theirs.mean()), (len(ours), len(theirs))
    degrees, error = test(*counts)
    needed = bisect_left(range(MOST), True, lo=2, key=lambda count: smallest(count, count) <= seen)
    return Welch(beyond(seen / error, degrees), smallest(*counts), needed)


def resampled(scores: Scores, generator: np.random.Generator) -> list[np.ndarray]:
    """As many runs, drawn with replacement within each task."""
    return [runs[generator.integers(len(runs), size=len(runs))] for runs in scores]


def interval(
    statistic: Callable[..., np.ndarray | float], *groups: Scores, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles 2.5 and 97.5 of the statistic over stratified bootstrap samples of each group."""
    generator = np.random.default_rng(seed)
    found = [
        statistic(*(resampled(scores, generator) for scores in groups)) for _ in range(RESAMPLES)
    ]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(np.asarray(found), [tail, 100 - tail], axis=0)
    return low, high
