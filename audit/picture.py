"""The picture of an audit, by Pillow: matplotlib takes a second for its import and first one."""

import io
import math
from collections.abc import Sequence
from itertools import pairwise
from textwrap import wrap
from typing import Any

import numpy as np

from audit.density import Curve, Finding

BINS = 50
FINE = 2  # drawn so many times larger, then averaged: smooth lines
WIDTH, HEIGHT, TOP = 264, 236, 30  # pixels of a panel, and of what stands above all of them
LEFT, RIGHT, ABOVE, BELOW = 40, 8, 18, 112  # pixels of a panel around its axes
ERROR = 56  # pixels of the axes of errors, below them
LINE, LETTER = 14, 6  # pixels of a line of the title, and of a letter
WITHIN = np.linspace(-0.5, 0.5, 17)[1::2]  # places in a bin, in units of its width
FEWEST = 10  # draws in a bin whose error is drawn
HIGHEST = 3.0  # times the highest bar: a claim beyond leaves the picture
BARS, CLAIM, INK, GRID = "#9ecae1", "#d94801", "#30363d", "#e4e7eb"


def picture(findings: Sequence[Finding], names: Sequence[str] = (), title: str = "") -> np.ndarray:
    """Histogram of the draws under the claimed density, and its error, (height, width, 3) uint8.

    One column per state, or per name, and one row per curve: action components, the first ones
    where they are many. The title may be long.
    """
    from PIL import Image, ImageDraw, ImageFont

    rows, columns = len(findings[0].curves), len(findings)
    titles = wrap(title, (WIDTH * columns - 2 * RIGHT) // LETTER)
    head = LINE * len(titles)  # pixels
    size = (FINE * WIDTH * columns, FINE * (HEIGHT * rows + TOP + head))
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    pen.font = ImageFont.load_default(FINE * 11)
    for number, text in enumerate(titles):
        write(pen, RIGHT, 3 + LINE * number, text, "la")
    for curve in findings[0].curves[:1]:  # clipped draws have none
        legend(pen, head, curve)
    for column, finding in enumerate(findings):
        above = names[column] if names else f"state {column}"
        write(pen, WIDTH * column + (LEFT + WIDTH - RIGHT) / 2, head + TOP, above, "ma")
        for row in range(rows):
            name = f"action {row}" if rows > 1 else "action"
            panel(pen, WIDTH * column, head + TOP + HEIGHT * row, finding.curves[row], name)
    return np.asarray(image.reduce(FINE))


def png(pixels: np.ndarray) -> bytes:
    """A picture as the content of a file."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="png")
    return content.getvalue()


def fine(*places: float) -> list[float]:
    """Pixels of the finished picture -> of that which is drawn."""
    return [FINE * float(place) for place in places]


def write(pen: Any, x: float, y: float, text: str, anchor: str) -> None:
    """With Pillow's anchors: left, middle, right, then ascender, middle, descender."""
    pen.text(fine(x, y), text, INK, anchor=anchor)


def claim(pen: Any, xs: Sequence[float], ys: Sequence[float], dots: bool, top: float) -> None:
    """Dots, or a line, at these places; the line where it lies below `top`, or gets there."""
    if dots:
        for x, y in zip(xs, ys, strict=True):
            pen.circle(fine(x, y), 3.5 * FINE, CLAIM)
        return
    for (x, y), (next_x, next_y) in pairwise(zip(xs, ys, strict=True)):
        if max(y, next_y) > top:
            pen.line(fine(x, y, next_x, next_y), CLAIM, round(1.75 * FINE))


def legend(pen: Any, top: float, curve: Curve) -> None:
    middle = top + 11
    pen.rectangle(fine(LEFT, middle - 5, LEFT + 14, middle + 5), BARS)
    write(pen, LEFT + 20, middle, f"{len(curve.draws):,} draws", "lm")
    dots = curve.unit == "choice"
    claim(pen, [LEFT + 116] if dots else [LEFT + 104, LEFT + 122], [middle] * (2 - dots), dots, 0)
    write(pen, LEFT + 128, middle, "exp(log_prob)", "lm")


def cut_off(pen: Any, peak: float, place: float, start: float, end: float, top: float) -> None:
    """An arrow where the density leaves the picture, and how high it is."""
    pen.polygon(fine(place, top - 6, place - 4, top, place + 4, top), CLAIM)
    aside, anchor = (8, "lt") if place < (start + end) / 2 else (-8, "rt")
    write(pen, place + aside, top + 1, f"up to {peak:.3g}", anchor)


def panel(pen: Any, left: float, top: float, curve: Curve, name: str) -> None:
    """One component at one state: bars, the density in red where there are draws, its error."""
    draws, grid, density = (tensor.numpy() for tensor in (curve.draws, curve.grid, curve.density))
    choice = curve.unit == "choice"
    if choice:
        edges = np.arange(len(grid) + 1) - 0.5
        heights = np.bincount(draws, minlength=len(grid)) / len(draws)
        highest = min(1.05, 1.3 * max(heights.max(), np.nanmax(density, initial=0.0)))
    else:
        name += " before tanh" if curve.unit == "latent" else ""
        if np.ptp(draws) < 1e-4 * np.abs(draws).max():  # too many digits for the axis
            middle = float(f"{draws.mean():.6g}")
            name += f" − {middle:g}"
            draws, grid = draws - middle, grid - middle
        edges, heights = histogram(draws)
        tallest = heights.max()
        claimed = density[(grid >= edges[0]) & (grid <= edges[-1]) & np.isfinite(density)]
        highest = 1.08 * min(max(tallest, claimed.max(initial=0.0)), HIGHEST * tallest)
    low, high = float(edges[0]), float(edges[-1])
    start, end = left + LEFT, left + WIDTH - RIGHT
    top, bottom = top + ABOVE, top + HEIGHT - BELOW

    def x(value: Any) -> Any:
        return start + (value - low) / (high - low) * (end - start)

    def y(value: Any) -> Any:
        return bottom - np.minimum(value / highest, 1.0) * (bottom - top)

    for value in ticks(0.0, highest, 4):
        pen.line(fine(start, y(value), end, y(value)), GRID, FINE)
        write(pen, start - 5, y(value), f"{value:g}", "rm")
    for value in ticks(low, high, 4, least=1.0 if choice else 0.0):
        pen.line(fine(x(value), bottom, x(value), bottom + 4), INK, FINE)
        write(pen, x(value), bottom + 6, f"{value:g}", "ma")
    write(pen, (start + end) / 2, bottom + 19, name, "ma")
    gap = 0.1 if choice else 0.0
    for first, last, height in zip(edges[:-1] + gap, edges[1:] - gap, heights, strict=True):
        if height:
            pen.rectangle(fine(x(first), y(height), x(last), bottom), BARS)
    pen.line(fine(start, bottom, end, bottom), INK, FINE)
    shown = (grid >= low) & (grid <= high) & ~np.isnan(density)
    claim(pen, x(grid[shown]), y(density[shown]), choice, top)
    if density[shown].max(initial=0.0) > highest:
        peak = int(density[shown].argmax())
        cut_off(pen, density[shown][peak], x(grid[shown][peak]), start, end, top)
    middles, width = (edges[1:] + edges[:-1]) / 2, edges[1:] - edges[:-1]
    inside = middles[:, None] + WITHIN * width[:, None]
    claimed = density if choice else np.interp(inside, grid, density, left=math.nan).mean(-1)
    counts = heights * width * len(draws)
    errors(pen, x(middles), claimed, heights, counts, start, end, bottom + 42)


def errors(
    pen: Any,
    places: np.ndarray,
    claimed: np.ndarray,
    drawn: np.ndarray,
    counts: np.ndarray,
    start: float,
    end: float,
    top: float,
) -> None:
    """log(claimed / drawn) of each bin in nats, with two standard errors, where it holds enough."""
    held = (counts >= FEWEST) & (claimed > 0) & np.isfinite(claimed)
    error, chance = np.log(claimed[held] / drawn[held]), 2.0 / np.sqrt(counts[held])
    largest = max(float((np.abs(error) + chance).max(initial=0.0)), 0.2)

    def y(value: Any) -> Any:
        return top + ERROR * (0.5 - 0.5 * np.clip(value / (1.1 * largest), -1.0, 1.0))

    for value in ticks(-largest, largest, 4):
        pen.line(fine(start, y(value), end, y(value)), INK if value == 0 else GRID, FINE)
        write(pen, start - 5, y(value), f"{value:g}", "rm")
    for place, middle, width in zip(places[held], error, chance, strict=True):
        pen.line(fine(place, y(middle - width), place, y(middle + width)), CLAIM, FINE)
        pen.circle(fine(place, y(middle)), 1.5 * FINE, CLAIM)
    write(pen, (start + end) / 2, top + ERROR + 1, "error (nats)", "ma")


def histogram(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(edges (BINS + 1), densities (BINS)); draws that are all alike get bins nevertheless."""
    low = float(draws.min())
    width = max(float(np.ptp(draws)), 1e-12 * abs(low), 1e-300) / BINS
    counts = np.bincount(((draws - low) / width).astype(int).clip(0, BINS - 1), minlength=BINS)
    return low + width * np.arange(BINS + 1), counts / (len(draws) * width)


def ticks(low: float, high: float, count: int, least: float = 0.0) -> list[float]:
    """At most `count` + 1 round numbers from `low` to `high`, equally far apart."""
    rough = max((high - low) / count, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * part for part in (1, 2, 2.5, 5, 10) if power * part >= 0.999 * rough)
    step = max(1.0, round(step)) if least else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{k * step:.10g}") for k in range(first, last + 1)]
