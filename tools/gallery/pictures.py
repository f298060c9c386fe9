"""One picture per section: what was drawn is blue, what log_prob gives is orange."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from tools.gallery.densities import Case, DensitySection
from tools.gallery.functions import ActionMask, Entropy, LogExp, LogSoftmax, TanhAtanh
from tools.gallery.sections import Section, kind

DRAWN, DENSITY, OTHER, DARK = "#a9c4de", "#d9600a", "#3f7f4f", "#22384f"
COLOURS = (DARK, DENSITY, OTHER, "#8a4fa3")


def canvas(width: float, title: str) -> Figure:
    figure = Figure(figsize=(width, 4.6), dpi=110, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=DARK)
    return figure


def panel(figure: Figure, place: tuple[int, int, int], x: str, y: str, title: str = "") -> Any:
    axes = figure.add_subplot(*place)
    axes.set(xlabel=x, ylabel=y)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def legend(axes: Any, place: str, room: float = 0.0) -> None:
    """The legend; `room` above the curves is a share of the height."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + room * (high - low))
    axes.legend(loc=place, fontsize=9, frameon=True, framealpha=1.0, edgecolor="none")


def pixels(figure: Figure) -> np.ndarray:
    """(H, W, 3) uint8."""
    drawing: Any = FigureCanvasAgg(figure)
    drawing.draw()
    return np.asarray(drawing.buffer_rgba())[..., :3].copy()


# functions and entropies


def log_exp(section: LogExp, seed: int) -> Figure:
    figure = canvas(8.5, "exp(log X) against X in every float type")
    axes = panel(figure, (1, 1, 1), "element of X", "relative error")
    for place, (dtype, colour) in enumerate(zip(section.FLOATS, COLOURS, strict=True)):
        errors = section.errors(dtype).flatten()
        elements = torch.arange(len(errors)) + 0.12 * (place - 1.5)
        axes.scatter(elements, errors, color=colour, s=32, label=kind(dtype), zorder=3)
        axes.axhline(section.bound(dtype), color=colour, linewidth=1, linestyle="--")
    values = section.matrix(torch.float64).flatten().tolist()
    axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    axes.set_yscale("symlog", linthresh=1e-17)
    axes.set_yticks([0, *(10.0**k for k in range(-15, 0, 3))])
    axes.plot([], [], "--", color="grey", linewidth=1, label="bound")
    figure.legend(loc="outside right center", frameon=False)
    return figure


def so_far(axes: Any, x: Tensor, errors: Tensor, style: str, **more: Any) -> None:
    """The largest error up to x, on a logarithmic axis; a cross where it becomes infinite."""
    largest = errors.cummax(0).values.clamp_min(1e-9)
    finite = largest.isfinite()
    axes.plot(x[finite], largest[finite], style, **more)
    if not bool(finite.all()):
        axes.plot(x[finite][-1:], largest[finite][-1:], "x", color=more["color"], ms=10, mew=2.5)


def tanh_atanh(section: TanhAtanh, seed: int) -> Figure:
    figure = canvas(14, "tanh and its inverse, and the log-determinant, against 50 digits")
    near, far = section.near(), section.far(0.05)[1:]
    axes = panel(figure, (1, 3, 1), "u", "", "tanh and the way back")
    axes.plot(near, torch.tanh(near), color=DARK, label="tanh(u)")
    back = torch.atanh(torch.tanh(near.float()))
    axes.plot(near, back, ":", color=DENSITY, linewidth=2.5, label="atanh(tanh(u)), float32")
    legend(axes, "upper left")
    inverses = {form: section.lost(form, far, torch.float32) for form in section.INVERSES}
    log_dets = {
        form: section.log_det_errors(form, far, torch.float32)[0] for form in section.LOG_DETS
    }
    for place, errors, what, y in (
        (2, inverses, "inverse", "largest |inverse(tanh(u)) − u| so far"),
        (3, log_dets, "log-determinant", "largest error so far (relative beyond 1 nat)"),
    ):
        axes = panel(figure, (1, 3, place), "|u|", y, f"{what}, float32; ×: from here on ∞")
        for form, style, colour in zip(errors, "-:-", COLOURS, strict=False):
            so_far(axes, far, errors[form], style, color=colour, linewidth=2, label=form)
        axes.set(yscale="log", ylim=(1e-9, 1e3), xlim=(0, float(far[-1])))
        axes.axvspan(9.011, float(far[-1]), color="#eeeeee", zorder=0)
        axes.text(9.3, 1.5e-9, "float32 tanh(u) = 1", fontsize=8, color="grey")
        legend(axes, "upper left")
    return figure


