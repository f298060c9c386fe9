"""What the gallery is made of, sections and rows, and the table, Markdown and JSON they become."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """A figure held against its bound; `relation` says on which side it must be."""

    section: str
    name: str
    figure: float
    bound: float
    passed: bool
    relation: str = "<="

    @property
    def cells(self) -> list[str]:
        word = "pass" if self.passed else "FAIL"
        bound = f"{self.relation} {self.bound:.3g}"
        return [self.section, self.name, f"{self.figure:.3g}", bound, word]


def at_most(section: str, name: str, figure: float, bound: float) -> Check:
    """An error, which holds up to `bound`; no number holds never."""
    return Check(section, name, figure, bound, figure <= bound)


def at_least(section: str, name: str, figure: float, bound: float) -> Check:
    """A p-value or a rejection, which holds from `bound` on."""
    return Check(section, name, figure, bound, figure >= bound, ">=")


class Section:
    """A part of the gallery: a list of rows for each seed.

    Args:
        name, settings: a key of `settings.SECTIONS` and an instance of its value.
    """

    def __init__(self, name: str, settings: Any) -> None:
        self.name, self.settings = name, settings

    def drawn(self, seed: int) -> list[Check]:
        """Those rows about the code that depend on chance."""
        return []

    def own(self, seed: int) -> list[Check]:
        """All rows about the code, those of `drawn` among them."""
        raise NotImplementedError

    def controls(self, seed: int) -> list[Check]:
        """Rows about wrong formulas, at the default settings whatever those of the section."""
        return []

    def checks(self, seed: int) -> list[Check]:
        return [*self.own(seed), *self.controls(seed)]

    def row(self, name: str, figure: float, bound: float) -> Check:
        return at_most(self.name, name, figure, bound)


HEADER = ["section", "compared", "figure", "bound", ""]
WIDTHS = (20, 82, 9, 10, 4)


def line(cells: Sequence[str]) -> str:
    """A row of the table on the screen."""
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def summary(checks: Sequence[Check]) -> str:
    failed = sum(not check.passed for check in checks)
    return f"{len(checks)} checks, " + (f"{failed} FAILED" if failed else "all hold")


def markdown(
    checks: Sequence[Check], settings: dict[str, dict[str, Any]], documents: dict[str, str]
) -> str:
    """The report: a table for each section, under what was set, with its picture."""
    parts = ["# Verification gallery\n", f"{summary(checks)}.\n"]
    for section, values in settings.items():
        set_to = ", ".join(f"`{name}={value}`" for name, value in values.items()).replace(" ", "")
        parts.append(f"## {section}\n\n{documents[section]}; {set_to.replace(',`', ', `')}\n")
        parts.append("| compared | figure | bound | |\n|---|---|---|---|")
        parts += [
            "| " + " | ".join(cell.replace("|", "\\|") for cell in check.cells[1:]) + " |"
            for check in checks
            if check.section == section
        ]
        parts.append(f"\n![{documents[section]}]({section}.png)\n")
    return "\n".join(parts)


def plain(check: Check) -> dict[str, Any]:
    """For JSON, which has no infinity and no NaN: those become text."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(check).items()
    }
