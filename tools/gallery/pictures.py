"""One picture per section: what was drawn is blue, what log_prob gives is orange."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from tools.gallery.densities import DensitySection
from tools.gallery.entropies import Entropy
from tools.gallery.functions import LogExp, LogSoftmax, TanhAtanh
from tools.gallery.report import Section
from tools.gallery.statistics import Case, kind

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
    """The legend, above which the axes grow by a share of their height."""
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
    floor = 1e-17
    for place, (dtype, colour) in enumerate(zip(section.FLOATS, COLOURS, strict=True)):
        errors = section.errors(dtype).flatten().clamp_min(floor)
        elements = torch.arange(len(errors)) + 0.12 * (place - 1.5)
        axes.scatter(elements, errors, color=colour, s=32, label=kind(dtype), zorder=3)
        axes.axhline(section.bound(dtype), color=colour, linewidth=1, linestyle="--")
    values = section.matrix(torch.float64).flatten().tolist()
    axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    axes.set_yscale("log")
    powers = range(-15, 0, 3)
    names = ["exact", *(f"$10^{{{k}}}$" for k in powers)]
    axes.set_yticks([floor, *(10.0**k for k in powers)], names)
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
    back.plot(near, torch.atanh(torch.tanh(near.float())), ":", color=DENSITY, linewidth=2.5)
    back.set_ylabel("atanh(tanh(u)), float32", color=DENSITY)
    back.spines["top"].set_visible(False)
    legend(axes, "upper left")
    title = "inverse, float32; ×: from here on ∞"
    axes = panel(figure, (1, 3, 2), "|u|", "largest |inverse(tanh(u)) − u| so far", title)
    for form, colour, line in zip(section.INVERSES, COLOURS, "-:", strict=False):
        so_far(axes, far, section.lost(form, far, torch.float32), line, colour, 2.0, form)
    saturated(axes)
    title = "log-determinant, float32; ×: from here on ∞"
    axes = panel(figure, (1, 3, 3), "|u|", "largest error so far (relative beyond 1 nat)", title)
    for form, colour in zip(section.LOG_DETS, COLOURS, strict=False):
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
    axes.set_yscale("log")


def saturated(axes: Any) -> None:
    """From here on float32 has no other tanh than 1."""
    axes.set_ylim(1e-9, 1e3)
    axes.axvspan(9.011, axes.get_xlim()[1], color="#eeeeee", zorder=0)
    axes.text(9.3, 1.5e-9, "float32 tanh(u) = 1", fontsize=8, color="grey")
    legend(axes, "upper left")
    axes.margins(x=0)


def log_softmax(section: LogSoftmax, seed: int) -> Figure:
    figure = canvas(11.5, "log_softmax against log(softmax), and draws of the categorical policy")
    error_so_far = "largest error of log p so far (relative beyond 1 nat)"
    title = "×: from here on log p is −∞"
    axes = panel(figure, (1, 2, 1), "largest logit", error_so_far, title)
    sizes = section.logits()[:, -1]
    for form, colour, width in zip(section.FORMS, (DARK, DENSITY), (1.6, 4.0), strict=True):
        for dtype, style in zip(section.FLOATS, (":", "-"), strict=True):
            error = section.errors(form, dtype)[0]
            so_far(axes, sizes, error, style, colour, width, f"{form}, {kind(dtype)}")
    axes.set(xscale="log", ylim=(1e-9, 10))
    legend(axes, "upper right")
    counts, probs = section.frequencies(seed), section.settings.probs
    total, places = int(counts.sum()), range(len(probs))
    axes = panel(figure, (1, 2, 2), "action", "share of the draws", f"{total:,} draws")
    axes.bar(places, (counts / total).numpy(), 0.6, color=DRAWN, label="drawn")
    errors = [2 * math.sqrt(p * (1 - p) / total) for p in probs]
    label = "exp(log_prob), ±2 standard errors"
    axes.errorbar(places, probs, errors, fmt="o", color=DENSITY, capsize=4, label=label)
    axes.set(xticks=places, ylim=(0, 1.25 * max(probs)))
    legend(axes, "upper right")
    return figure


def entropy(section: Entropy, seed: int) -> Figure:
    figure = canvas(11.5, "Entropy of every policy against −log_pi of its draws")
    rows = list(section.estimates(seed))[::-1]
    places = range(len(rows))
    labels, exact, means, errors = map(np.array, zip(*rows, strict=True))
    axes = panel(figure, (1, 2, 1), "entropy (nats)", "", "values")
    axes.barh(places, means, 0.55, color=DRAWN, label="mean of −log_pi")
    axes.scatter(exact, places, color=DENSITY, zorder=3, label="policy.entropy()")
    axes.axvline(0, color=DARK, linewidth=0.8)
    both = [axes, panel(figure, (1, 2, 2), "difference from policy.entropy() (nats)", "")]
    both[1].set_title("differences", fontsize=10)
    label = f"mean of {section.settings.samples:,} draws, ±2 standard errors"
    style = {"fmt": "o", "color": DARK, "capsize": 4, "label": label}
    both[1].errorbar(means - exact, places, xerr=2 * errors, **style)
    both[1].axvline(0, color=DENSITY, linewidth=1.5)
    for axes, names in zip(both, (labels, [""] * len(rows)), strict=True):
        axes.set_yticks(places, names)
        axes.set_ylim(-0.6, len(rows) + 0.3)
        legend(axes, "upper right")
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
    spread = f"L {given.scale_tril}" if case.full else f"std {given.std}"
    return f"{'u of ' if case.squashed else ''}mean {given.mean}, {spread}"


def line(section: DensitySection, seed: int) -> Figure:
    """Histogram of actions with one component under the density at some of them."""
    subjects = list(section.subjects(seed))
    figure = canvas(7.5 if len(subjects) == 1 else 11.5, TITLES[section.name])
    for place, subject in enumerate(subjects, 1):
        case = subject.case
        shown, unit, label = units(case, subject.latent[:, 0].double())
        density = case.log_prob(subject.action.double(), subject.latent.double()).exp() * unit
        per = f"10$^{{{round(math.log10(unit))}}}$" if unit != 1 else "unit of action"
        title = case.label or ("a = tanh(u), " if case.squashed else "") + named(section, case)
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
    """(what to show of the actions, the unit it is in, label of the axis).

    Within 0.01 of a bound that is the distance from it, in a power of ten.
    """
    if not case.squashed or float(torch.tanh(latent.abs()).min()) < 0.99:
        return case.squash(latent), 1.0, "action"
    distance = 2 / (torch.exp(2 * latent.abs()) + 1)  # 1 - |tanh(u)|, without cancellation
    unit = 10.0 ** round(math.log10(float(distance.mean())))
    bound = "1 − action" if float(latent[0]) > 0 else "1 + action"
    label = f"distance from the bound, {bound} (10$^{{{round(math.log10(unit))}}}$)"
    return distance / unit, unit, label


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
    policy = ("Tanh" if case.squashed else "") + ("FullGaussian" if case.full else "Gaussian")
    title = f"{policy}: exp(log_prob) over the histogram of its actions; {named(section, case)}"
    figure, action = canvas(12.5, title), subject.action.double()
    density = case.log_prob(action, subject.latent.double()).exp()
    x, y = action.T.numpy()
    heights, first, second = np.histogram2d(x, y, bins=24, density=True)
    histogram = f"histogram of {len(action):,} draws"
    left, near = np.meshgrid(first[:-1], second[:-1], indexing="ij")
    there = heights > 0
    solid: Any = figure.add_subplot(1, 2, 1, projection="3d", computed_zorder=False)
    bars = (left[there], near[there], 0, np.diff(first)[0], np.diff(second)[0], heights[there])
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
    shades = above.pcolormesh(first, second, heights.T, cmap="Blues")
    bar = figure.colorbar(shades, label=f"{histogram} (per unit²)")
    std = case.tril.square().sum(-1).sqrt()
    ticks = torch.linspace(-4, 4, 121, dtype=torch.float64)
    latent = case.mean.double() + std * torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"), -1)
    surface, height = case.squash(latent), case.log_prob(case.squash(latent), latent).exp()
    levels = float(density.max()) * np.array([0.05, 0.2, 0.4, 0.6, 0.8])
    style = {"levels": levels, "colors": DENSITY, "linewidths": 1.2}
    bar.add_lines(above.contour(surface[..., 0], surface[..., 1], height, **style))
    above.plot([], [], color=DENSITY, label="exp(log_prob): 5, 20, 40, 60, 80 % of its largest")
    above.set(xlim=first[[0, -1]], ylim=second[[0, -1]])
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
    "entropy": (Entropy, entropy),
}
