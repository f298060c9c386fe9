"""Settings of SAC on several tasks: `python bench/study.py settings=raw,unit seeds=100-104`.

Trains and evaluates what bench/study.yaml describes and docs/learning/study/ does not have yet,
and prints what its rows show. It may be stopped at any time, and continued.
"""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.bench_learning import Task, learn  # noqa: E402
from bench.commands import Seeds  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from storage.rundir import make_folder  # noqa: E402
from tools.comparison import (  # noqa: E402
    Scores,
    interquartile_mean,
    interval,
    probability_of_improvement,
)
from tools.shared import key, read_keys, table  # noqa: E402

STUDY = yaml.safe_load((ROOT / "bench/study.yaml").read_text(encoding="utf-8"))
USAGE = """\
usage: python bench/study.py [settings=NAME,...] [tasks=NAME,...] [seeds=FIRST-LAST] [learn=true]
                             [lanes=2] [out=docs/learning/study]
Trains with each of the settings on each task, ten minutes or more of one core for each seed, and
compares the returns with those of the first setting; learn=false compares what is known"""
DETECTED = (1.96 + 0.84) / 1.96  # what is shown at 5 % with 80 % power, per half of a 95 % interval
Shares = dict[str, dict[int, float]]  # task -> seed -> return as a share of the reference


@dataclass(frozen=True)
class Options(Seeds):
    settings: str = key(",".join(STUDY["settings"]))
    tasks: str = key("half_cheetah,hopper,walker2d")
    lanes: int = key(2, ge=1)
    learn: bool = key(True)

    def check(self) -> None:
        super().check()
        self.require_names("settings", [*STUDY["settings"]])
        self.require_names("tasks", [*STUDY["tasks"]])


def study(arguments: list[str]) -> int:
    """Learns what is missing, and prints what the seeds show."""
    given, _ = read_keys(Options, arguments)
    out = make_folder(given.out) if given.out else ROOT / "docs/learning/study"
    settings, tasks = given.settings.split(","), given.tasks.split(",")
    found: dict[str, Shares] = {setting: {} for setting in settings}
    for task, setting in product(tasks, settings):
        described, kept = STUDY["tasks"][task], out / f"{task}-{setting}.json"
        if given.learn:
            keys = (*STUDY["common"], *described["overrides"], *STUDY["settings"][setting])
            whole = Task(keys, STUDY["steps"], episodes=STUDY["episodes"])
            learn(whole, given.chosen(5), False, kept.with_suffix(""), given.lanes)
            shutil.rmtree(kept.with_suffix(""), ignore_errors=True)  # runs of 30 MB or more
        rows = json.loads(kept.read_text())["ours"] if kept.exists() else []
        shares = {row["seed"]: row["return_mean"] / described["reference"] for row in rows}
        found[setting][task] = {seed: shares[seed] for seed in given.chosen(5) if seed in shares}
    print(report(found))
    return 0


def report(found: dict[str, Shares]) -> str:
    """A line for each setting, and what separates it from the first on the seeds of both."""
    first, lines = next(iter(found)), []
    for setting, tasks in found.items():
        cells = [setting]
        for task, shares in tasks.items():
            scale, values = STUDY["tasks"][task]["reference"], [*shares.values()]
            cells.append(f"{scale * np.mean(values):,.0f} ({len(values)})" if values else "")
        if not (every := [np.array([*shares.values()]) for shares in tasks.values() if shares]):
            continue
        cells.append(bounded("{:.2f}", interquartile_mean, every)[0])
        ours, theirs = paired(tasks, found[first])
        if setting == first or not ours:
            lines.append([*cells, "", "", ""])
            continue
        above, width = bounded("{:+.2f}", difference, ours, theirs)
        often, _ = bounded("{:.2f}", probability_of_improvement, ours, theirs)
        shown = f"{width / 2 * DETECTED:.2f}" if min(map(len, ours)) > 1 else ""
        lines.append([*cells, above, shown, often])
    head = ["setting", *(f"{task}: mean (seeds)" for task in found[first]), "IQM of shares (95 %)"]
    more = [f"IQM above {first}'s", "smallest difference shown", f"a run is above one of {first}"]
    return table([*head, *more], lines)


def bounded(form: str, statistic: Callable[..., float], *groups: Scores) -> tuple[str, float]:
    """(a statistic with its interval, the interval's width)."""
    low, high = map(float, interval(statistic, *groups))
    value, *ends = map(form.format, (statistic(*groups), low, high))
    return f"{value} ({' to '.join(ends)})", high - low


def paired(ours: Shares, theirs: Shares) -> list[Scores]:
    """The scores of the tasks and seeds that both have."""
    both = {task: sorted(own.keys() & theirs[task].keys()) for task, own in ours.items()}
    return [
        [np.array([side[task][seed] for seed in seeds]) for task, seeds in both.items() if seeds]
        for side in (ours, theirs)
    ]


def difference(ours: Scores, theirs: Scores) -> float:
    """Of the interquartile means."""
    return interquartile_mean(ours) - interquartile_mean(theirs)


main = partial(tool, USAGE, study, bare=True)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
