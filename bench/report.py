"""What was measured as Markdown: medians, paired ratios, targets. All of it is in bench.json."""

import math
import operator
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.comparisons import COMPARISONS, Comparison, Spec, Target
from bench.measure import Result
from tools.shared import table

Results = Mapping[str, Result]
NEVER = "never"
AROUND = 250.0  # microseconds asked of all but the update, at most
INTRODUCTION = """\
Each contestant runs in its own process and is warmed up before the measurement (imports,
compilation, first updates). The contestants of a comparison then run in turn, A B A B ..., in
blocks of a few seconds, while the others wait. Figures are medians over the blocks. A ratio is the
median over pairs of consecutive blocks, with the smallest and the largest of them, so that
temporary load on a shared machine affects both blocks of a pair. If a peer is measured with one and
with two threads, the better result counts. Rates are those of training, without evaluations and
saving."""
HEADER = ["comparison", "ours", "peer", "ratio", "asked", "aim", "reached"]


# ratios


@dataclass(frozen=True)
class Ratio:
    """One peer against ours: the median of the paired ratios, their extremes, and the target."""

    name: str
    comparison: Comparison
    ours: Result
    peer: Result
    value: float
    spread: tuple[float, float] | None  # nothing is paired in a race, in which seeds are not alike
    target: Target

    @property
    def reached(self) -> str:
        """`aim`, `asked` or `no`."""
        holds = operator.le if self.comparison.at_most else operator.ge
        bounds = (("aim", self.target.aim), ("asked", self.target.asked))
        return next((name for name, bound in bounds if holds(self.value, bound)), "no")

    @property
    def gain(self) -> float:
        """The ratio, turned around where less is better: more is always better."""
        return self.turned(self.value)

    def turned(self, value: float) -> float:
        return 1.0 / value if self.comparison.at_most and value else value

    @property
    def cells(self) -> list[str]:
        """The row of the table."""
        spread = " ({} to {})".format(*map(number, self.spread)) if self.spread else ""
        shown = "∞" if math.isinf(self.value) else number(self.value)
        sign, unit = "≤" if self.comparison.at_most else "≥", self.comparison.unit
        return [
            self.name,
            amount(median(self.ours["values"]), unit),
            f"{label(self.peer)}: {amount(median(self.peer['values']), unit)}",
            f"{shown}{spread}",
            f"{sign} {self.target.asked:g}",
            f"{sign} {self.target.aim:g}",
            self.reached,
        ]


def compare(name: str, comparison: Comparison, sides: Sequence[Result]) -> list[Ratio]:
    """Ours, the first side, against the better variant of each peer."""
    ours, made = sides[0], []
    choose = min if comparison.lower_is_better else max
    for peer_name, target in comparison.targets.items():
        variants = [side for side in sides[1:] if side["name"] == peer_name]
        peer = choose(variants, key=lambda side: median(side["values"]))
        if comparison.measure == "race":
            value, spread = divided(median(peer["values"]), median(ours["values"])), None
        else:
            pairs = paired(ours["values"], peer["values"])
            value, spread = median([*pairs]), (min(pairs), max(pairs))
        made.append(Ratio(name, comparison, ours, peer, value, spread, target))
    return made


def ratios(results: Results) -> list[Ratio]:
    """All ratios, in the order of the comparisons."""
    return [
        ratio
        for name, comparison in COMPARISONS.items()
        if name in results
        for ratio in compare(name, comparison, results[name]["sides"])
    ]


def median(values: list[float | None]) -> float:
    """The median, where None counts as infinite: it never happened."""
    return statistics.median(math.inf if value is None else value for value in values)


def paired(ours: Sequence[float], peer: Sequence[float]) -> list[float]:
    """ours / peer, block by block: what slows the machine for a while slows both of a pair."""
    return [divided(one, other) for one, other in zip(ours, peer, strict=True)]


def divided(one: float, other: float) -> float:
    """one / other; 0 where `other` never came to an end, or neither."""
    return 0.0 if math.isinf(other) else one / other


def label(side: Result) -> str:
    return f"{side['name']}, {side['variant']}" if side["variant"] else str(side["name"])


def amount(value: float, unit: str) -> str:
    """A value with its unit, in three digits."""
    return NEVER if math.isinf(value) else f"{number(value)} {unit}"


