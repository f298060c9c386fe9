"""Tests of draws against their density, at one state, in float64."""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from audit.chance import chi2_p_value, ks_bound, ks_statistic
from audit.checks import (
    DEVIATIONS,
    HALF_LOG_2PI,
    Density,
    estimate,
    factor,
    line_integral,
    line_pit,
    planes,
    proposed,
    unlikely,
)
from audit.support import Support, support_between

DRAWS = 4000
TRIED = 100  # lines on which few nodes are compared with many
CURVES = 8  # components that have one
LEAST = -1e30  # a logarithm that stands for that of 0
MOST_CELLS = 400  # choices of several components together that are counted
P_MIN = 1e-9  # where few counts are expected, chi-square makes it up to 1e-6
INTEGRAL_ERROR = 1e-3
QUADRATURE_ERROR = 2e-3  # nats per dimension, see `expected_log_det_tanh`
SATURATED = 9.011  # float32's tanh is 1 beyond
NEAR_BOUND = 1.9  # |u| of half of the draws; |a| is 0.956
SATURATED_SHARE = 0.01  # beyond it the picture is drawn before the squashing


@dataclass(frozen=True)
class Effort:
    """How many points: each is a call of the density, or of a part of it."""

    lines: int = 1000  # draws through which a line is integrated, in each of several components
    nodes: tuple[int, int] = (33, 33)  # of two integrals, whose difference is allowed for
    panels: int = 400  # in one dimension, that hold draws
    curve_lines: int = 64  # at least; two for each component
    curve_nodes: int = 201


@dataclass(frozen=True)
class Curve:
    """One action component: its draws, and the density (or the probabilities) claimed for them."""

    draws: Tensor  # (S,)
    grid: Tensor  # (G,), or 0 .. K-1
    density: Tensor  # (G,)
    unit: str  # "action", "latent" (before tanh) or "choice"


@dataclass(frozen=True)
class Trial:
    """A distance that is 0 for a right density, but for chance and rounding, and its bound."""

    name: str
    figure: float
    bound: float

    @property
    def passed(self) -> bool:
        return self.figure <= self.bound  # NaN never passes


@dataclass(frozen=True)
class Finding:
    """The result of an audit at one state."""

    pit_ks: float  # largest distance between claimed and drawn distribution function
    normaliser: float  # integral, or sum, of the density: 1
    entropy_gap: float  # mean -log_pi (drawn, or of all choices) minus entropy(), nats: 0
    trials: tuple[Trial, ...]
    curves: tuple[Curve, ...]  # of the first components, `CURVES` at most

    @property
    def failures(self) -> tuple[str, ...]:
        """Empty where the density is right."""
        return tuple(
            f"{t.name} {t.figure:.3g} > {t.bound:.3g}" for t in self.trials if not t.passed
        )


def audit(make: Any, parameters: tuple[Tensor, ...], generator: torch.Generator) -> Finding:
    """Tests 4,000 draws against `log_prob`; a correct policy fails with a probability below 1e-6.

    Args:
        make: the policy class.
        parameters: its arguments for one state, (A,) or (A, A), (K,) or (D, K).
        generator: on the CPU; where the draws come from.
    """
    exact = [parameter.detach().double().cpu() for parameter in parameters]
    single = make(*exact)
    many = make(*(parameter.expand(DRAWS, *parameter.shape) for parameter in exact))
    noise = many.noise(generator)
    if not hasattr(many, "mean"):
        action = many.sample(noise)[0]
        tables = [*exact[0].view(-1, exact[0].shape[-1])]
        return examine_choices(
            action.view(DRAWS, -1), tables, many.log_prob(action), float(single.entropy())
        )
    action, log_pi = many.rsample_with_log_prob(noise)
    latent = many.sample(noise)[1]
    squashed = not torch.equal(action, latent)
    support = support_between(latent.shape[-1], 1.0 if squashed else math.inf)

    def density(u: Tensor) -> Tensor:
        return single.log_prob(support.action(u), u).double() + support.log_slope(u)

    return examine(density, support, latent, log_pi, generator, float(single.entropy()))


