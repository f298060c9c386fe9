"""What all pictures share: what was drawn is blue, what log_prob says is orange."""

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DRAWN, SAID, OTHER, DARK = "#a9c4de", "#d9600a", "#3f7f4f", "#22384f"
COLOURS = (DARK, SAID, OTHER, "#8a4fa3")


def canvas(width: float, title: str) -> Figure:
    figure = Figure(figsize=(width, 4.6), dpi=110, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=DARK)
    return figure


def panel(figure: Figure, place: tuple[int, int, int], x: str, y: str, title: str = "") -> Any:
    axes = figure.add_subplot(*place)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def legend(axes: Any, place: str) -> None:
    axes.legend(loc=place, fontsize=9, frameon=True, framealpha=1.0, edgecolor="none")


def pixels(figure: Figure) -> np.ndarray:
    """(H, W, 3) uint8."""
    drawing: Any = FigureCanvasAgg(figure)
    drawing.draw()
    return np.asarray(drawing.buffer_rgba())[..., :3].copy()
