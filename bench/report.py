"""What was measured as Markdown: medians, paired ratios, targets. All of it is in bench.json."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.measure import COMPARISONS, Comparison, Result, Spec
from tools.shared import table

Results = Mapping[str, Result]
INTRODUCTION = """\
Each block is a process of its own, which is warmed up (imports, compilation, first updates) and
then trains for a few seconds. The sides of a comparison take turns, A B A B ..., and figures are
medians over the blocks. A ratio is the median over pairs of consecutive blocks, with the smallest
and the largest of them, so that temporary load on a shared machine affects both blocks of a pair.
If a peer is measured with one and with two threads, the better result counts. Rates are those of
training, without evaluations and saving."""
HEADER = ["comparison", "ours", "peer", "ratio", "asked", "aim", "reached"]


@dataclass(frozen=True)
class Ratio:
    """One peer against ours: the median of the ratios of pairs, their extremes, and the target.

    What slows the machine for a while slows both of a pair.
    """

    name: str
    comparison: Comparison
    ours: Result
    peer: Result

    @property
    def target(self) -> tuple[float, float]:
        return self.comparison.targets[self.peer["name"]]

    @property
    def pairs(self) -> list[float]:
        values = zip(self.ours["values"], self.peer["values"], strict=True)
        return [ours / peer for ours, peer in values]

    @property
    def reached(self) -> str:
        """`aim`, `asked` or `no`."""
        holds = operator.le if self.comparison.less_is_better else operator.ge
        asked, aim = (holds(median(self.pairs), bound) for bound in self.target)
        return "aim" if aim else "asked" if asked else "no"

    @property
    def cells(self) -> list[str]:
        """The row of the table."""
        sign, unit = "≤" if self.comparison.less_is_better else "≥", self.comparison.unit
        value, low, high = map(number, (median(self.pairs), min(self.pairs), max(self.pairs)))
        return [
            self.name,
            f"{number(median(self.ours['values']))} {unit}",
            f"{label(self.peer)}: {number(median(self.peer['values']))} {unit}",
            f"{value} ({low} to {high})",
            *(f"{sign} {bound:g}" for bound in self.target),
            self.reached,
        ]


def ratios(results: Results) -> list[Ratio]:
    """Ours, the first side, against the better variant of each peer, of all comparisons."""
    made = []
    for name, result in results.items():
        comparison, (ours, *others) = COMPARISONS[name], result["sides"]
        better = min if comparison.less_is_better else max
        for peer in comparison.targets:
            variants = [side for side in others if side["name"] == peer]
            best = better(variants, key=lambda side: float(median(side["values"])))
            made.append(Ratio(name, comparison, ours, best))
    return made


def label(side: Result) -> str:
    return f"{side['name']}, {side['variant']}" if side["variant"] else str(side["name"])


def number(value: float) -> str:
    """Three digits, whole numbers from 100 on with separators."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def markdown(results: Results, more: Sequence[str] = ()) -> str:
    """The report, with more paragraphs after the introduction."""
    measured = {name: result["measured"] for name, result in results.items()}
    machines = {f"{one['machine']}; {versions(one['versions'])}": None for one in measured.values()}
    rows = [
        [f"`{name}`", m["date"], m["revision"][:12], f"{m['load']:.1f}", f"`{m['command']}`"]
        for name, m in measured.items()
    ]
    parts = [
        "# Performance",
        *(f"Measured on {machine}." for machine in machines),
        table(["what", "date", "commit", "load before", "command"], rows),
        INTRODUCTION,
        *more,
        table(HEADER, [ratio.cells for ratio in ratios(results)]),
    ]
    for name, result in results.items():
        parts += section(name, COMPARISONS[name], result["sides"])
    return "\n\n".join(parts) + "\n"


def versions(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def section(name: str, comparison: Comparison, sides: Sequence[Result]) -> list[str]:
    """One comparison: what it is, the sides with the cores that each used, and their settings."""
    header, rows = ["side", f"median, {comparison.unit}", "lowest", "highest"], []
    for side in sides:
        values = side["values"]
        rows.append([label(side), *map(number, (median(values), min(values), max(values)))])
        if "cores" in side:
            rows[-1].append(f"{median(side['cores']):.2f}")
    lines = [f"* {side.name}: {described(side.spec)}" for side in comparison.contestants]
    return [
        f"## {name}: {comparison.title}",
        comparison.note,
        table([*header, "cores used"][: len(rows[0])], rows),
        "\n".join(dict.fromkeys(lines)),
    ]


def described(spec: Spec) -> str:
    """The settings of a side, in words that can be typed."""
    if "command" in spec:
        return f"`python {' '.join(spec['command'])}`"
    if "overrides" in spec:
        return f"`train.py {' '.join(spec['overrides'])}`"
    settings = ", ".join(f"{name}={value!r}" for name, value in spec["settings"].items())
    return f"`{spec['algorithm']}({settings})`, environments: {spec.get('num_envs', 1)}"
