"""The report's pictures."""

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from bench.benchmark.comparisons import COMPARISONS
from bench.benchmark.measure import Result
from bench.benchmark.report import Results, ratios
from bench.benchmark.studies import ORDER, TITLES
from tools.gallery.canvas import COLOURS, DARK, DRAWN, SAID, canvas, legend, panel

PALETTE = (SAID, DRAWN, "#3f7f4f", "#8a4fa3", "#b0b0b0", "#c9a227", DARK, "#7fb5b5", "#d98cb3",
           "#e3e3e3")  # fmt: skip


def draw(results: Results) -> dict[str, Figure]:
    """All pictures for which something was measured, by name."""
    drawn: dict[str, Figure] = {}
    if any(name in results for name in COMPARISONS):
        drawn["ratios"] = ratio_bars(results)
    for name, result in results.items():
        if name in COMPARISONS and COMPARISONS[name].measure == "race":
            drawn[name] = race_curves(name, result)
    studies: Mapping[str, Callable[[Result], Figure]] = {
        "profile": profile_bars,
        "scaling": scaling_lines,
    }
    return drawn | {name: make(results[name]) for name, make in studies.items() if name in results}


def ratio_bars(results: Results) -> Figure:
    """How many times better ours is, with what was asked and aimed for."""
    shown = [ratio for ratio in ratios(results) if 0 < ratio.gain < float("inf")][::-1]
    figure = canvas(
        9.5, "Ours against each peer (less memory and time turned around: right is good)"
    )
    axes: Any = panel(figure, (1, 1, 1), "times as good", "")
    places = range(len(shown))
    axes.barh(places, [ratio.gain for ratio in shown], color=DRAWN, label="measured")
    for at, ratio in zip(places, shown, strict=True):
        if ratio.low is not None and ratio.high is not None:
            ends = sorted((ratio.turned(ratio.low), ratio.turned(ratio.high)))
            axes.plot(ends, [at, at], color=DARK, linewidth=1.5)
    for bound, colour in (("asked", SAID), ("aim", COLOURS[2])):
        marks = [ratio.turned(getattr(ratio.target, bound)) for ratio in shown]
        axes.plot(marks, places, "|", color=colour, markersize=14, markeredgewidth=2, label=bound)
    axes.set_yticks(places, [f"{ratio.comparison} / {ratio.peer['name']}" for ratio in shown])
    axes.set_xscale("log")
    plain(axes.xaxis, minor=False)
    axes.axvline(1.0, color=DARK, linewidth=0.8)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def race_curves(name: str, result: Result) -> Figure:
    """Mean return of every evaluation against the clock, one line a seed."""
    comparison = COMPARISONS[name]
    figure = canvas(9.5, f"{comparison.title}, one line a seed")
    axes = panel(figure, (1, 1, 1), "seconds since the process started", "mean return, 20 episodes")
    for side, colour in zip(result["sides"], (SAID, DARK, COLOURS[3]), strict=False):
        for index, curve in enumerate(side["curves"]):
            seconds, scores = [point[1] for point in curve], [point[2] for point in curve]
            axes.plot(seconds, scores, color=colour, linewidth=1.1, alpha=0.8, marker=".",
                      markersize=3, label=None if index else side["name"])  # fmt: skip
    axes.axhline(comparison.sides[0].spec["at_least"], color="grey", linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    plain(axes.xaxis)
    legend(axes, "lower right")
    return figure


def profile_bars(result: Result) -> Figure:
    """A bar for each width, split into the parts of a step; beside it all but the update."""
    figure = canvas(11.0, "Where the time of a SAC step goes")
    widths = list(result["parts"])
    for place, (title, parts) in enumerate(
        (("whole step", ORDER), ("all but the update", [p for p in ORDER if p != "update"])), 1
    ):
        axes = panel(figure, (1, 2, place), "µs", "", title)
        left = [0.0] * len(widths)
        for part in parts:
            size = [result["parts"][width][part] for width in widths]
            colour = PALETTE[ORDER.index(part)]
            axes.barh(range(len(widths)), size, left=left, color=colour, label=part)
            left = [before + more for before, more in zip(left, size, strict=True)]
        axes.set_yticks(range(len(widths)), [f"2×{width}" for width in widths])
        if place == 1:
            figure.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


def scaling_lines(result: Result) -> Figure:
    """One panel for each size that grows."""
    figure = canvas(13.0, "How cost grows")
    for place, (name, rows) in enumerate(result["grown"].items(), 1):
        many = name == "environments"
        wanted = "environment steps/s" if many else "µs per update"
        axes = panel(figure, (1, len(result["grown"]), place), name, wanted,
                     TITLES[name].partition(":")[0].replace(", ", ",\n", 1))  # fmt: skip
        axes.plot([row[0] for row in rows], [row[1 if many else 2] for row in rows],
                  color=SAID, marker="o", markersize=4)  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        plain(axes.xaxis, minor=False)
    return figure


def plain(axis: Any, minor: bool = True) -> None:
    """Writes the numbers of a logarithmic axis without powers."""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("{x:g}" if minor else "")
