"""The result of a check: a verdict in words, a table of its tests, a picture."""

import base64
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audit.density import Curve, Finding, Trial


@dataclass(frozen=True)
class Report:
    """What a check found."""

    verdict: str  # one line: right or wrong, by how much, and what it looks like
    trials: tuple[Trial, ...] = field(repr=False)
    curves: tuple[Curve, ...] = field(repr=False)
    form: str | None = None  # the mistake's name in `audit.forms.FORMS`, if one fits

    @property
    def passed(self) -> bool:
        return all(trial.passed for trial in self.trials)

    def picture(self) -> np.ndarray:
        """Histogram, claimed density, their difference in nats; (height, width, 3) uint8."""
        from audit.picture import picture

        finding = Finding(math.nan, math.nan, math.nan, self.trials, self.curves)
        return picture([finding], names=[""], title=self.verdict)

    def save(self, folder: str | Path) -> Path:
        """Writes report.md, report.json and picture.png into a folder, which it returns."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / "report.md").write_text(f"{self.markdown()}\n\n![picture](picture.png)\n")
        (path / "report.json").write_text(json.dumps(self.as_json(), indent=2) + "\n")
        (path / "picture.png").write_bytes(self.png())
        return path

    def as_json(self) -> dict[str, Any]:
        """Plain data; what is no number is text."""
        rows = [
            {
                "name": trial.name,
                "figure": number(trial.figure),
                "bound": number(trial.bound),
                "passed": trial.passed,
            }
            for trial in self.trials
        ]
        return {
            "passed": self.passed,
            "verdict": self.verdict,
            "form": self.form,
            "trials": rows,
        }

    def png(self) -> bytes:
        from audit.picture import png

        return png(self.picture())

    def markdown(self) -> str:
        head = ["| test | figure | bound | |", "| --- | --- | --- | --- |"]
        rows = [
            f"| {name} | {figure} | {bound} | {word} |" for name, figure, bound, word in self.rows()
        ]
        return "\n".join([f"**{self.verdict}**\n", *head, *(row for row in rows)])

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(test, figure, bound, pass or FAIL) of every trial."""
        return [
            (
                trial.name.replace("|", "¦"),
                f"{trial.figure:.3g}",
                f"<= {trial.bound:.3g}",
                "pass" if trial.passed else "FAIL",
            )
            for trial in self.trials
        ]

    def __str__(self) -> str:
        lines = [
            f"{name:<64}  {figure:>9}  {bound:>10}  {word}"
            for name, figure, bound, word in self.rows()
        ]
        return "\n".join([*lines, self.verdict])

    def _repr_html_(self) -> str:
        cells = "".join(
            "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in self.rows()
        )
        image = base64.b64encode(self.png()).decode()
        return (
            f"<p><b>{self.verdict}</b></p><table>{cells}</table>"
            f'<img src="data:image/png;base64,{image}">'
        )


def number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