def examine(
    density: Density,
    support: Support,
    latent: Tensor,
    log_pi: Tensor,
    generator: torch.Generator,
    entropy: float | None = None,
    effort: Effort | None = None,
    kept: float = 1.0,
) -> Finding:
    """Tests draws against the density of their latents; nothing is assumed of its form.

    In one dimension it is integrated, in several along lines through the draws, and as a whole by
    importance sampling.

    Args:
        density: of latents, (*, A) -> (*,).
        support: of the actions.
        latent: (S, A) of the draws.
        log_pi: (S,) of the actions.
        generator: of the proposals.
        entropy: what the policy gives as its own.
        effort: how many points, by default for a density that is one of this project.
        kept: share of all draws that `latent` are; the density is cut off where the others lie.
    """
    effort = effort or Effort()
    dimensions = latent.shape[-1]
    scores, apart = log_pi.double() + support.log_slope(latent), None
    level, chance = float(scores.mean()), DEVIATIONS * float(scores.std()) / math.sqrt(len(scores))
    if dimensions == 1:
        integral, of_log, distance, rare = line_integral(density, latent, effort.panels)
        held, found, error = latent, [(distance, 0.0)], 0.0
        gap, inexact = of_log - integral * level, INTEGRAL_ERROR
    else:
        held = latent[: effort.lines]
        found = [along(density, held, axis, effort.nodes) for axis in range(dimensions)]
        points, others, weights, own = proposed(density, latent, generator, scores)
        most = float(own.quantile(0.999))
        integral, error = estimate(weights, most)
        spread = most * float((scores - level).abs().max())
        gap, inexact = estimate(weights * (others.clamp_min(LEAST) - level), spread)
        apart = Trial("share beyond a plane", *planes(latent, points, weights, most, generator))
        rare = unlikely(scores, own, others, weights)
    bound = ks_bound(len(held), P_MIN)
    trials = [
        Trial(f"pit_ks of component {axis}", distance, bound + inexact)
        for axis, (distance, inexact) in enumerate(found)
    ]
    trials += [apart] if apart else []
    trials.append(Trial("-log10 p of the draws farthest out", rare, -math.log10(P_MIN)))
    bound = inexact + integral * chance
    trials.append(Trial("mean over the draws", abs(gap), bound))
    error += INTEGRAL_ERROR + DEVIATIONS * math.sqrt(kept * (1.0 - kept) / len(latent))
    trials.append(Trial("|normaliser - 1|", abs(integral - kept), error))
    gap = math.nan
    if entropy is not None:
        gap = float(-log_pi.mean()) - entropy
        chance = DEVIATIONS * float(log_pi.std()) / math.sqrt(len(log_pi))
        trials.append(Trial("|entropy_gap|", abs(gap), chance + QUADRATURE_ERROR * dimensions))
    curves = tuple(
        marginal(density, support, latent, dimension, generator, effort)
        for dimension in range(min(dimensions, CURVES))
    )
    return Finding(max(found)[0], integral / kept, gap, tuple(trials), curves)


def along(
    density: Density, latent: Tensor, axis: int, nodes: tuple[int, int]
) -> tuple[float, float]:
    """(Kolmogorov-Smirnov distance of one component given the others, what it may be off by)."""
    few, many = nodes
    pit = line_pit(density, latent, axis, few)
    if few == many:
        return ks_statistic(pit), 0.0
    some = latent[: max(TRIED, 4 * latent.shape[-1])]
    inexact = (pit[: len(some)] - line_pit(density, some, axis, many)).abs().max()
    if float(inexact) > 0.1 * ks_bound(len(pit), P_MIN):
        finer = line_pit(density, latent, axis, many)
        pit, inexact = finer, (pit - finer).abs().max()
    return ks_statistic(pit), float(inexact)


