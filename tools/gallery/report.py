"""Rows of the gallery, and their table, Markdown and JSON."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from configs.files import read_yaml
from tools.gallery.settings import SECTIONS
from tools.shared import table

WORDS = read_yaml(Path(__file__).parent / "words.yaml")  # what is printed -> what it means
WIDTHS = {  # of the columns on the screen; what may be long stands last
    **{"section": 20, "result": 6, "checks": 6, "wrong formulas": 14},
    **{"worst": 9, "bound": 11, "of": 0},
}


@dataclass(frozen=True)
class Check:
    """A figure and its bound; `relation` is the side on which the figure must be."""

    section: str
    name: str
    figure: float
    bound: float
    relation: str = "<="
    control: bool = False  # whether the figure counts checks that reject a wrong formula

    @property
    def passed(self) -> bool:
        """False if the figure or the bound is NaN."""
        return self.figure >= self.bound if self.relation == ">=" else self.figure <= self.bound

    @property
    def nearness(self) -> float:
        """1 at the bound, less inside, infinite where it fails."""
        small, large = sorted((self.figure, self.bound))
        return (small / large if large else 0.0) if self.passed else math.inf

    @property
    def cells(self) -> list[str]:
        figure = f"{self.figure + 0.0:.3g}"  # 0 for -0
        bound = f"{self.relation} {self.bound:.3g}"
        return [self.name, figure, bound, "pass" if self.passed else "FAIL"]


def rejection(
    section: str, mistake: str, expected: Sequence[str], rejecting: Sequence[str], case: str = ""
) -> Check:
    """The row of a negative control: how many of the expected checks reject it."""
    missing = [test for test in expected if test not in rejecting]
    result = f"rejected by {', '.join(rejecting) or 'nothing'}"
    result += f", NOT by {', '.join(missing)}" if missing else ""
    name = f"{case}: " * bool(case) + f"control {mistake}: {result}"
    return Check(section, name, len(rejecting), len(expected), ">=", control=True)


def lines(checks: Sequence[Check], verbose: bool, controls: bool) -> list[str]:
    """Of each section a line with its worst check, then what fails or, if `verbose`, all.

    Without `controls`, there is no column for them.
    """
    shown = {name: width for name, width in WIDTHS.items() if controls or name != "wrong formulas"}

    def line(*cells: str) -> str:
        named = dict(zip(WIDTHS, cells, strict=True))
        return "  ".join(f"{named[name]:<{width}}" for name, width in shown.items()).rstrip()

    found = [line(*WIDTHS)]
    for section, group in groupby(checks, key=lambda check: check.section):
        rows = list(group)
        own = [row for row in rows if not row.control]
        wrong = [row.passed for row in rows if row.control]
        rejected = f"{sum(wrong)} of {len(wrong)}" if wrong else "none"
        name, figure, bound, _ = max(own, key=lambda row: row.nearness).cells
        result = "pass" if all(row.passed for row in rows) else "FAIL"
        found.append(line(section, result, str(len(own)), rejected, figure, bound, name))
        for row in rows:
            name, figure, bound, result = row.cells
            if verbose or not row.passed:
                found.append(line("", result, "", "", figure, bound, name))
    return found


def explained(text: str) -> list[str]:
    """A line for each of the `WORDS` in a text."""
    held = [word for word in WORDS if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)]
    return [f"{word}: {WORDS[word]}" for word in held]


def summary(checks: Sequence[Check]) -> str:
    """How many checks hold, and how many wrong formulas are rejected."""
    own, controls = ([x.passed for x in checks if x.control is kind] for kind in (False, True))
    held = f"{sum(own)} of {len(own)} checks hold"
    rejected = f", {sum(controls)} of {len(controls)} wrong formulas are rejected"
    failed = "" if all(own + controls) else ": FAILED"
    return held + rejected * bool(controls) + failed


def markdown(checks: Sequence[Check], settings: dict[str, Any]) -> str:
    """The report: for each section its settings, a table and its picture."""
    parts = ["# Verification gallery\n", f"{summary(checks)}.\n"]
    head = ["compared", "figure", "bound", ""]
    for section, group in groupby(checks, key=lambda check: check.section):
        parts.append(f"## {section}\n")
        if section in settings:
            about, values = SECTIONS[section].__doc__, asdict(settings[section])
            set_to = [f"`{key}={value}`".replace(" ", "") for key, value in values.items()]
            parts.append(f"{about}; {', '.join(set_to)}\n")
        parts.append(table(head, [check.cells for check in group]) + "\n")
        if section in settings:
            parts.append(f"![{about}]({section}.png)\n")
    text = "\n".join(parts)
    return "\n".join([text, *(f"* {line}" for line in explained(text)), ""])


def as_json(check: Check) -> dict[str, Any]:
    """A row for JSON, with infinity and NaN as text."""
    values = {**asdict(check), "passed": check.passed}
    for name in ("figure", "bound"):
        values[name] = values[name] if math.isfinite(values[name]) else str(values[name])
    return values
