"""Compare runs: `python tools/compare.py runs/CartPole-v1 threshold=475`.

Reads what TensorBoard reads, puts runs into groups by what differs in their configurations, and
writes a table (comparison.md) and a picture (comparison.png).
"""

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common.errors import ConfigError, StorageFault, remedy  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from storage.rundir import make_by_time, make_folder, write_text  # noqa: E402
from tools.comparison.runs import (  # noqa: E402
    Group,
    find,
    grouped,
    named,
    overlapping,
)
from tools.comparison.statistics import (  # noqa: E402
    interquartile_mean,
    interval,
    pooled,
    probability_of_improvement,
    steps_to,
)

USAGE = """\
usage: python tools/compare.py RUNS ... [tag=eval/return_mean] [threshold=NUMBER] [out=FOLDER]

RUNS are run directories, or directories that hold some; `runs` is all of yours, but for what a
search or tools/reproduce.py made. Runs that differ in their seed alone, or in how long they went on
at one learning rate, form a group. Runs of a task that have no value at the step at which most have
one are left out. Each group is described by the interquartile mean of its runs at the last step
that all of the task reach, with a 95 % interval (bootstrap). Groups with runs of every task are
described over all of them, too, each score between the lowest and the highest run of its task, and
each pair of groups by how likely a run of the first is above one of the second (both bootstraps
stratified by task). threshold=NUMBER adds the steps until the curve is there.
Without out=FOLDER, the table and its picture go to runs/comparisons/<date-time>."""


@dataclass
class Options:
    """What the command line asks for."""

    paths: list[str]
    tag: str = "eval/return_mean"
    threshold: float | None = None
    out: str = ""


def main(arguments: list[str]) -> int:
    """Compares; returns the exit code."""
    return tool(USAGE, lambda given: compare(parse(given)), arguments)


def parse(arguments: list[str]) -> Options:
    """Raises ConfigError for what is not understood."""
    options = Options([])
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or Path(argument).exists():
            options.paths.append(argument)
        elif name == "threshold":
            try:
                options.threshold = float(value)
            except ValueError:
                raise ConfigError(f"threshold: {value!r} is no number; give one") from None
        elif name in ("tag", "out") and value:
            setattr(options, name, value)
        elif name != "debug":
            raise ConfigError(f"{name}: {argument!r} is not understood; --help shows what is")
    if not options.paths:
        raise ConfigError("runs: none are given; name run directories, or `runs`")
    return options


def compare(options: Options) -> int:
    groups = grouped(overlapping(find(options.paths, options.tag)))
    out = make_folder(options.out) if options.out else make_by_time(Path("runs/comparisons"))
    text = report(groups, options)
    write_text(out / "comparison.md", text + "\n")
    draw(groups, options, out / "comparison.png")
    print(f"{text}\n\nwritten to {out}: comparison.md, comparison.png")
    return 0


def report(groups: list[Group], options: Options) -> str:
    """The tables, in Markdown."""
    head = ["task", "group", "runs", "step", f"{options.tag}: IQM", "95 %", "lowest", "highest"]
    if options.threshold is not None:
        head.append(f"steps to {options.threshold:g}, median of those that reach it")
    lines = [row(head), row(["---"] * len(head))]
    for group in groups:
        last = last_step(groups, group.task)
        scores = final(group, last)
        low, high = interval(pooled, [scores])
        cells = [group.task, group.label, str(len(scores)), f"{last:,.0f}"]
        cells += [number(interquartile_mean(scores)), f"{number(low)} to {number(high)}"]
        cells += [number(scores.min()), number(scores.max())]
        if options.threshold is not None:
            found = [steps_to(run.steps, run.values, options.threshold) for run in group.runs]
            reached = [step for step in found if step is not None]
            middle = f"{np.median(reached):,.0f}, " if reached else ""
            cells.append(f"{middle}{len(reached)} of {len(found)}")
        lines.append(row(cells))
    by_label = finals(groups)
    lines += [*overall(by_label), *improvements(by_label)]
    if cut := [run.path for group in groups for run in group.runs if run.cut]:
        lines += [
            "",
            f"Evaluations of {named(cut)} cut episodes short (eval.max_length): such "
            "returns are of as many steps.",
        ]
    if any(len(group.runs) < 5 for group in groups):
        lines += ["", "Fewer than five runs in a group: intervals are too narrow to be believed."]
    return "\n".join(lines)


