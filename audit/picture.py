"""The picture of an audit, by Pillow: matplotlib takes a second for its import and first one."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from audit.density import Curve, Finding

BINS = 50
FINE = 2  # drawn so many times larger, then averaged: smooth lines
WIDTH, HEIGHT, TOP = 216, 158, 30  # pixels of a panel, and of what stands above all of them
LEFT, RIGHT, ABOVE, BELOW = 40, 8, 18, 34  # pixels of a panel around its axes
HIGHEST = 3.0  # times the highest bar: a claim beyond leaves the picture
BARS, CLAIM, INK, GRID = "#9ecae1", "#d94801", "#30363d", "#e4e7eb"
UNITS = {"action": "action{}", "latent": "action{} before tanh", "choice": "action{}"}


def picture(findings: "Sequence[Finding]") -> np.ndarray:
    """Histogram of the draws under the claimed density, (height, width, 3) uint8.

    One column per state, one row per curve: action components, the first ones where they are many.
    """
    rows, columns = len(findings[0].curves), len(findings)
    sheet = Sheet(WIDTH * max(columns, 2), HEIGHT * rows + TOP)  # two are as wide as the legend
    legend(sheet, findings[0].curves[0])
    for column, finding in enumerate(findings):
        sheet.text(WIDTH * column + (LEFT + WIDTH - RIGHT) / 2, TOP, f"state {column}", "ma")
        for row in range(rows):
            number = f" {row}" if rows > 1 else ""
            panel(sheet, WIDTH * column, TOP + HEIGHT * row, finding.curves[row], number)
    return sheet.pixels()


class Sheet:
    """A white sheet and a pen; places are in pixels of the finished picture."""

    def __init__(self, width: int, height: int) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self.image = Image.new("RGB", (FINE * width, FINE * height), "white")
        self.pen = ImageDraw.Draw(self.image)
        self.font: Any = ImageFont.load_default(FINE * 11)

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        """Up to its right and lower ends, which are no part of it."""
        ends = [round(FINE * place) for place in (left, top, right, bottom)]
        if ends[2] > ends[0] and ends[3] > ends[1]:
            self.pen.rectangle((ends[0], ends[1], ends[2] - 1, ends[3] - 1), colour)

    def line(self, points: np.ndarray) -> None:
        """Through (G, 2)."""
        self.pen.line((FINE * points).ravel().tolist(), CLAIM, round(1.75 * FINE))

    def dot(self, across: float, down: float) -> None:
        self.pen.circle((FINE * across, FINE * down), 3.5 * FINE, CLAIM)

    def text(self, across: float, down: float, text: str, anchor: str) -> None:
        """With Pillow's anchors: left, middle, right, then ascender, middle, descender."""
        self.pen.text((FINE * across, FINE * down), text, INK, self.font, anchor)

    def pixels(self) -> np.ndarray:
        return np.asarray(self.image.reduce(FINE))


class Axes(NamedTuple):
    """Where a panel's values lie on the sheet."""

    left: float
    right: float
    top: float
    bottom: float
    low: float
    high: float
    highest: float

    def x(self, value: Any) -> Any:
        return self.left + (value - self.low) / (self.high - self.low) * (self.right - self.left)

    def y(self, value: Any) -> Any:
        return self.bottom - np.minimum(value / self.highest, 1.0) * (self.bottom - self.top)


def legend(sheet: Sheet, curve: "Curve") -> None:
    sheet.box(LEFT, 6, LEFT + 14, 16, BARS)
    sheet.text(LEFT + 20, 11, f"{len(curve.draws):,} draws", "lm")
    if curve.unit == "choice":
        sheet.dot(LEFT + 116, 11)
    else:
        sheet.line(np.array([[LEFT + 104, 11], [LEFT + 122, 11]]))
    sheet.text(LEFT + 128, 11, "exp(log_prob)", "lm")


