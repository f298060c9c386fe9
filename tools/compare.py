"""Compare runs: `python tools/compare.py runs/CartPole-v1 threshold=475`."""

import csv
import io
import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.errors import ConfigError
from runtime.console import aligned
from runtime.curves import read_curves
from runtime.launch.door import tool
from storage.rundir import make_by_time, make_folder, write_text
from tools import comparison
from tools.comparison import MOST, Groups, Scores, interval, named
from tools.published import Published, beside, lines, published
from tools.shared import Keys, key, read_keys, save, table

USAGE = """\
usage: python tools/compare.py RUNS ... [tag=eval/return_mean] [threshold=NUMBER] [out=FOLDER]
                               [csv=true] [published=half_cheetah,hopper,...]

RUNS are run directories, or directories that contain some; `runs` is all of yours, except those
made by a search or by tools/reproduce.py. Runs form a group if they differ only in their seed, or
in their length at one learning rate. Left out are runs that cannot be read, all but the longest
of one seed and the same settings, and runs of a task that end before, or begin after, a step at
which most have a value.

The table shows the mean of each group at the last step that all runs of the task reach (between two
points of a curve, on the line), with a 95 % interval (bootstrap), the highest mean first. A
sentence tells whether so many runs show that the two highest means differ; if not, how large a
difference they would show, and how many runs would show this one (Welch's t test). Groups with
runs of every task are also compared over all tasks, by the interquartile mean of scores between the
lowest and the highest run of each task, and each pair of groups by the probability that a run of
the first is above one of the second (both bootstraps stratified by task).

threshold=NUMBER   adds the steps until the curve reaches NUMBER
csv=true           writes all curves of these runs as a file with the columns run, tag, step, value
published=NAME     draws curves that authors published of half_cheetah, hopper, walker2d, ant or
                   humanoid behind yours, up to your last step, and adds a line for each: version of
                   the task, seeds, updates per step, parameters, licence and source
out=FOLDER         for the table and its picture; without it, runs/comparisons/<date-time>"""
Finals = dict[str, dict[str, np.ndarray]]  # label -> task -> scores
Others = dict[str, list[Published]]  # task -> published curves
number, share = "{:.4g}".format, "{:.2f}".format


@dataclass(frozen=True)
class Options(Keys):
    tag: str = key("eval/return_mean")
    threshold: float | None = key(None)
    out: str = key("")
    csv: bool = key(False)
    published: str = key("")

    def check(self) -> None:
        self.require(bool(self.tag), "tag", "is empty", "give a tag of docs/logging.md")
        if self.published:
            self.require_names("published", [*published()])
            why = f"are returns, and tag is {self.tag}"
            self.require(self.tag == "eval/return_mean", "published", why, "leave it out")


def parse(arguments: list[str]) -> tuple[list[str], Options]:
    """(paths, options); ConfigError for an unknown key, a bad value, or no path."""
    paths = [one for one in arguments if "=" not in one or Path(one).exists()]
    given, _ = read_keys(Options, [one for one in arguments if one not in paths])
    if not paths:
        raise ConfigError("runs: none are given; name run directories, or `runs`")
    return paths, given


def compare(arguments: list[str]) -> int:
    paths, given = parse(arguments)
    groups = comparison.grouped(comparison.overlapping(comparison.find(paths, given.tag)))
    others = beside(given.published, list(dict.fromkeys(task for task, _ in groups)))
    out = make_folder(given.out) if given.out else make_by_time(Path("runs/comparisons"))
    text = report(groups, given, others)
    write_text(out / "comparison.md", text + "\n")
    draw(groups, given, others, out / "comparison.png")
    if given.csv:
        write_text(out / "curves.csv", curves(groups))
    more = ", curves.csv" * given.csv
    print(f"{aligned(text)}\n\nwritten to {out}: comparison.md, comparison.png{more}")
    return 0


