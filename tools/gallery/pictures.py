"""One picture per section."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from tools.gallery.canvas import COLOURS, DARK, DRAWN, OTHER, SAID, canvas, legend, panel
from tools.gallery.density_pictures import (
    multivariate_normal,
    normal,
    normal_log_prob,
    plane,
    tanh_normal,
)
from tools.gallery.entropies import Entropy
from tools.gallery.functions import LogExp, LogSoftmax, kind
from tools.gallery.inverses import TanhAtanh


def log_exp(section: LogExp, seed: int) -> Figure:
    figure = canvas(8.5, "exp(log X) against X in every float type")
    axes = panel(figure, (1, 1, 1), "element of X", "relative error")
    floor = 1e-17
    for place, (dtype, colour) in enumerate(zip(section.FLOATS, COLOURS, strict=True)):
        errors = section.errors(dtype).flatten().clamp_min(floor)
        axes.scatter(
            torch.arange(len(errors)) + 0.12 * (place - 1.5),
            errors,
            color=colour,
            s=32,
            label=kind(dtype),
            zorder=3,
        )
        axes.axhline(section.bound(dtype), color=colour, linewidth=1, linestyle="--")
    elements = section.matrix(torch.float64).flatten().tolist()
    axes.set_xticks(range(len(elements)), [f"{value:g}" for value in elements])
    axes.set_yscale("log")
    axes.set_yticks([floor, *(10.0**k for k in range(-15, 0, 3))],
                    ["exact", *(f"$10^{{{k}}}$" for k in range(-15, 0, 3))])  # fmt: skip
    axes.plot([], [], "--", color="grey", linewidth=1, label="bound")
    figure.legend(loc="outside right center", frameon=False)
    return figure


def tanh_atanh(section: TanhAtanh, seed: int) -> Figure:
    figure = canvas(14, "tanh and its inverse, and the log-determinant, against 50 digits")
    figure.set_layout_engine("constrained", wspace=0.06)
    near, far = section.near(), section.far(0.05)[1:]
    axes = panel(figure, (1, 3, 1), "u", "tanh(u)", "tanh and the way back")
    axes.plot(near, torch.tanh(near), color=DARK, label="tanh(u)")
    axes.set_yticks([-1, -0.5, 0, 0.5, 1])
    back = axes.twinx()
    back.plot(near, torch.atanh(torch.tanh(near.float())), ":", color=SAID, linewidth=2.5)
    back.set_ylabel("atanh(tanh(u)), float32", color=SAID)
    back.spines["top"].set_visible(False)
    legend(axes, "upper left")
    axes = panel(figure, (1, 3, 2), "|u|", "largest |inverse(tanh(u)) − u| so far",
                 "inverse, float32; ×: from here on ∞")  # fmt: skip
    for form, colour, line in zip(section.INVERSES, (DARK, SAID), "-:", strict=True):
        lost = section.lost(form, far, torch.float32)
        so_far(axes, far, lost, line, colour, 2.0, form)
    saturated(axes)
    axes = panel(figure, (1, 3, 3), "|u|", "largest error so far (relative beyond 1 nat)",
                 "log-determinant, float32; ×: from here on ∞")  # fmt: skip
    for form, colour in zip(section.LOG_DETS, (DARK, SAID, OTHER), strict=True):
        error = section.log_det_errors(form, far, torch.float32)[0]
        so_far(axes, far, error, "-", colour, 1.6, form)
    saturated(axes)
    return figure


def so_far(
    axes: Any, x: Tensor, errors: Tensor, style: str, colour: str, width: float, label: str
) -> None:
    """The largest error up to x, on an axis of logarithms; a cross where it becomes infinite."""
    largest = errors.cummax(0).values.clamp_min(1e-9)
    finite = largest.isfinite()
    axes.plot(x[finite], largest[finite], style, color=colour, linewidth=width, label=label)
    if not bool(finite.all()):
        axes.plot(x[finite][-1:], largest[finite][-1:], "x", color=colour, ms=10, mew=2.5)


def saturated(axes: Any) -> None:
    """From here on float32 has no other tanh than 1."""
    axes.set_yscale("log")
    axes.set_ylim(1e-9, 1e3)
    axes.axvspan(9.011, axes.get_xlim()[1], color="#eeeeee", zorder=0)
    axes.text(9.3, 1.5e-9, "float32 tanh(u) = 1", fontsize=8, color="grey")
    legend(axes, "upper left")
    axes.margins(x=0)


def log_softmax(section: LogSoftmax, seed: int) -> Figure:
    figure = canvas(11.5, "log_softmax against log(softmax), and draws of the categorical policy")
    axes = panel(figure, (1, 2, 1), "largest logit",
                 "largest error of log p so far (relative beyond 1 nat)",
                 "×: from here on log p is −∞")  # fmt: skip
    sizes = section.logits()[:, -1]
    for form, colour, width in zip(section.FORMS, (DARK, SAID), (1.6, 4.0), strict=True):
        for dtype, style in zip(section.FLOATS, (":", "-"), strict=True):
            error = section.errors(form, dtype)[0]
            so_far(axes, sizes, error, style, colour, width, f"{form}, {kind(dtype)}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(1e-9, 10)
    legend(axes, "upper right")
    counts, probs = section.frequencies(seed), section.settings.probs
    axes = panel(figure, (1, 2, 2), "action", "share of the draws",
                 f"{int(counts.sum()):,} draws")  # fmt: skip
    axes.bar(range(len(probs)), (counts / counts.sum()).numpy(), 0.6, color=DRAWN, label="drawn")
    errors = [2 * math.sqrt(p * (1 - p) / int(counts.sum())) for p in probs]
    axes.errorbar(range(len(probs)), probs, errors, fmt="o", color=SAID, capsize=4,
                  label="exp(log_prob), ±2 standard errors")  # fmt: skip
    axes.set_xticks(range(len(probs)))
    axes.set_ylim(0, 1.25 * max(probs))
    legend(axes, "upper right")
    return figure


def entropy(section: Entropy, seed: int) -> Figure:
    figure = canvas(11.5, "Entropy of every policy against −log_pi of its draws")
    rows = list(section.all(seed))[::-1]
    labels, places = [label for label, _, _ in rows], range(len(rows))
    exact = [value for _, value, _ in rows]
    means = np.array([found.mean for _, _, found in rows])
    errors = np.array([2 * found.standard_error for _, _, found in rows])
    count = f"mean of {section.settings.samples:,} draws, ±2 standard errors"
    axes = panel(figure, (1, 2, 1), "entropy (nats)", "", "values")
    axes.barh(places, means, 0.55, color=DRAWN, label="mean of −log_pi")
    axes.scatter(exact, places, color=SAID, zorder=3, label="policy.entropy()")
    axes.axvline(0, color=DARK, linewidth=0.8)
    axes.set_yticks(places, labels)
    axes.set_ylim(-0.6, len(rows) + 0.3)
    legend(axes, "upper right")
    axes = panel(figure, (1, 2, 2), "difference from policy.entropy() (nats)", "", "differences")
    axes.errorbar(means - exact, places, xerr=errors, fmt="o", color=DARK, capsize=4, label=count)
    axes.axvline(0, color=SAID, linewidth=1.5)
    axes.set_yticks(places, [""] * len(rows))
    axes.set_ylim(-0.6, len(rows) + 0.3)
    legend(axes, "upper right")
    return figure


PICTURES: dict[str, Callable[[Any, int], Figure]] = {
    "log_exp": log_exp,
    "tanh_atanh": tanh_atanh,
    "normal": normal,
    "multivariate_normal": multivariate_normal,
    "normal_log_prob": normal_log_prob,
    "tanh_normal": tanh_normal,
    "diagonal_log_prob": plane,
    "tanh_diagonal": plane,
    "tanh_full": plane,
    "log_softmax": log_softmax,
    "entropy": entropy,
}
