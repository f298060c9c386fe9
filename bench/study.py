"""Settings of SAC on several tasks: `python bench/study.py settings=raw,unit seeds=100-104`.

Trains and evaluates what bench/study.yaml describes and docs/learning/study.json does not have yet,
and prints what its rows show. It may be stopped at any time, and continued.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from threading import Event

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.commands import Row, Seeds, train_and_evaluate  # noqa: E402
from bench.contestant import UNSEEN  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from storage.rundir import make_folder, write_text  # noqa: E402
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
                             [lanes=2] [rows=docs/learning/study.json] [out=FOLDER]
Trains with each of the settings on each task, ten minutes or more of one core for each seed, and
compares the returns with those of the first setting; learn=false compares what is known"""
Job = tuple[int, str, str]  # seed, task, setting
DETECTED = (1.96 + 0.84) / 1.96  # what is shown at 5 % with 80 % power, per half of a 95 % interval


@dataclass(frozen=True)
class Options(Seeds):
    settings: str = key(",".join(STUDY["settings"]))
    tasks: str = key("half_cheetah,hopper,walker2d")
    rows: str = key(str(ROOT / "docs/learning/study.json"))
    lanes: int = key(2, ge=1)
    learn: bool = key(True)

    def check(self) -> None:
        super().check()
        self.require_names("settings", [*STUDY["settings"]])
        self.require_names("tasks", [*STUDY["tasks"]])


def main(arguments: list[str]) -> int:
    return tool(USAGE, study, arguments, bare=True)


def study(arguments: list[str]) -> int:
    """Learns what is missing, and prints what all rows of the seeds show."""
    given, _ = read_keys(Options, arguments)
    settings, tasks, seeds = given.settings.split(","), given.tasks.split(","), given.chosen(5)
    kept = Path(given.rows)
    rows: list[Row] = json.loads(kept.read_text()) if kept.exists() else []
    if given.learn:
        folder = make_folder(given.out or "runs/study")
        known = {(row["seed"], row["task"], row["setting"]) for row in rows}
        left = [job for job in product(seeds, tasks, settings) if job not in known]
        for row in learned(left, folder, given.lanes):
            rows.append(row)
            write_text(kept, "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    print(report([row for row in rows if row["seed"] in seeds], settings, tasks))
    return 0


def learned(jobs: Sequence[Job], folder: Path, lanes: int) -> Iterator[Row]:
    """A row of each job, in the order in which they end; so many at once, on one thread each."""
    revision = subprocess.check_output(
        ["git", "rev-parse", "--short=7", "HEAD"], cwd=ROOT, text=True
    )
    every, failed = STUDY["steps"] // 10, Event()

    def one(seed: int, task: str, setting: str) -> Row | None:
        if failed.is_set():
            return None
        try:
            own = folder / f"{task}-{setting}-{seed}"
            shutil.rmtree(own, ignore_errors=True)  # of a process that was stopped
            overrides = [*STUDY["common"], *STUDY["tasks"][task]["overrides"]]
            overrides += STUDY["settings"][setting]
            overrides += [f"total_steps={STUDY['steps']}", f"eval.every={every}", "threads=1"]
            evaluation = (f"episodes={STUDY['episodes']}", f"seed={UNSEEN + seed}")
            row, _ = train_and_evaluate(overrides, seed, own, *evaluation)
        except BaseException:
            failed.set()
            raise
        shutil.rmtree(own)  # its replay alone has 30 MB or more
        return {"setting": setting, "task": task, "commit": revision.strip(), **row}

    with ThreadPoolExecutor(lanes) as pool:
        for due in as_completed([pool.submit(one, *job) for job in jobs]):
            if row := due.result():
                yield row


def report(rows: Sequence[Row], settings: Sequence[str], tasks: Sequence[str]) -> str:
    """A line for each setting, and what separates it from the first on the seeds of both."""

    def returns(setting: str, task: str) -> dict[int, float]:
        own = (row for row in rows if (row["setting"], row["task"]) == (setting, task))
        return {row["seed"]: row["return_mean"] / STUDY["tasks"][task]["reference"] for row in own}

    first, lines = settings[0], []
    for setting in settings:
        found = {task: returns(setting, task) for task in tasks}
        cells = [setting]
        for task, shares in found.items():
            scale, values = STUDY["tasks"][task]["reference"], [*shares.values()]
            cells.append(f"{scale * np.mean(values):,.0f} ({len(values)})" if values else "")
        ours, theirs = paired(found, {task: returns(first, task) for task in tasks})
        if not ours:
            lines.append([*cells, "", "", "", ""])
            continue
        low, high = interval(interquartile_mean, ours)
        cells.append(f"{interquartile_mean(ours):.2f} ({low:.2f} to {high:.2f})")
        if setting == first:
            lines.append([*cells, "", "", ""])
            continue
        low, high = interval(difference, ours, theirs)
        cells.append(f"{difference(ours, theirs):+.2f} ({low:+.2f} to {high:+.2f})")
        cells.append(f"{(high - low) / 2 * DETECTED:.2f}")
        low, high = interval(probability_of_improvement, ours, theirs)
        often = probability_of_improvement(ours, theirs)
        lines.append([*cells, f"{often:.2f} ({low:.2f} to {high:.2f})"])
    head = ["setting", *(f"{task}: mean (seeds)" for task in tasks), "IQM of shares (95 %)"]
    more = [f"IQM above {first}'s", "smallest difference shown", f"a run is above one of {first}"]
    return table([*head, *more], lines)


def paired(ours: dict[str, dict[int, float]], theirs: dict[str, dict[int, float]]) -> list[Scores]:
    """The scores of the tasks and seeds that both have."""
    both = {task: sorted(own.keys() & theirs[task].keys()) for task, own in ours.items()}
    return [
        [np.array([side[task][seed] for seed in seeds]) for task, seeds in both.items() if seeds]
        for side in (ours, theirs)
    ]


def difference(ours: Scores, theirs: Scores) -> float:
    """Of the interquartile means."""
    return interquartile_mean(ours) - interquartile_mean(theirs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
