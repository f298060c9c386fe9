"""From measured sides to what is claimed: medians, paired ratios, targets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.benchmark.contestants import Comparison, Target
from bench.benchmark.measure import Result, median

NEVER = "never"


@dataclass(frozen=True)
class Ratio:
    """One peer against ours: the median of the paired ratios, their extremes, and the target.

    Attributes:
        low, high: None where nothing is paired, as in a race, in which seeds are not alike.
    """

    comparison: str
    ours: Result
    peer: Result
    value: float
    low: float | None
    high: float | None
    target: Target
    at_most: bool
    unit: str

    @property
    def reached(self) -> str:
        """`aim`, `asked` or `no`."""

        def holds(bound: float) -> bool:
            return self.value <= bound if self.at_most else self.value >= bound

        return "aim" if holds(self.target.aim) else "asked" if holds(self.target.asked) else "no"

    @property
    def gain(self) -> float:
        """The ratio, turned around where less is better: more is always better."""
        return self.turned(self.value)

    def turned(self, value: float) -> float:
        return 1.0 / value if self.at_most and value else value

    @property
    def cells(self) -> list[str]:
        """The row of the table."""
        spread = "" if self.low is None else f" ({number(self.low)} to {number(self.high or 0.0)})"
        shown = "∞" if math.isinf(self.value) else number(self.value)
        sign = "≤" if self.at_most else "≥"
        return [
            self.comparison,
            f"{amount(median(self.ours['values']), self.unit)}",
            f"{label(self.peer)}: {amount(median(self.peer['values']), self.unit)}",
            f"{shown}{spread}",
            f"{sign} {self.target.asked:g}",
            f"{sign} {self.target.aim:g}",
            self.reached,
        ]


HEADER = ["comparison", "ours", "peer", "ratio", "asked", "aim", "reached"]


def compare(name: str, comparison: Comparison, sides: Sequence[Result]) -> list[Ratio]:
    """Ours, the first side, against the better variant of each peer."""
    ours = sides[0]
    made = []
    for peer_name, target in comparison.targets.items():
        variants = [side for side in sides[1:] if side["name"] == peer_name]
        choose = min if comparison.lower_is_better else max
        peer = choose(variants, key=lambda side: median(side["values"]))
        low: float | None = None
        high: float | None = None
        if comparison.measure == "race":
            value = divided(median(peer["values"]), median(ours["values"]))
        else:
            pairs = paired(ours["values"], peer["values"])
            value, low, high = median([*pairs]), min(pairs), max(pairs)
        made.append(
            Ratio(
                name, ours, peer, value, low, high, target, comparison.at_most, comparison.unit
            )
        )  # fmt: skip
    return made


def paired(ours: Sequence[float], peer: Sequence[float]) -> list[float]:
    """ours / peer, block by block: what slows the machine for a while slows both of a pair."""
    return [divided(one, other) for one, other in zip(ours, peer, strict=True)]


def divided(one: float, other: float) -> float:
    """one / other; 0 where `other` never came to an end, or neither."""
    if math.isinf(other):
        return 0.0
    return one / other


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


def line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its lines joined."""
    return "\n".join(line(cells) for cells in [header, ["---"] * len(header), *rows])