def log_softmax(section: LogSoftmax, seed: int) -> Figure:
    figure = canvas(11.5, "log_softmax against log(softmax), and draws of the categorical policy")
    error = "largest error of log p so far (relative beyond 1 nat)"
    axes = panel(figure, (1, 2, 1), "largest logit", error, "×: from here on log p is −∞")
    for form, colour, width in zip(section.FORMS, (DARK, DENSITY), (1.6, 4.0), strict=True):
        for dtype, style in zip(section.FLOATS, (":", "-"), strict=True):
            more = {"color": colour, "linewidth": width, "label": f"{form}, {kind(dtype)}"}
            so_far(axes, section.logits()[:, -1], section.errors(form, dtype)[0], style, **more)
    axes.set(xscale="log", yscale="log", ylim=(1e-9, 10))
    legend(axes, "upper right")
    shares(figure, 2, *section.draws(seed))
    return figure


def shares(figure: Figure, place: int, counts: Tensor, probs: Tensor) -> Any:
    """How often each of K actions was drawn, and its probability, (K,)."""
    total, places = int(counts.sum()), range(len(counts))
    axes = panel(figure, (1, 2, place), "action", "share of the draws", f"{total:,} draws")
    axes.bar(places, (counts / total).numpy(), 0.6, color=DRAWN, label="drawn")
    errors = 2 * (probs * (1 - probs) / total).sqrt()
    label = "exp(log_prob), ±2 standard errors"
    axes.errorbar(places, probs, errors, fmt="o", color=DENSITY, capsize=4, label=label)
    axes.set(xticks=places, ylim=(0, 1.25 * float(probs.max())))
    legend(axes, "upper right")
    return axes


def action_mask(section: ActionMask, seed: int) -> Figure:
    figure = canvas(11.5, "The categorical policy under a mask, and three ways to get it wrong")
    axes = shares(figure, 1, *section.draws(seed))
    for place in section.forbidden.nonzero().flatten().tolist():
        axes.axvspan(place - 0.4, place + 0.4, color="#eeeeee", zorder=0)
        axes.text(place, 0.02, "forbidden", ha="center", fontsize=9, color="grey")
    axes = panel(figure, (1, 2, 2), "largest error of log p, entropy, divergence", "")
    for form, colour in reversed([*zip(section.FORMS, COLOURS, strict=True)]):
        dtype, (of_value, _) = section.shown(form)
        error, name = float(of_value.max()), f"{form}\n{kind(dtype)}"
        axes.barh(name, min(error, 1e4), 0.5, left=1e-9, color=colour)
        axes.text(2e-9, name, f"{error:.2g}".replace("inf", "NaN"), color="white", va="center")
    axes.set(xscale="log", xlim=(1e-9, 1e3))
    return figure


def entropy(section: Entropy, seed: int) -> Figure:
    figure = canvas(11.5, "Entropy of every policy against −log_pi of its draws")
    rows = list(section.estimates(seed))[::-1]
    labels, exact, means, errors = map(np.array, zip(*rows, strict=True))
    axes = panel(figure, (1, 2, 1), "entropy (nats)", "", "values")
    axes.barh(labels, means, 0.55, color=DRAWN, label="mean of −log_pi")
    axes.scatter(exact, labels, color=DENSITY, zorder=3, label="policy.entropy()")
    axes.axvline(0, color=DARK, linewidth=0.8)
    legend(axes, "upper right", room=0.15)
    axes = panel(figure, (1, 2, 2), "difference from policy.entropy() (nats)", "", "differences")
    label = f"mean of {section.settings.samples:,} draws, ±2 standard errors"
    style = {"fmt": "o", "color": DARK, "capsize": 4, "label": label}
    axes.errorbar(means - exact, labels, xerr=2 * errors, **style)
    axes.axvline(0, color=DENSITY, linewidth=1.5)
    legend(axes, "upper right", room=0.15)
    return figure


