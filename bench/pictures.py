"""The report's pictures."""

from typing import Any

from matplotlib.figure import Figure

from bench.comparisons import COMPARISONS
from bench.measure import Result
from bench.report import Results, ratios
from tools.gallery.pictures import COLOURS, DARK, DENSITY, DRAWN, canvas, legend, panel


def draw(results: Results) -> dict[str, Figure]:
    """All pictures for which something was measured, by name."""
    compared = any(name in results for name in COMPARISONS)
    drawn = {"ratios": ratio_bars(results)} if compared else {}
    for name, result in results.items():
        if name in COMPARISONS and COMPARISONS[name].measure == "race":
            drawn[name] = race_curves(name, result)
    return drawn


def ratio_bars(results: Results) -> Figure:
    """How many times better ours is, with what was asked and aimed for."""
    shown = [ratio for ratio in ratios(results) if 0 < ratio.gain < float("inf")][::-1]
    title = "Ours against each peer (less memory and time turned around: right is good)"
    figure = canvas(9.5, title)
    axes: Any = panel(figure, (1, 1, 1), "times as good", "")
    places = range(len(shown))
    axes.barh(places, [ratio.gain for ratio in shown], color=DRAWN, label="measured")
    for at, ratio in zip(places, shown, strict=True):
        if ratio.spread:
            axes.plot(sorted(map(ratio.turned, ratio.spread)), [at, at], color=DARK, linewidth=1.5)
    for bound, colour in (("asked", DENSITY), ("aim", COLOURS[2])):
        marks = [ratio.turned(getattr(ratio.target, bound)) for ratio in shown]
        axes.plot(marks, places, "|", color=colour, markersize=14, markeredgewidth=2, label=bound)
    axes.set_yticks(places, [f"{ratio.name} / {ratio.peer['name']}" for ratio in shown])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.axvline(1.0, color=DARK, linewidth=0.8)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def race_curves(name: str, result: Result) -> Figure:
    """Mean return of every evaluation against the clock, one line a seed."""
    comparison = COMPARISONS[name]
    figure = canvas(9.5, f"{comparison.title}, one line a seed")
    axes = panel(figure, (1, 1, 1), "seconds since the process started", "mean return, 20 episodes")
    for side, colour in zip(result["sides"], (DENSITY, DARK, COLOURS[3]), strict=False):
        style = {"color": colour, "linewidth": 1.1, "alpha": 0.8, "marker": ".", "markersize": 3}
        for index, curve in enumerate(side["curves"]):
            seconds, scores = [point[1] for point in curve], [point[2] for point in curve]
            axes.plot(seconds, scores, label=None if index else side["name"], **style)
    axes.axhline(comparison.sides[0].spec["at_least"], color="grey", linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    legend(axes, "lower right")
    return figure