Finals = dict[str, dict[str, np.ndarray]]  # label -> task -> scores


def finals(groups: list[Group]) -> Finals:
    """What the runs of each group came to."""
    by_label: Finals = {}
    for group in groups:
        scores = final(group, last_step(groups, group.task))
        by_label.setdefault(group.label, {})[group.task] = scores
    return by_label


def overall(by_label: Finals) -> list[str]:
    """The interquartile mean over all tasks, of the groups that have runs of each, if several do.

    All runs of a group are taken together, as in Agarwal et al. 2021 (arXiv 2108.13264).
    """
    tasks = sorted({task for of in by_label.values() for task in of})
    ends = {
        task: np.concatenate([of[task] for of in by_label.values() if task in of]) for task in tasks
    }
    lines = []
    for label, of in by_label.items():
        if len(tasks) > 1 and len(of) == len(tasks):
            scores = [(of[task] - ends[task].min()) / (np.ptp(ends[task]) or 1.0) for task in tasks]
            low, high = interval(pooled, scores)
            counts = [str(len(tasks)), str(sum(map(len, scores)))]
            lines.append(row([label, *counts, f"{pooled(scores):.2f}", f"{low:.2f} to {high:.2f}"]))
    iqm = "IQM, each task's lowest run as 0, its highest as 1"
    return under(["group", "tasks", "runs", iqm, "95 %"], lines if len(lines) > 1 else [])


def improvements(by_label: Finals) -> list[str]:
    """For each pair of groups, how likely a run of one is above a run of the other."""
    lines = []
    for first, second in itertools.combinations(by_label, 2):
        tasks = sorted(set(by_label[first]) & set(by_label[second]))
        if tasks:
            pair = [[by_label[label][task] for task in tasks] for label in (first, second)]
            low, high = interval(probability_of_improvement, *pair)
            share = f"{probability_of_improvement(*pair):.2f}"
            lines.append(row([first, second, str(len(tasks)), share, f"{low:.2f} to {high:.2f}"]))
    return under(["a run of", "is above one of", "tasks", "probability", "95 %"], lines)


def under(head: list[str], lines: list[str]) -> list[str]:
    """The lines as a table of their own; nothing where there are none."""
    return ["", row(head), row(["---"] * len(head)), *lines] if lines else []


def last_step(groups: list[Group], task: str) -> float:
    """The last step that every run of the task has reached."""
    return min(float(run.steps[-1]) for g in groups if g.task == task for run in g.runs)


def final(group: Group, step: float) -> np.ndarray:
    return np.array([float(run.at(np.array(step))) for run in group.runs])


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def number(value: np.ndarray | float) -> str:
    return f"{float(value):.4g}"


def draw(groups: list[Group], options: Options, path: Path) -> None:
    """One panel per task: the interquartile mean of each group, and its 95 % interval."""
    from matplotlib.figure import Figure

    tasks = sorted({group.task for group in groups})
    columns, rows = min(len(tasks), 3), -(-len(tasks) // 3)
    figure = Figure(figsize=(6 * columns, 3.8 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, task in zip(panels, tasks, strict=False):
        for group in (group for group in groups if group.task == task):
            last = min(float(run.steps[-1]) for run in group.runs)
            fewest = min((run.steps for run in group.runs), key=len)
            begun = max(float(run.steps[0]) for run in group.runs)
            steps = fewest[(fewest >= begun) & (fewest <= last)]
            curves = np.stack([run.at(steps) for run in group.runs])  # (runs, steps)
            (line,) = axes.plot(steps, interquartile_mean(curves, axis=0), label=group.label)
            if len(curves) > 1:
                low, high = interval(pooled, [curves])
                axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        if options.threshold is not None:
            axes.axhline(options.threshold, color="grey", linewidth=0.8, linestyle="--")
        axes.set(xlabel="environment steps", ylabel=options.tag, title=task)
        axes.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise StorageFault(f"{path}: cannot be written, {error}; {remedy(error)}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
