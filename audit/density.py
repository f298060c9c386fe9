"""Tests of the draws of a policy against its density, at one state, in float64."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audit import checks
from policies.categorical import Categorical, MultiCategorical
from policies.gaussian import HALF_LOG_2PI

DRAWS = 4000
LINES = 1000  # draws through which a line is integrated, in each of several components
NODES = 33  # they err by 3e-5
CURVE_LINES, CURVE_NODES = 64, 201  # lines at least; two for each component
CURVES = 8  # components that have one
P_MIN = 1e-9  # where few counts are expected, chi-square makes it up to 1e-6
DEVIATIONS = 6.0  # of the standard error: a probability of 2e-9
INTEGRAL_ERROR = 1e-3
QUADRATURE_ERROR = 2e-3  # nats per dimension, see `expected_log_det_tanh`
SATURATED_SHARE = 0.01  # beyond it the picture is drawn before the squashing


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
    if isinstance(single, Categorical):
        return audit_choices(single, many, many.sample(noise)[0])
    action, log_pi = many.rsample_with_log_prob(noise)
    latent = many.sample(noise)[1]
    squashed = not torch.equal(action, latent)
    dimensions = latent.shape[-1]
    held = latent if dimensions == 1 else latent[:LINES]
    distances = [
        checks.ks_statistic(checks.line_pit(single, held, dimension, NODES, squashed=squashed))
        for dimension in range(dimensions)
    ]
    integral, error = checks.normaliser(single, latent, generator, squashed=squashed)
    gap = float(-log_pi.mean() - single.entropy())
    chance = DEVIATIONS * float(log_pi.std()) / math.sqrt(DRAWS)
    bound = checks.ks_bound(len(held), P_MIN)
    trials = (
        *(Trial(f"pit_ks of component {i}", found, bound) for i, found in enumerate(distances)),
        Trial("|normaliser - 1|", abs(integral - 1.0), DEVIATIONS * error + INTEGRAL_ERROR),
        Trial("|entropy_gap|", abs(gap), chance + QUADRATURE_ERROR * dimensions),
    )
    saturated = float((action.float().abs() == 1.0).double().mean())
    unit = "latent" if squashed and saturated > SATURATED_SHARE else "action"
    curves = tuple(
        marginal(single, latent, dimension, squashed, unit, generator)
        for dimension in range(min(dimensions, CURVES))
    )
    return Finding(max(distances), integral, gap, trials, curves)


def audit_choices(single: Categorical, many: Categorical, action: Tensor) -> Finding:
    """The same for a choice (S,) or several (S, D): frequencies against probabilities, and sums."""
    components = [single]
    if isinstance(single, MultiCategorical):
        components = single.components()
    distances, totals, trials, curves, entropies = [], [], [], [], []
    for choices, component in zip(action.view(DRAWS, -1).unbind(-1), components, strict=True):
        probs = component.log_probs.exp()
        counts = torch.bincount(choices, minlength=len(probs)).double()
        distances.append(float((counts.cumsum(0) / DRAWS - probs.cumsum(0)).abs().max()))
        totals.append(float(probs.sum()))
        unlikely = -math.log10(max(checks.chi2_p_value(counts, probs), 1e-300))
        # By the sum over all actions: of a rare one, the draws may have none or several.
        entropies.append(float(-(probs * component.log_probs.clamp_min(-1e30)).sum()))
        trials += [
            Trial("-log10 p of the frequencies", unlikely, -math.log10(P_MIN)),
            Trial("|normaliser - 1|", abs(totals[-1] - 1.0), INTEGRAL_ERROR),
        ]
        curves.append(Curve(choices, torch.arange(len(probs)), probs, "choice"))
    each = many.log_probs.gather(-1, action.unsqueeze(-1)).view(DRAWS, -1).sum(-1)
    joint = float((many.log_prob(action) - each).abs().max())
    gap = sum(entropies) - float(single.entropy())
    trials += [
        Trial("|joint log_prob - its sum|", joint, INTEGRAL_ERROR),
        Trial("|entropy_gap|", abs(gap), INTEGRAL_ERROR * len(components)),
    ]
    farthest = max(totals, key=lambda total: abs(total - 1.0))
    return Finding(max(distances), farthest, gap, tuple(trials), tuple(curves[:CURVES]))


def marginal(
    single: Any,
    latent: Tensor,
    dimension: int,
    squashed: bool,
    unit: str,
    generator: torch.Generator,
) -> Curve:
    """The claimed density of one component, the others integrated out by importance sampling.

    They are proposed by the Gaussian that has the draws' mean and covariance, given this one, from
    the same noise everywhere. If that is how they lie, the estimate has no variance.
    """
    size = latent.shape[-1]
    order = [dimension, *(i for i in range(size) if i != dimension)]
    lower = checks.factor(latent[:, order])
    lines = max(CURVE_LINES, 2 * size)
    noise = torch.empty(lines, size - 1, dtype=latent.dtype).normal_(generator=generator)
    # With mean 0 and covariance 1, what is linear and quadratic has no error.
    centred = (noise - noise.mean(0)).T
    noise = torch.linalg.solve_triangular(checks.factor(noise), centred, upper=False).T
    proposal = (-0.5 * noise.square() - HALF_LOG_2PI - lower.diagonal()[1:].log()).sum(-1)
    ticks = torch.linspace(-5.0, 5.0, CURVE_NODES, dtype=latent.dtype)
    steps = torch.cat(
        [ticks.view(-1, 1, 1).expand(-1, lines, 1), noise.expand(CURVE_NODES, -1, -1)], -1
    )
    u = torch.empty_like(steps)
    u[..., order] = latent.mean(0)[order] + steps @ lower.T
    density = torch.exp(checks.log_density(single, u, squashed) - proposal).mean(-1)
    draws, grid = latent[:, dimension], u[:, 0, dimension]
    if unit == "action" and squashed:
        return Curve(
            torch.tanh(draws), torch.tanh(grid), density / checks.log_slope(grid).exp(), unit
        )
    return Curve(draws, grid, density, unit)