# densities

TITLES = {
    "normal": "Gaussian: draws, log_prob, and the density by hand",
    "normal_log_prob": "Gaussian: exp(log_prob) over the histogram of its draws",
    "tanh_normal": "TanhGaussian: exp(log_prob) over the histogram of its actions",
}
DOTS = {"color": DENSITY, "edgecolor": "white"}


def named(section: DensitySection, case: Case) -> str:
    given = section.settings
    spread = f"L {given.scale_tril}" if case.policy.correlated else f"std {given.std}"
    return f"{'u of ' * case.policy.squashed}mean {given.mean}, {spread}"


def line(section: DensitySection, seed: int) -> Figure:
    """Histogram of actions with one component under the density at some of them."""
    subjects = list(section.subjects(seed))
    figure = canvas(7.5 if len(subjects) == 1 else 11.5, TITLES[section.name])
    for place, subject in enumerate(subjects, 1):
        case = subject.case
        shown, unit, label = units(case, subject.latent[:, 0].double())
        density = case.log_prob(subject.action.double(), subject.latent.double()).exp() * unit
        per = f"10$^{{{round(math.log10(unit))}}}$" if unit != 1 else "unit of action"
        title = case.label or "a = tanh(u), " * case.policy.squashed + named(section, case)
        axes = panel(figure, (1, len(subjects), place), label, f"density (per {per})", title)
        count = len(shown)
        bins = max(20, min(80, count // 60))
        axes.hist(shown.numpy(), bins, density=True, color=DRAWN, label=f"{count:,} draws")
        points = getattr(section.settings, "points", count)
        some, size = f"exp(log_prob) at {points:,} of them", {"s": 16, "linewidth": 0.4}
        axes.scatter(shown[:points], density[:points], label=some, zorder=3, **size, **DOTS)
        if case.label:  # the section that writes the density out
            mean, std = float(case.mean), float(case.tril)
            x = torch.linspace(mean - 4 * std, mean + 4 * std, 400).double()
            by_hand = torch.exp(-((x - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))
            axes.plot(x, by_hand, color=DARK, linewidth=1, zorder=4, label="written out by hand")
        if unit != 1:
            axes.invert_xaxis()
        legend(axes, "upper left", room=0.25)
    return figure


def units(case: Case, latent: Tensor) -> tuple[Tensor, float, str]:
    """(the actions to show, their unit, the label of their axis).

    Within 0.01 of a bound it is their distance from it, in a power of ten.
    """
    if not case.policy.squashed or float(torch.tanh(latent.abs()).min()) < 0.99:
        return case.squash(latent), 1.0, "action"
    distance = 2 / (torch.exp(2 * latent.abs()) + 1)  # 1 - |tanh(u)|, without cancellation
    power = round(math.log10(float(distance.mean())))
    bound = "1 − action" if float(latent[0]) > 0 else "1 + action"
    label = f"distance from the bound, {bound} (10$^{{{power}}}$)"
    return distance / 10.0**power, 10.0**power, label


def multivariate_normal(section: DensitySection, seed: int) -> Figure:
    figure = canvas(11, "Gaussians in two dimensions: draws, density, covariance")
    for place, subject in enumerate(section.subjects(seed), 1):
        case, action = subject.case, subject.action.double()
        axes = panel(figure, (1, 2, place), "action 1", "action 2", f"{case.label} covariance")
        density = case.log_prob(action, action).exp()
        shades = {"c": density, "cmap": "Blues", "edgecolor": DRAWN, "linewidth": 0.4}
        dots = axes.scatter(action[:, 0], action[:, 1], s=14, **shades)
        figure.colorbar(dots, label="exp(log_prob) (per unit²)", shrink=0.85)
        sample = torch.linalg.cholesky(action.T.cov())
        angle = torch.linspace(0, 2 * math.pi, 200, dtype=torch.float64)
        circle = 2 * torch.stack([angle.cos(), angle.sin()])
        for mean, tril, style, colour, label in (
            (case.mean.double(), case.tril, "-", DENSITY, "2 std, L Lᵀ"),
            (action.mean(0), sample, "--", DARK, f"2 std, {len(action):,} draws"),
        ):
            ring = mean[:, None] + tril @ circle
            axes.plot(ring[0], ring[1], style, color=colour, linewidth=1.6, label=label)
        legend(axes, "upper left", room=0.22)
    return figure


def plane(section: DensitySection, seed: int) -> Figure:
    """Two components: the density at some draws over the 3-D histogram, and both from above."""
    (subject,) = section.subjects(seed)
    case, points = subject.case, section.settings.points
    over = f"{case.policy.__name__}: exp(log_prob) over the histogram of its actions"
    figure, action = canvas(12.5, f"{over}; {named(section, case)}"), subject.action.double()
    density = case.log_prob(action, subject.latent.double()).exp()
    x, y = action.T.numpy()
    heights, *edges = np.histogram2d(x, y, bins=24, density=True)
    histogram = f"histogram of {len(action):,} draws"
    left, near = np.meshgrid(*(ends[:-1] for ends in edges), indexing="ij")
    there, (width, depth) = heights > 0, (ends[1] - ends[0] for ends in edges)
    solid: Any = figure.add_subplot(1, 2, 1, projection="3d", computed_zorder=False)
    bars = left[there], near[there], 0, width, depth, heights[there]
    solid.bar3d(*bars, color=DRAWN, alpha=0.45, zorder=1)
    dots = {"s": 8, "linewidth": 0.2, "zorder": 2, "depthshade": False, **DOTS}
    solid.scatter(*action[:points].T, density[:points], **dots)
    solid.set(xlabel="action 1", ylabel="action 2", zlabel="density (per unit²)")
    solid.locator_params(nbins=4)
    solid.zaxis.labelpad = 9
    solid.view_init(elev=24, azim=-58)
    solid.set_box_aspect((1.15, 1.15, 0.9), zoom=1.08)
    solid.plot([], [], "s", color=DRAWN, label=histogram)
    solid.plot([], [], "o", color=DENSITY, label=f"exp(log_prob) at {points:,} of them")
    solid.legend(loc="upper left", bbox_to_anchor=(-0.17, 1.04), fontsize=9, frameon=False)
    above = panel(figure, (1, 2, 2), "action 1", "action 2", "the same from above")
    above.grid(False)
    above.set_facecolor("#f7fbff")  # the lightest of the blues
    shades = above.pcolormesh(*edges, heights.T, cmap="Blues")
    figure.colorbar(shades, label=f"{histogram} (per unit²)")
    ticks = [torch.linspace(ends[0], ends[-1], 121, dtype=torch.float64) for ends in edges]
    grid = torch.stack(torch.meshgrid(*ticks, indexing="xy"), -1)  # (121, 121, 2)
    levels = float(density.max()) * np.array([0.05, 0.2, 0.4, 0.6, 0.8])
    above.contour(*ticks, case.log_prob(grid).exp(), levels, colors=DENSITY, linewidths=1.2)
    above.plot([], [], color=DENSITY, label="exp(log_prob): 5, 20, 40, 60, 80 % of its largest")
    legend(above, "upper left", room=0.12)
    return figure


GALLERY: dict[str, tuple[type[Section], Callable[[Any, int], Figure]]] = {
    "log_exp": (LogExp, log_exp),
    "tanh_atanh": (TanhAtanh, tanh_atanh),
    "normal": (DensitySection, line),
    "multivariate_normal": (DensitySection, multivariate_normal),
    "normal_log_prob": (DensitySection, line),
    "tanh_normal": (DensitySection, line),
    "diagonal_log_prob": (DensitySection, plane),
    "tanh_diagonal": (DensitySection, plane),
    "tanh_full": (DensitySection, plane),
    "log_softmax": (LogSoftmax, log_softmax),
    "action_mask": (ActionMask, action_mask),
    "entropy": (Entropy, entropy),
}
