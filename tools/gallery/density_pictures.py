"""The pictures of densities: a histogram of draws, and exp(log_prob) at some of them."""

import math
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from tools.gallery.canvas import DARK, DRAWN, SAID, canvas, legend, panel
from tools.gallery.sections import DensitySection
from tools.gallery.statistics import Case


def line(section: DensitySection, seed: int, titles: list[str], title: str) -> Figure:
    """Histogram of actions with one component under the density at some of them."""
    subjects = list(section.subjects(seed))
    figure = canvas(7.5 if len(subjects) == 1 else 11.5, title)
    for place, subject in enumerate(subjects, 1):
        case, draws = subject.case, subject.draws
        shown, unit, label = units(case, draws.latent[:, 0].double())
        density = case.log_prob(draws.action.double(), draws.latent.double()).exp() * unit
        per = f"10$^{{{round(math.log10(unit))}}}$" if unit != 1 else "unit of action"
        axes = panel(figure, (1, len(subjects), place), label, f"density (per {per})",
                     titles[place - 1])  # fmt: skip
        count = len(shown)
        bins = max(20, min(80, count // 60))
        axes.hist(shown.numpy(), bins, density=True, color=DRAWN, label=f"{count:,} draws")
        points = getattr(section.settings, "points", count)
        axes.scatter(shown[:points], density[:points], s=16, color=SAID, edgecolor="white",
                     linewidth=0.4, zorder=3,
                     label=f"exp(log_prob) at {points:,} of them")  # fmt: skip
        if case.label:  # the section that writes the density out
            mean, std = float(case.mean), float(case.tril)
            x = torch.linspace(mean - 4 * std, mean + 4 * std, 400).double()
            by_hand = torch.exp(-((x - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))
            axes.plot(x, by_hand, color=DARK, linewidth=1, zorder=4, label="written out by hand")
        if unit != 1:
            axes.invert_xaxis()
        axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
        legend(axes, "upper left")
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


def normal(section: DensitySection, seed: int) -> Figure:
    given = section.settings
    titles = [f"mean {given.mean:g}, std {given.std:g}", "standard normal"]
    return line(section, seed, titles, "Gaussian: draws, log_prob, and the density by hand")


def normal_log_prob(section: DensitySection, seed: int) -> Figure:
    title = "Gaussian: exp(log_prob) over the histogram of its draws"
    return line(section, seed, [named(section)], title)


def tanh_normal(section: DensitySection, seed: int) -> Figure:
    title = "TanhGaussian: exp(log_prob) over the histogram of its actions"
    return line(section, seed, [f"a = tanh(u), u of {named(section)}"], title)


def named(section: DensitySection) -> str:
    given = section.settings
    spread = f"L {given.scale_tril}" if hasattr(given, "scale_tril") else f"std {given.std}"
    return f"mean {given.mean}, {spread}"


def multivariate_normal(section: DensitySection, seed: int) -> Figure:
    figure = canvas(11, "Gaussians in two dimensions: draws, density, covariance")
    for place, subject in enumerate(section.subjects(seed), 1):
        case, action = subject.case, subject.draws.action.double()
        axes = panel(figure, (1, 2, place), "action 1", "action 2", f"{case.label} covariance")
        density = case.log_prob(action, action).exp()
        dots = axes.scatter(action[:, 0], action[:, 1], c=density, cmap="Blues", s=14,
                            edgecolor=DRAWN, linewidth=0.4)  # fmt: skip
        figure.colorbar(dots, label="exp(log_prob) (per unit²)", shrink=0.85)
        centred = action - action.mean(0)
        sample = torch.linalg.cholesky(centred.T @ centred / (len(action) - 1))
        ellipses = ((case.mean.double(), case.tril, "-", "2 std, L Lᵀ"),
                    (action.mean(0), sample, "--", f"2 std, {len(action):,} draws"))  # fmt: skip
        angle = torch.linspace(0, 2 * math.pi, 200, dtype=torch.float64)
        circle = 2 * torch.stack([angle.cos(), angle.sin()])
        for (mean, tril, style, label), colour in zip(ellipses, (SAID, DARK), strict=True):
            ring = mean[:, None] + tril @ circle
            axes.plot(ring[0], ring[1], style, color=colour, linewidth=1.6, label=label)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.22 * (high - low))
        legend(axes, "upper left")
    return figure


def plane(section: DensitySection, seed: int) -> Figure:
    """Two components: the density at some draws over the 3-D histogram, and both from above."""
    (subject,) = section.subjects(seed)
    case, draws, points = subject.case, subject.draws, section.settings.points
    policy = ("Tanh" if case.squashed else "") + ("FullGaussian" if case.full else "Gaussian")
    figure = canvas(12.5, f"{policy}: exp(log_prob) over the histogram of its actions; "
                    f"{'u of ' if case.squashed else ''}{named(section)}")  # fmt: skip
    action = draws.action.double()
    density = case.log_prob(action, draws.latent.double()).exp()
    heights, first, second = np.histogram2d(
        action[:, 0].numpy(), action[:, 1].numpy(), bins=24, density=True
    )
    left, near = np.meshgrid(first[:-1], second[:-1], indexing="ij")
    there = heights > 0
    solid: Any = figure.add_subplot(1, 2, 1, projection="3d", computed_zorder=False)
    solid.bar3d(left[there], near[there], 0, np.diff(first)[0], np.diff(second)[0],
                heights[there], color=DRAWN, alpha=0.45, zorder=1)  # fmt: skip
    solid.scatter(*action[:points].T, density[:points], color=SAID, s=8, edgecolor="white",
                  linewidth=0.2, depthshade=False, zorder=2)  # fmt: skip
    solid.set(xlabel="action 1", ylabel="action 2", zlabel="density (per unit²)")
    solid.locator_params(nbins=4)
    solid.zaxis.labelpad = 9
    solid.view_init(elev=24, azim=-58)
    solid.set_box_aspect((1.15, 1.15, 0.9), zoom=1.08)
    above = panel(figure, (1, 2, 2), "action 1", "action 2", "the same from above")
    above.grid(False)
    above.set_facecolor("#f7fbff")  # the lightest of the blues
    shades = above.pcolormesh(first, second, heights.T, cmap="Blues")
    bar = figure.colorbar(shades, label=f"histogram of {len(action):,} draws (per unit²)")
    std = case.tril.square().sum(-1).sqrt()
    ticks = torch.linspace(-4, 4, 121, dtype=torch.float64)
    latent = case.mean.double() + std * torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"), -1)
    surface = case.squash(latent)
    levels = float(density.max()) * np.array([0.05, 0.2, 0.4, 0.6, 0.8])
    contours = above.contour(surface[..., 0], surface[..., 1], case.log_prob(surface, latent).exp(),
                             levels=levels, colors=SAID, linewidths=1.2)  # fmt: skip
    bar.add_lines(contours)
    solid.plot([], [], "s", color=DRAWN, label=f"histogram of {len(action):,} draws")
    solid.plot([], [], "o", color=SAID, label=f"exp(log_prob) at {points:,} of them")
    solid.legend(loc="upper left", bbox_to_anchor=(-0.17, 1.04), fontsize=9, frameon=False)
    above.plot([], [], color=SAID, label="exp(log_prob): 5, 20, 40, 60, 80 % of its largest")
    above.set_xlim(first[0], first[-1])
    above.set_ylim(second[0], second[-1] + 0.12 * (second[-1] - second[0]))
    legend(above, "upper left")
    return figure
