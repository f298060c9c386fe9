"""Sections and rows of the gallery, and their table, Markdown and JSON."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tools.gallery.settings import SECTIONS
from tools.shared import table


@dataclass(frozen=True)
class Check:
    """A figure and its bound; `relation` is the side on which the figure must be."""

    section: str
    name: str
    figure: float
    bound: float
    relation: str = "<="

    @property
    def passed(self) -> bool:
        """False if the figure or the bound is NaN."""
        return self.figure >= self.bound if self.relation == ">=" else self.figure <= self.bound

    @property
    def cells(self) -> list[str]:
        figure, bound = f"{self.figure:.3g}", f"{self.relation} {self.bound:.3g}"
        return [self.section, self.name, figure, bound, "pass" if self.passed else "FAIL"]


def rejection(
    section: str, mistake: str, expected: Sequence[str], rejecting: Sequence[str], case: str = ""
) -> Check:
    """The row of a negative control: how many of the expected checks reject it."""
    missing = [test for test in expected if test not in rejecting]
    result = f"rejected by {', '.join(rejecting) or 'nothing'}"
    result += f", NOT by {', '.join(missing)}" if missing else ""
    name = f"{case}: " * bool(case) + f"control {mistake}: {result}"
    return Check(section, name, len(rejecting), len(expected), ">=")


class Section:
    """A part of the gallery: rows for each seed; name and settings as in `settings.SECTIONS`."""

    def __init__(self, name: str, settings: Any) -> None:
        self.name, self.settings = name, settings

    def drawn(self, seed: int) -> Iterable[Check]:
        """Rows about the code that depend on chance."""
        return ()

    def own(self, seed: int) -> Iterable[Check]:
        """All rows about the code, with those of `drawn`."""
        raise NotImplementedError

    def controls(self, seed: int) -> Iterable[Check]:
        """Rows about wrong formulas, at the default settings."""
        return ()

    def row(self, name: str, figure: float, bound: float) -> Check:
        return Check(self.name, name, figure, bound)


HEADER = ["section", "compared", "figure", "bound", ""]
WIDTHS = (20, 82, 9, 10, 4)


def line(cells: Sequence[str]) -> str:
    """A row of the table on the screen."""
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def summary(checks: Sequence[Check]) -> str:
    failed = sum(not check.passed for check in checks)
    return f"{len(checks)} checks, " + (f"{failed} FAILED" if failed else "all hold")


def markdown(checks: Sequence[Check], settings: dict[str, Any]) -> str:
    """The report: for each section its settings, a table and its picture."""
    parts = ["# Verification gallery\n", f"{summary(checks)}.\n"]
    for section, values in settings.items():
        about = SECTIONS[section].__doc__
        set_to = [f"`{key}={value}`".replace(" ", "") for key, value in asdict(values).items()]
        parts.append(f"## {section}\n\n{about}; {', '.join(set_to)}\n")
        rows = [check.cells[1:] for check in checks if check.section == section]
        parts += [table(HEADER[1:], rows), f"\n![{about}]({section}.png)\n"]
    return "\n".join(parts)


def as_json(check: Check) -> dict[str, Any]:
    """A row for JSON, with infinity and NaN as text."""
    values = {**asdict(check), "passed": check.passed}
    for name in ("figure", "bound"):
        values[name] = values[name] if math.isfinite(values[name]) else str(values[name])
    return values
