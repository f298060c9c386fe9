"""Compare runs: `python tools/compare.py runs/CartPole-v1 threshold=475`.

Reads what TensorBoard reads, puts runs into groups by what differs in their configurations, and
writes a table (comparison.md) and a picture (comparison.png).
"""

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common.errors import ConfigError  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from storage.rundir import make_by_time, make_folder, write_text  # noqa: E402
from tools.comparison.runs import Group, find, grouped, named, overlapping  # noqa: E402
from tools.comparison.statistics import (  # noqa: E402
    Scores,
    interquartile_mean,
    interval,
    pooled,
    probability_of_improvement,
    steps_to,
)
from tools.shared import Keys, key, read_keys, save, table  # noqa: E402

USAGE = """\
usage: python tools/compare.py RUNS ... [tag=eval/return_mean] [threshold=NUMBER] [out=FOLDER]

RUNS are run directories, or directories that contain some; `runs` is all of yours, except those
made by a search or by tools/reproduce.py. Runs form a group if they differ only in their seed, or
in their length at one learning rate. Runs of a task without a value at the step at which most have
one are left out. The table shows the interquartile mean of each group at the last step that all
runs of the task reach, with a 95 % interval (bootstrap). Groups with runs of every task are also
described over all tasks, with scores between the lowest and the highest run of each task, and each
pair of groups by the probability that a run of the first is above one of the second (both
bootstraps stratified by task). threshold=NUMBER adds the steps until the curve reaches NUMBER.
Without out=FOLDER, the table and its picture are written to runs/comparisons/<date-time>."""
Finals = dict[str, dict[str, np.ndarray]]  # label -> task -> scores
number, share = "{:.4g}".format, "{:.2f}".format


@dataclass(frozen=True)
class Options(Keys):
    tag: str = key("eval/return_mean")
    threshold: float | None = key(None)
    out: str = key("")

    def check(self) -> None:
        self.require(bool(self.tag), "tag", "is empty", "give a tag of docs/logging.md")


def main(arguments: list[str]) -> int:
    return tool(USAGE, compare, arguments)


def parse(arguments: list[str]) -> tuple[list[str], Options]:
    """(the paths, the options); ConfigError for what is not understood."""
    paths = [one for one in arguments if "=" not in one or Path(one).exists()]
    given, _ = read_keys(Options, [one for one in arguments if one not in paths])
    if not paths:
        raise ConfigError("runs: none are given; name run directories, or `runs`")
    return paths, given


def compare(arguments: list[str]) -> int:
    paths, given = parse(arguments)
    groups = grouped(overlapping(find(paths, given.tag)))
    out = make_folder(given.out) if given.out else make_by_time(Path("runs/comparisons"))
    text = report(groups, given)
    write_text(out / "comparison.md", text + "\n")
    draw(groups, given, out / "comparison.png")
    print(f"{text}\n\nwritten to {out}: comparison.md, comparison.png")
    return 0


def report(groups: list[Group], given: Options) -> str:
    """The tables, in Markdown."""
    head = ["task", "group", "runs", "step", f"{given.tag}: IQM", "95 %", "lowest", "highest"]
    if given.threshold is not None:
        head.append(f"steps to {given.threshold:g}, median of those that reach it")
    rows, finals = [], Finals()
    for group in groups:
        ends = [run.steps[-1] for one in groups if one.task == group.task for run in one.runs]
        last = min(ends)  # the last step that every run of the task has reached
        scores = np.array([run.at(last) for run in group.runs])
        finals.setdefault(group.label, {})[group.task] = scores
        cells = [group.task, group.label, str(len(scores)), f"{last:,.0f}"]
        cells += [number(interquartile_mean(scores)), spread(number, pooled, [scores])]
        cells += [number(scores.min()), number(scores.max())]
        if given.threshold is not None:
            found = [steps_to(run.steps, run.values, given.threshold) for run in group.runs]
            reached = [step for step in found if step is not None]
            middle = f"{np.median(reached):,.0f}, " if reached else ""
            cells.append(f"{middle}{len(reached)} of {len(found)}")
        rows.append(cells)
    parts = [table(head, rows), overall(finals), improvements(finals)]
    if cut := [run.path for group in groups for run in group.runs if run.cut]:
        parts.append(
            f"Evaluations of {named(cut)} cut episodes short (eval.max_length): such "
            "returns are of as many steps."
        )
    if any(len(group.runs) < 5 for group in groups):
        parts.append("Fewer than five runs in a group: intervals are too narrow to be believed.")
    return "\n\n".join(filter(None, parts))