def curves(groups: Groups) -> str:
    """All curves of all runs, as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["run", "tag", "step", "value"])
    for run in itertools.chain.from_iterable(groups.values()):
        for tag, curve in read_curves(run.path).items():
            rows.writerows((run.path, tag, step, value) for step, value in curve)
    return text.getvalue()


def report(groups: Groups, given: Options, others: Others) -> str:
    """The tables, in Markdown."""
    head = ["task", "group", "runs", "step", f"{given.tag}: mean", "95 %", "lowest", "highest"]
    if given.threshold is not None:
        head.append(f"median steps to {given.threshold:g}, runs")
    rows, finals, ranked, ends = [], Finals(), dict[str, list[str]](), dict[str, float]()
    for (task, label), (last, scores) in comparison.scored(groups).items():
        runs, ends[task] = groups[task, label], last
        finals.setdefault(label, {})[task] = scores
        ranked.setdefault(task, []).append(label)
        cells = [task, label, str(len(runs)), f"{last:,.0f}"]
        cells += estimate(number, comparison.mean, [scores])
        cells += [number(scores.min()), number(scores.max())]
        if given.threshold is not None:
            reached = [
                run.steps[run.values >= given.threshold][0]  # the first step of a curve there
                for run in runs
                if run.values.max() >= given.threshold
            ]
            middle = f"{np.median(reached):,.0f}, " if reached else ""
            cells.append(f"{middle}{len(reached)} of {len(runs)}")
        rows.append(cells)
    parts = [table(head, rows)]
    for task, labels in ranked.items():
        best = {label: finals[label][task] for label in labels[:2]}
        parts.append(f"{task}: {ranking(best) if labels[1:] else ''}{verdict(*best.values())}")
    for task, theirs in others.items():
        parts.append("\n".join(f"- {line}" for line in lines(theirs, task, ends[task])))
    parts += [overall(finals), improvements(finals)]
    if cut := [run.path for runs in groups.values() for run in runs if run.cut]:
        parts.append(f"Evaluations of {named(cut)} cut episodes short (eval.max_length).")
    names = {f"{label}: {runs[0].group}" for (_, label), runs in groups.items()}
    parts.append("\n\n".join(sorted(name for name in names if name.startswith("#"))))
    sizes = [len(runs) for runs in groups.values()]
    if min(sizes) < 5 and max(sizes) > 1:  # single runs have no interval
        parts.append("Fewer than five runs in a group: their intervals are too narrow.")
    return "\n\n".join(filter(None, parts))


def ranking(best: dict[str, np.ndarray]) -> str:
    """Which group has the highest mean, with a remark if its runs are mostly below the next."""
    (first, ours), (second, theirs) = best.items()
    if ours.mean() == theirs.mean():
        return f"{first} and {second} have the same mean. "
    often = comparison.probability_of_improvement([ours], [theirs])
    but = f", though a run of it is above one of the next with probability {share(often)}"
    return f"{first} has the highest mean, {second} the next{but * (often < 0.5)}. "


def verdict(ours: np.ndarray, theirs: np.ndarray | None = None) -> str:
    """Whether so many runs show, at 5 %, that two means differ; if not, what they would show."""
    counts = f"{len(ours)} and {len(theirs)} runs" if theirs is not None else f"{len(ours)} runs"
    sides = [ours, ours if theirs is None else theirs]
    if min(map(len, sides)) == 1:
        return "One run has no spread; train five or more of each group."
    if not sum(map(np.ptp, sides)) > 0:
        return "These runs have no spread."
    p, least, needed = comparison.welch(*sides)
    size = f"show a difference of {number(least)} or more"
    if theirs is None:
        return f"{counts} of each group, with this spread, {size} (Welch's t test, 80 % power)."
    chance = f"(Welch's t test, {'p < 0.001' if p < 0.001 else f'p = {p:.2g}'})"
    if p <= 0.05:
        return f"{counts} show that they differ {chance}."
    seen = number(abs(ours.mean() - theirs.mean()))
    more = f"; to show the {seen} seen here takes {needed:,} of each" if needed < MOST else ""
    not_shown = f"{counts} do not show that they differ {chance}"
    return f"{not_shown}. With this spread they {size} with 80 % power{more}."


def estimate(form: Callable[[Any], str], statistic: Any, *groups: Scores) -> list[str]:
    """[a statistic, its interval]; no interval where no group has two runs of a task."""
    several = any(len(scores) > 1 for group in groups for scores in group)
    ends = interval(statistic, *groups) if several else ()
    return [form(statistic(*groups)), " to ".join(map(form, ends))]


def overall(finals: Finals) -> str:
    """The interquartile mean over all tasks, of groups with runs of each, if there are several.

    All runs of a group are taken together, as in Agarwal et al. 2021 (arXiv 2108.13264).
    """
    tasks = sorted({task for scores in finals.values() for task in scores})
    rows = []
    for label, scores in finals.items():
        if len(scores) == len(tasks) > 1:
            scaled = []
            for task in tasks:
                every = np.concatenate([one[task] for one in finals.values() if task in one])
                scaled.append((scores[task] - every.min()) / (np.ptp(every) or 1.0))
            counts = [str(len(tasks)), str(sum(map(len, scaled)))]
            rows.append([label, *counts, *estimate(share, comparison.interquartile_mean, scaled)])
    rows.sort(key=lambda row: -float(row[3]))
    few = " (the mean, of fewer than 4 runs)" * any(int(row[2]) < 4 for row in rows)
    over = f"IQM{few}, each task's lowest run as 0, its highest as 1"
    return table(["group", "tasks", "runs", over, "95 %"], rows) if len(rows) > 1 else ""


def improvements(finals: Finals) -> str:
    """For each pair of groups, the probability that a run of one is above a run of the other."""
    rows = []
    for first, second in itertools.combinations(finals, 2):
        if tasks := sorted({*finals[first]} & {*finals[second]}):
            pair = [[finals[label][task] for task in tasks] for label in (first, second)]
            likely = estimate(share, comparison.probability_of_improvement, *pair)
            rows.append([first, second, str(len(tasks)), *likely])
    head = ["a run of", "is above one of", "tasks", "probability", "95 %"]
    return table(head, rows) if rows else ""


def draw(groups: Groups, given: Options, others: Others, path: Path) -> None:
    """One panel per task: the mean of each group, and its 95 % interval."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    tasks = sorted({task for task, _ in groups})
    columns, rows = min(len(tasks), 3), math.ceil(len(tasks) / 3)
    figure = Figure(figsize=(6 * columns, 3.8 * rows), layout="constrained")
    every = [*figure.subplots(rows, columns, squeeze=False).flat]
    panels = dict(zip(tasks, every, strict=False))
    for empty in every[len(tasks) :]:
        empty.remove()
    for (task, label), runs in groups.items():
        first, last = max(run.steps[0] for run in runs), min(run.steps[-1] for run in runs)
        fewest = min((run.steps for run in runs), key=len)
        steps = fewest[(fewest >= first) & (fewest <= last)]
        curves = np.stack([run.at(steps) for run in runs])  # (runs, steps)
        mark = "." if len(steps) == 1 else "-"
        (line,) = panels[task].plot(steps, curves.mean(0), mark, label=label)
        if len(curves) > 1:
            ends = interval(comparison.mean, [curves])
            panels[task].fill_between(steps, *ends, color=line.get_color(), alpha=0.2, linewidth=0)
    for task, axes in panels.items():
        last = axes.dataLim.x1
        theirs = [one for one in others.get(task, []) if one.steps[0] <= last]
        for index, one in enumerate(theirs):
            near, label = one.steps <= last, f"{one.source['who']}, {one.task}"
            color = colormaps["tab20"](2 * index + 1)  # the pale ones
            axes.plot(one.steps[near], one.mean[near], ".--", color=color, zorder=1, label=label)
        if given.threshold is not None:
            axes.axhline(given.threshold, color="grey", linewidth=0.8, linestyle="--")
        axes.set(xlabel="environment steps", ylabel=given.tag, title=fill(task, 40))
        aside = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if theirs else {}
        axes.legend(fontsize="small", **aside)
    save(figure, path, dpi=110)


main = partial(tool, USAGE, compare)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
