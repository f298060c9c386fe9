"""Run directories, put into groups by what differs in their configurations."""

import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.compose import read_run
from runtime.curves import read_scalars
from runtime.errors import ConfigError
from runtime.rundir import read_result

# What does not make a run another one in kind.
SAME = ("seed", "run_dir", "resume", "device", "debug", "threads", "log", "eval", "checkpoint",
        "audit", "env.id", "env.kwargs", "env.timeout")  # fmt: skip


@dataclass(eq=False)
class Run:
    """One run: what it was, and one of its curves."""

    path: Path
    task: str
    agent: str
    settings: dict[str, Any]  # flat, without what SAME names
    steps: np.ndarray
    values: np.ndarray

    def at(self, steps: np.ndarray) -> np.ndarray:
        """The curve at these steps, on the line between two points; not before it begins."""
        return np.interp(steps, self.steps, self.values)


@dataclass
class Group:
    """Runs of one task that differ in nothing but their seed."""

    task: str
    label: str
    runs: list[Run]


def find(paths: list[str], tag: str) -> list[Run]:
    """All runs in these directories and below that have logged the tag.

    Raises:
        ConfigError: there is none in one of them.
    """
    runs: dict[Path, Run] = {}
    for given in paths:
        files = sorted(Path(given).rglob("config.yaml"))
        if not files:
            raise ConfigError(f"{given}: holds no run; give directories that hold config.yaml")
        for path in (file.parent for file in files):
            curve = read_scalars(path, tag)
            if curve:
                runs[path.resolve()] = read(path, curve)
            else:
                print(f"warning: {path} has no {tag}; left out", file=sys.stderr)
    if not runs:
        raise ConfigError(f"tag: no run has {tag}; see the tags in docs/logging.md")
    return list(runs.values())


def overlapping(runs: list[Run]) -> list[Run]:
    """Without the runs of a task that end before another one begins to be logged."""
    begins = {task: max(run.steps[0] for run in runs if run.task == task)
              for task in {run.task for run in runs}}  # fmt: skip
    kept = [run for run in runs if run.steps[-1] >= begins[run.task]]
    for run in runs:
        if run not in kept:
            print(f"warning: {run.path} ends at step {run.steps[-1]:,.0f}, before others on "
                  f"{run.task} have a value; left out", file=sys.stderr)  # fmt: skip
    return kept


def read(path: Path, curve: list[tuple[int, float]]) -> Run:
    config = read_run(path)
    kwargs = "".join(f" {name}={value}" for name, value in sorted(config.env.kwargs.items()))
    steps, values = (np.array(column, dtype=np.float64) for column in zip(*curve, strict=True))
    ranks = read_result(path).get("ranks", 1)  # each of which has `env.num_envs` copies
    return Run(
        path,
        f"{config.env.id}{kwargs}",
        config.agent.name,
        {**dict(flat(dataclasses.asdict(config))), "ranks": ranks},
        steps,
        values,
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
    keys = sorted({
        key
        for cell in cells.values()
        for key in cell[0].settings
        if any(run.settings.get(key) != cell[0].settings[key] for run in cell)
    })  # fmt: skip
    several = len({run.agent for run in runs}) > 1
    groups: dict[tuple[str, str], Group] = {}
    for run in runs:
        words = [run.agent] if several or not keys else []
        words += [f"{key.removeprefix('agent.')}={run.settings[key]}" for key in keys
                  if key in run.settings]  # fmt: skip
        label = " ".join(words)
        groups.setdefault((run.task, label), Group(run.task, label, [])).runs.append(run)
    return [groups[key] for key in sorted(groups)]