def overall(finals: Finals) -> str:
    """The interquartile mean over all tasks, of the groups that have runs of each, if several do.

    All runs of a group are taken together, as in Agarwal et al. 2021 (arXiv 2108.13264).
    """
    tasks = sorted({task for of in finals.values() for task in of})
    ends = {
        task: np.concatenate([of[task] for of in finals.values() if task in of]) for task in tasks
    }
    rows = []
    for label, of in finals.items():
        if len(tasks) > 1 and len(of) == len(tasks):
            scores = [(of[task] - ends[task].min()) / (np.ptp(ends[task]) or 1.0) for task in tasks]
            counts = [str(len(tasks)), str(sum(map(len, scores)))]
            rows.append([label, *counts, share(pooled(scores)), spread(share, pooled, scores)])
    iqm = "IQM, each task's lowest run as 0, its highest as 1"
    return table(["group", "tasks", "runs", iqm, "95 %"], rows) if len(rows) > 1 else ""


def improvements(finals: Finals) -> str:
    """For each pair of groups, how likely a run of one is above a run of the other."""
    likely, rows = probability_of_improvement, []
    for first, second in itertools.combinations(finals, 2):
        if tasks := sorted({*finals[first]} & {*finals[second]}):
            pair = [[finals[label][task] for task in tasks] for label in (first, second)]
            shares = [share(likely(*pair)), spread(share, likely, *pair)]
            rows.append([first, second, str(len(tasks)), *shares])
    return (
        table(["a run of", "is above one of", "tasks", "probability", "95 %"], rows) if rows else ""
    )


def spread(form: Callable[[Any], str], statistic: Any, *groups: Scores) -> str:
    """The interval of a statistic; empty where no group has two runs of a task."""
    if all(len(scores) < 2 for group in groups for scores in group):
        return ""
    return " to ".join(map(form, interval(statistic, *groups)))


def draw(groups: list[Group], given: Options, path: Path) -> None:
    """One panel per task: the interquartile mean of each group, and its 95 % interval."""
    from matplotlib.figure import Figure

    tasks = sorted({group.task for group in groups})
    columns, rows = min(len(tasks), 3), -(-len(tasks) // 3)
    figure = Figure(figsize=(6 * columns, 3.8 * rows), layout="constrained")
    panels = dict(zip(tasks, figure.subplots(rows, columns, squeeze=False).flat, strict=False))
    for group in groups:
        axes, last = panels[group.task], min(run.steps[-1] for run in group.runs)
        begun = max(run.steps[0] for run in group.runs)
        fewest = min((run.steps for run in group.runs), key=len)
        steps = fewest[(fewest >= begun) & (fewest <= last)]
        curves = np.stack([run.at(steps) for run in group.runs])  # (runs, steps)
        (line,) = axes.plot(steps, interquartile_mean(curves, axis=0), label=group.label)
        if len(curves) > 1:
            low, high = interval(pooled, [curves])
            axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    for task, axes in panels.items():
        if given.threshold is not None:
            axes.axhline(given.threshold, color="grey", linewidth=0.8, linestyle="--")
        axes.set(xlabel="environment steps", ylabel=given.tag, title=task)
        axes.legend(fontsize="small")
    save(figure, path, dpi=110)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