def panel(sheet: Sheet, left: float, top: float, curve: "Curve", number: str) -> None:
    """One component at one state."""
    draws, grid, density = (tensor.numpy() for tensor in (curve.draws, curve.grid, curve.density))
    unit, middle = UNITS[curve.unit].format(number), 0.0
    if curve.unit == "choice":
        edges = np.arange(len(grid) + 1) - 0.5
        heights = np.bincount(draws, minlength=len(grid)) / len(draws)
        gap, highest = 0.1, min(1.05, 1.3 * max(heights.max(), np.nanmax(density, initial=0.0)))
    else:
        if np.ptp(draws) < 1e-4 * np.abs(draws).max():  # too many digits for the axis
            middle = float(f"{draws.mean():.6g}")
            unit += f" − {middle:g}"
        draws, grid = draws - middle, grid - middle
        edges, heights = histogram(draws)
        gap, tallest = 0.0, heights.max()
        claimed = density[(grid >= edges[0]) & (grid <= edges[-1]) & np.isfinite(density)]
        highest = 1.08 * min(max(tallest, claimed.max(initial=0.0)), HIGHEST * tallest)
    axes = Axes(
        left + LEFT,
        left + WIDTH - RIGHT,
        top + ABOVE,
        top + HEIGHT - BELOW,
        float(edges[0]),
        float(edges[-1]),
        float(highest),
    )
    frame(sheet, axes, unit, whole=curve.unit == "choice")
    for start, end, height in zip(edges[:-1] + gap, edges[1:] - gap, heights, strict=True):
        sheet.box(axes.x(start), axes.y(height), axes.x(end), axes.bottom, BARS)
    sheet.box(axes.left, axes.bottom, axes.right, axes.bottom + 1, INK)
    claim(sheet, axes, grid, density, dots=curve.unit == "choice")


def histogram(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(edges (BINS + 1), densities (BINS)); draws that are all alike get bins nevertheless."""
    low = float(draws.min())
    width = max(float(np.ptp(draws)), 1e-12 * abs(low), 1e-300) / BINS
    counts = np.bincount(((draws - low) / width).astype(int).clip(0, BINS - 1), minlength=BINS)
    return low + width * np.arange(BINS + 1), counts / (len(draws) * width)


def claim(sheet: Sheet, axes: Axes, grid: np.ndarray, density: np.ndarray, dots: bool) -> None:
    """The density in red, where there are draws and it is a number."""
    shown = (grid >= axes.low) & (grid <= axes.high) & ~np.isnan(density)
    points = np.stack([axes.x(grid[shown]), axes.y(density[shown])], -1)
    if dots:
        for x, y in points:
            sheet.dot(x, y)
        return
    inside = np.pad(points[:, 1] > axes.top, 1)  # the first point beyond the top is still reached
    reached = inside[:-2] | inside[1:-1] | inside[2:]
    for part in np.split(points, np.flatnonzero(np.diff(reached)) + 1):
        if len(part) > 1 and (part[:, 1] > axes.top).any():
            sheet.line(part)


def frame(sheet: Sheet, axes: Axes, unit: str, whole: bool) -> None:
    """Ticks, their numbers, and the name of the horizontal axis."""
    for value in ticks(0.0, axes.highest, 4):
        sheet.box(axes.left, axes.y(value) - 0.5, axes.right, axes.y(value) + 0.5, GRID)
        sheet.text(axes.left - 5, axes.y(value), f"{value:g}", "rm")
    for value in ticks(axes.low, axes.high, 4, least=1.0 if whole else 0.0):
        sheet.box(axes.x(value) - 0.5, axes.bottom, axes.x(value) + 0.5, axes.bottom + 4, INK)
        sheet.text(axes.x(value), axes.bottom + 6, f"{value:g}", "ma")
    sheet.text((axes.left + axes.right) / 2, axes.bottom + 19, unit, "ma")


def ticks(low: float, high: float, count: int, least: float = 0.0) -> list[float]:
    """At most `count` + 1 round numbers from `low` to `high`, equally far apart."""
    rough = max((high - low) / count, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * part for part in (1, 2, 2.5, 5, 10) if power * part >= 0.999 * rough)
    step = max(1.0, round(step)) if least else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{k * step:.10g}") for k in range(first, last + 1)]