def examine_choices(
    action: Tensor, tables: list[Tensor], log_pi: Tensor | None, entropy: float | None
) -> Finding:
    """The same for choices (S, D): frequencies against probabilities, and sums.

    Args:
        action: (S, D) integers from 0.
        tables: log-probabilities (K,) claimed for each of D components.
        log_pi: what `log_prob` gives for all, or the first, of them, where there is one.
        entropy: what the policy gives as its own.
    """
    distances, totals, trials, curves, entropies = [], [], [], [], []
    for choices, table in zip(action.T, tables, strict=True):
        size = max(int(choices.max()), int(table.isfinite().nonzero().max())) + 1
        log_probs = torch.nn.functional.pad(table, (0, size - len(table)), value=-torch.inf)
        probs = log_probs.exp()
        counts = torch.bincount(choices, minlength=size).double()
        distances.append(float(((counts / len(choices) - probs).cumsum(0)).abs().max()))
        totals.append(float(probs.sum()))
        unlikely = -math.log10(max(chi2_p_value(counts, probs), 1e-300))
        # By the sum over all actions: of a rare one, the draws may have none or several.
        entropies.append(float(-(probs * log_probs.clamp_min(-1e30)).sum()))
        trials += [
            Trial("-log10 p of the frequencies", unlikely, -math.log10(P_MIN)),
            Trial("|normaliser - 1|", abs(totals[-1] - 1.0), INTEGRAL_ERROR),
        ]
        curves.append(Curve(choices, torch.arange(len(probs)), probs, "choice"))
    columns = [*zip(action.T, (curve.density for curve in curves), strict=True)][:CURVES]
    groups = [*combinations(columns, 2), *([columns] if len(columns) > 2 else [])]
    for group in groups:
        cells = math.prod(len(probs) for _, probs in group)
        if cells <= MOST_CELLS and all(trial.passed for trial in trials):
            cell, expected = torch.zeros_like(action[:, 0]), torch.ones(1, dtype=torch.float64)
            for choice, probs in group:
                cell = cell * len(probs) + choice
                expected = torch.outer(expected, probs / probs.sum()).flatten()
            counts = torch.bincount(cell, minlength=cells)
            unlikely = -math.log10(max(chi2_p_value(counts, expected), 1e-300))
            which = "two" if len(group) == 2 else "all"
            trials.append(Trial(f"-log10 p of {which} components", unlikely, -math.log10(P_MIN)))
    if log_pi is not None:
        some = action[: len(log_pi)].T
        each = [table[choices] for table, choices in zip(tables, some, strict=True)]
        joint = float((log_pi - torch.stack(each).sum(0)).abs().max())
        trials.append(Trial("|joint log_prob - its sum|", joint, INTEGRAL_ERROR))
    gap = math.nan
    if entropy is not None:
        gap = sum(entropies) - entropy
        trials.append(Trial("|entropy_gap|", abs(gap), INTEGRAL_ERROR * len(tables)))
    farthest = max(totals, key=lambda total: abs(total - 1.0))
    return Finding(max(distances), farthest, gap, tuple(trials), tuple(curves[:CURVES]))


def marginal(
    density: Density,
    support: Support,
    latent: Tensor,
    dimension: int,
    generator: torch.Generator,
    effort: Effort,
) -> Curve:
    """The claimed density of one component, the others integrated out by importance sampling.

    They are proposed by the Gaussian that has the draws' mean and covariance, given this one, from
    the same noise everywhere. If that is how they lie, the estimate has no variance.
    """
    size = latent.shape[-1]
    order = [dimension, *(i for i in range(size) if i != dimension)]
    lower = factor(latent[:, order])
    lines = max(effort.curve_lines, 2 * size)
    noise = torch.empty(lines, size - 1, dtype=latent.dtype).normal_(generator=generator)
    # With mean 0 and covariance 1, what is linear and quadratic has no error.
    centred = (noise - noise.mean(0)).T
    noise = torch.linalg.solve_triangular(factor(noise), centred, upper=False).T
    proposal = (-0.5 * noise.square() - HALF_LOG_2PI - lower.diagonal()[1:].log()).sum(-1)
    ticks = torch.linspace(-5.0, 5.0, effort.curve_nodes, dtype=latent.dtype)
    steps = torch.cat(
        [ticks.view(-1, 1, 1).expand(-1, lines, 1), noise.expand(len(ticks), -1, -1)], -1
    )
    u = torch.empty_like(steps)
    u[..., order] = latent.mean(0)[order] + steps @ lower.T
    claimed = torch.exp(density(u) - proposal).mean(-1)
    return in_units(support, dimension, latent[:, dimension], u[:, 0, dimension], claimed)


def in_units(support: Support, axis: int, latent: Tensor, grid: Tensor, density: Tensor) -> Curve:
    """The curve of actions, from draws and a density of latents; of these where a bound is near."""
    one, size = support[axis], latent.abs()
    hidden = (size > SATURATED).double().mean() > SATURATED_SHARE or size.median() > NEAR_BOUND
    if bool(one.box) and bool(hidden):
        return Curve(latent, grid, density, "latent")
    density = density / one.log_slope(grid.unsqueeze(-1)).exp()
    draws, grid = (one.action(u.unsqueeze(-1)).squeeze(-1) for u in (latent, grid))
    return Curve(draws, grid, density, "action")
