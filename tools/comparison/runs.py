"""Run directories, put into groups by what differs in their configurations."""

import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import ConfigError, shown
from configs.files import read_run
from runtime.curves import read_scalars
from storage.rundir import REPEATED, read_result

# What does not make a run another one in kind.
SAME = (
    *("seed", "run_dir", "resume", "device", "debug", "threads", "accelerate", "log", "eval"),
    *("checkpoint", "audit", "env.id", "env.kwargs", "env.timeout", "env.vectorization"),
)
STUDY = "study.journal"  # in the folder of a search of settings
NAMED = 3  # runs in a warning
SHORT = 0.9  # of the median of the runs' last steps


@dataclass(eq=False)
class Run:
    """One run: what it was, and one of its curves."""

    path: Path
    task: str
    agent: str
    settings: dict[str, Any]  # flat, without what SAME names
    seed: int
    total_steps: int
    steps: np.ndarray
    values: np.ndarray
    digest: str | None = None  # of everything at its end
    cut: int = 0  # episodes of its last evaluation that were cut short

    def at(self, steps: np.ndarray) -> np.ndarray:
        """The curve at these steps, on the line between two points; not before it begins."""
        return np.interp(steps, self.steps, self.values)


@dataclass
class Group:
    """Runs of one task that differ in nothing but their seed, and how long they went on."""

    task: str
    label: str
    runs: list[Run]


def find(paths: list[str], tag: str) -> list[Run]:
    """All runs in these directories and below that have logged the tag.

    Those that a search of settings made, or tools/reproduce.py, only where that is named.

    Raises:
        ConfigError: there is none in one of them.
    """
    runs: dict[Path, Run] = {}
    without: list[Path] = []
    for given in paths:
        files = sorted(Path(given).rglob("config.yaml"))
        if not files:
            raise ConfigError(f"{given}: holds no run; give directories that hold config.yaml")
        own = [file.parent for file in files if not apart(file, Path(given))]
        if not own:
            folder = shown(apart(files[0], Path(given)))
            why = "holds only what a search made, or repetitions"
            raise ConfigError(f"{given}: {why}; name their folder, such as {folder}")
        for path in own:
            curve = read_scalars(path, tag)
            if curve:
                runs[path.resolve()] = read(path, curve)
            else:
                without.append(path)
    if not runs:
        raise ConfigError(f"tag: no run has {tag}; see the tags in docs/logging.md")
    if without:
        warn(f"{named(without)} have no {tag}; left out")
    return distinct(list(runs.values()))


def apart(file: Path, given: Path) -> Path | None:
    """The search of settings, or the folder of repetitions, that it lies in below `given`."""
    below = [above for above in file.parents if given in above.parents]
    searches = (a for a in below if (a / STUDY).exists() or a.name == REPEATED.name)
    return next(searches, None)


def distinct(runs: list[Run]) -> list[Run]:
    """Each once: a run that was repeated bit for bit, or made longer, is no second sample."""
    first: dict[str, Run] = {}
    for run in runs:
        same = first.setdefault(run.digest or str(run.path), run)
        if same is not run:
            warn(f"{run.path} is {same.path} again, bit for bit; left out")
    longest: dict[str, Run] = {}
    for run in sorted(first.values(), key=lambda run: run.total_steps):
        longest[beginning(run)] = run
    kept = []
    for run in first.values():
        longer = longest[beginning(run)]
        if run.total_steps == longer.total_steps:
            kept.append(run)
        else:
            warn(f"{run.path} is the beginning of {longer.path}; left out")
    return kept


def beginning(run: Run) -> str:
    """What two runs have in common of which one goes on longer than the other."""
    return repr((run.task, run.agent, sorted(run.settings.items()), run.seed))


def overlapping(runs: list[Run]) -> list[Run]:
    """The most runs of each task that all have a value at one step; of as many, the later ones."""
    tasks = sorted({run.task for run in runs})
    kept = []
    for task in tasks:
        of_task = [run for run in runs if run.task == task]
        starts = sorted({run.steps[0] for run in of_task}, reverse=True)
        common = max(starts, key=lambda step: sum(map(partial(logged, step=step), of_task)))
        kept += [run for run in of_task if logged(run, common)]
        for what, ours in (
            ("end before", [run for run in of_task if run.steps[-1] < common]),
            ("begin after", [run for run in of_task if run.steps[0] > common]),
        ):
            if ours:
                end = f"step {common:,.0f}, where most on {task} have a value"
                warn(f"{named([run.path for run in ours])} {what} {end}; left out")
    for task in tasks:
        ends = {run: run.steps[-1] for run in kept if run.task == task}
        run, end = min(ends.items(), key=lambda item: item[1])
        if end < SHORT * np.median(list(ends.values())):
            where = f"ends at step {end:,.0f}, and all on {task} are compared there"
            warn(f"{run.path} {where}; leave it out, or let it go on")
    return kept


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def named(paths: list[Path]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(map(str, paths[:NAMED])) + more


def logged(run: Run, step: float) -> bool:
    """Whether its curve has begun there, and has not ended."""
    return bool(run.steps[0] <= step <= run.steps[-1])


def read(path: Path, curve: list[tuple[int, float]]) -> Run:
    config = read_run(path)
    kwargs = "".join(f" {name}={value}" for name, value in sorted(config.env.kwargs.items()))
    steps, values = (np.array(column, dtype=np.float64) for column in zip(*curve, strict=True))
    result = read_result(path)
    ranks = result.get("ranks", 1)  # each of which has `env.num_envs` copies
    settings = {**dict(flat(dataclasses.asdict(config))), "ranks": ranks}
    cut = int(result.get("episodes_cut", 0))
    if cut:  # returns are of as many steps
        settings["eval.max_length"] = config.eval.max_length
    if config.agent.lr_schedule == "constant":
        del settings["total_steps"]  # as far as both have come, a longer run is the same
    return Run(
        path,
        f"{config.env.id}{kwargs}",
        config.agent.name,
        settings,
        config.seed,
        config.total_steps,
        steps,
        values,
        result.get("state_digest"),
        cut,
    )


def flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """`group.key` -> value, without what SAME names."""
    for name, value in values.items():
        key = f"{before}{name}"
        if key in SAME:
            continue
        if isinstance(value, dict):
            yield from flat(value, f"{key}.")
        else:
            yield key, value


def grouped(runs: list[Run]) -> list[Group]:
    """Groups, named by the agent where there are several, and by all keys that differ.

    Keys count that differ between runs of the same task and agent: what is tuned for a task is a
    part of it.
    """
    cells: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        cells.setdefault((run.task, run.agent), []).append(run)
    differing: set[str] = set()
    for cell in cells.values():
        for key in {key for run in cell for key in run.settings}:
            if len({str(run.settings[key]) for run in cell if key in run.settings}) > 1:
                differing.add(key)
    keys = sorted(differing)
    several = len({run.agent for run in runs}) > 1
    groups: dict[tuple[str, str], Group] = {}
    for run in runs:
        words = [run.agent] if several or not keys else []
        own = [key for key in keys if key in run.settings]
        words += [f"{key.removeprefix('agent.')}={run.settings[key]}" for key in own]
        label = " ".join(words)
        groups.setdefault((run.task, label), Group(run.task, label, [])).runs.append(run)
    return [groups[key] for key in sorted(groups)]
