"""The density of the policy in training, held against its own draws, and shown."""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from runtime.logger import Logger
from runtime.seeding import derive

if TYPE_CHECKING:
    from agents.protocol import Agent
    from policies.audit import Curve, Finding

COMPONENTS = 8  # action components shown
BINS = 50
BARS, CLAIM = "#9ecae1", "#d94801"
UNITS = {"action": "action", "latent": "action before tanh", "choice": "action"}


def audit(agent: "Agent", obs: Tensor, seed: int, step: int, logger: Logger) -> bool:
    """Audits at a few observations (N, O), writes scalars and a figure; whether all is right.

    Draws derive from (seed, step) alone, so that how often it runs changes nothing. A failure is a
    warning: training goes on.
    """
    generator = torch.Generator().manual_seed(derive(seed, "audit", step))
    findings = agent.audit(obs, generator)
    worst = {
        "audit/pit_ks": max(f.pit_ks for f in findings),
        "audit/normaliser": max((f.normaliser for f in findings), key=lambda value: abs(value - 1)),
        "audit/entropy_gap": max((f.entropy_gap for f in findings), key=abs),
    }
    logger.write(step, worst)
    logger.image("audit/actions", picture(findings), step)
    failures = [f"{text} at state {n}" for n, f in enumerate(findings) for text in f.failures]
    if failures:
        print(
            f"warning: audit at step {step}: {'; '.join(failures[:3])}: the draws do not follow "
            "log_prob; see audit/actions in TensorBoard",
            file=sys.stderr,
        )
    return not failures


def picture(findings: "list[Finding]") -> np.ndarray:
    """Histogram of the draws under the claimed density, (height, width, 3) uint8.

    One column per state, one row per action component.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = min(COMPONENTS, len(findings[0].curves)), len(findings)
    height = 1.9 * rows + 0.5
    figure = Figure(figsize=(2.7 * columns, height), dpi=80)
    figure.subplots_adjust(0.04, 0.45 / height, 0.99, 1 - 0.55 / height, hspace=0.45)
    canvas: Any = FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False)
    for column, finding in enumerate(findings):
        panels[0, column].set_title(f"state {column}", fontsize=9)
        for row in range(rows):
            panel(panels[row, column], finding.curves[row], f"{row}" if rows > 1 else "")
    figure.suptitle("4,000 draws (bars) and exp(log_prob) (red)", fontsize=10)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def panel(axes: Any, curve: "Curve", number: str) -> None:
    """One component at one state."""
    draws, grid, density = (t.numpy() for t in (curve.draws, curve.grid, curve.density))
    if curve.unit == "choice":
        shares = np.bincount(draws, minlength=len(grid)) / len(draws)
        axes.bar(grid, shares, color=BARS)
        axes.plot(grid, density, "o", color=CLAIM)
        axes.set_ylim(0.0, 1.05)
        axes.set_xticks(grid)
    else:
        inside = (grid >= draws.min()) & (grid <= draws.max())
        axes.stairs(*np.histogram(draws, BINS, density=True), fill=True, color=BARS)
        axes.plot(grid[inside], density[inside], color=CLAIM, linewidth=1.5)
    axes.set_xlabel(f"{UNITS[curve.unit]} {number}", fontsize=8)
    axes.tick_params(labelsize=7)