def number(value: float) -> str:
    """Three digits, whole numbers from 100 on with separators."""
    if math.isinf(value):
        return NEVER
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# the report


def markdown(results: Results, pictures: Mapping[str, str], more: Sequence[str] = ()) -> str:
    """The report, with paths of pictures relative to it, and more paragraphs."""
    parts = ["# Performance", *conditions(results), INTRODUCTION, *more]
    if any(name in results for name in COMPARISONS):
        parts.append(table(HEADER, [ratio.cells for ratio in ratios(results)]))
        parts += picture("ratios", "Every ratio, with what was asked and aimed for", pictures)
    for name, comparison in COMPARISONS.items():
        if name in results:
            parts += section(name, comparison, results[name], pictures)
    if "around" in results:
        parts += around_section(results["around"])
    return "\n\n".join(parts) + "\n"


def conditions(results: Results) -> list[str]:
    """Machine, versions, dates, and the commands that repeat it."""
    measured = {name: result["measured"] for name, result in results.items()}
    machines = {f"{m['machine']}; {versions(m['versions'])}": None for m in measured.values()}
    rows = [
        [f"`{name}`", m["date"], m["revision"][:12], f"{m['load']:.1f}", f"`{m['command']}`"]
        for name, m in measured.items()
    ]
    return [
        *(f"Measured on {machine}." for machine in machines),
        table(["what", "date", "commit", "load before", "command"], rows),
    ]


def versions(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def picture(name: str, title: str, pictures: Mapping[str, str]) -> list[str]:
    return [f"![{title}]({pictures[name]})"] if name in pictures else []


def section(
    name: str, comparison: Comparison, result: Result, pictures: Mapping[str, str]
) -> list[str]:
    """One comparison: what it is, the sides, and their settings."""
    sides = result["sides"]
    idle = [block["idle_cpu"] for side in sides for block in side.get("blocks", [])]
    waiting = []
    if idle:
        most = f"{1000 * max(idle):.1f} ms of a processor a round"
        waiting = [f"While waiting, none used more than {most}."]
    lines = [f"* {side.name}: {described(side.spec)}" for side in comparison.sides]
    return [
        f"## {name}: {comparison.title}",
        comparison.note,
        side_table(comparison, sides),
        *waiting,
        *picture(name, f"{comparison.title}: every seed", pictures),
        "\n".join(dict.fromkeys(lines)),
    ]


def side_table(comparison: Comparison, sides: Sequence[Result]) -> str:
    """Median and extremes of each side; cores that it used, or seeds that it solved."""
    header = ["side", f"median, {comparison.unit}", "lowest", "highest"]
    extra = {"rates": "cores used", "race": "seeds that got there"}.get(comparison.measure)
    rows = []
    for side in sides:
        values = side["values"]
        finite = [value for value in values if value is not None]
        ends = [number(min(finite)), number(max(finite))] if finite else [NEVER, NEVER]
        row = [label(side), number(median(values)), *ends]
        if comparison.measure == "rates":
            row.append(f"{median([b['cpu'] / b['seconds'] for b in side['blocks']]):.2f}")
        if comparison.measure == "race":
            row.append(f"{len(finite)} of {len(values)}")
        rows.append(row)
    return table([*header, extra] if extra else header, rows)


def described(spec: Spec) -> str:
    """The settings of a side, in words that can be typed."""
    if "command" in spec:
        return f"`python {' '.join(spec['command'])}`"
    if "overrides" in spec:
        return f"`train.py {' '.join(spec['overrides'])}`".replace(" `", "`")
    settings = ", ".join(f"{name}={value!r}" for name, value in spec["settings"].items())
    budget = f", at most {spec['budget']:,} steps" if "budget" in spec else ""
    return f"`{spec['algorithm']}({settings})`, environments: {spec['num_envs']}{budget}"


def around_section(result: Result) -> list[str]:
    """What a step costs beside its update."""
    rows = [
        [f"2×{width}", f"{spent:.1f}", f"{'under' if spent < AROUND else 'over'} {AROUND:.0f}"]
        for width, spent in result["around"].items()
    ]
    return [
        "## around: what a SAC step costs beside its update",
        "SAC on Pendulum, one update of a batch of 256 per step, with a clock around the update. "
        f"Under {AROUND:.0f} µs are asked of the rest. Medians of blocks.",
        table(["units", "all but the update, µs", ""], rows),
    ]
