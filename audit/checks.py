"""Is this density the distribution that the samples come from? Tests that use nothing but log_prob.

`density` is always a function of latents u (*, A) to the log-density of u, (*,) float64 in nats;
`Support` maps actions to latents. All is of ONE state.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audit.chance import rarity
from audit.support import Support

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
DEVIATIONS = 6.0  # of the standard error: a probability of 2e-9
FLAT = 1e-3  # in units of the draws, a curvature that is that of no Gaussian
STEEP = 4.0  # nats between two nodes of Gauss's rule, which then misses some of what lies there
NEGLIGIBLE = 1e-6  # of the integral
LARGE = 1e30  # an error where there is no number
MOST = 2000  # steps that are halved at once
HALVINGS = 50  # at a jump they end far earlier
UNSURE = 0.5  # draws
COARSE = 0.05  # of a slope by differences of float32 values, relative
REACH = 9.0  # standard deviations on each side of a grid; 2e-19 lies beyond
Density = Callable[[Tensor], Tensor]


def factor(latent: Tensor) -> Tensor:
    """Cholesky factor of the covariance of draws (S, A), (A, A); by QR, which never fails."""
    upper: Tensor = torch.linalg.qr(latent - latent.mean(0), mode="r").R
    return (upper * upper.diagonal().sign().unsqueeze(-1)).T / math.sqrt(len(latent) - 1)


def line_pit(density: Density, latent: Tensor, dimension: int, nodes: int = 129) -> Tensor:
    """Conditional distribution function of one component at the draws, given the others, (S,).

    Along a line through each draw, parallel to axis `dimension`, the density is integrated by the
    trapezoid rule. If it is that of the draws, the values are uniform on (0, 1) for every
    `dimension`, whatever A and the correlation. A constant factor of the density cancels;
    `normaliser` sees it.

    Args:
        density: called once, with (nodes, S, A).
        latent: (S, A) the draws; S well above A, for their covariance.
        dimension: the component that varies.
        nodes: odd; the middle one is the draw, and near it they are a hundred times closer.
    """
    latent = latent.double()
    alone = torch.zeros(latent.shape[-1], 1, dtype=latent.dtype)
    alone[dimension] = 1.0
    alone = torch.linalg.solve_triangular(factor(latent), alone, upper=False)
    reach = 12.0 / alone.norm()  # standard deviations given all other components
    ticks = torch.linspace(-1.0, 1.0, nodes, dtype=torch.float64)
    u = latent.expand(nodes, *latent.shape).clone()
    u[..., dimension] += (torch.sinh(6.0 * ticks) / math.sinh(6.0) * reach).unsqueeze(-1)
    stretch = torch.log(torch.cosh(6.0 * ticks)).unsqueeze(-1)  # log(du / dtick)
    scores = density(u) + stretch
    mass = torch.exp(scores - scores.amax(0))
    return torch.trapezoid(mass[: nodes // 2 + 1], dim=0) / torch.trapezoid(mass, dim=0)


def proposed(
    density: Density, latent: Tensor, generator: torch.Generator, drawn: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points (S, A), log-densities and weights (S,), whose mean is the integral of the density.

    Last are the weights that the draws themselves have by their log-densities `drawn` (S,), where
    they are given: a part of the density that no proposal hits has such weights.

    By importance sampling: proposals are as many fresh draws, from `generator`, with the mean and
    1.3 times the standard deviations of `latent` (S, A), correlation included. A fifth of them are
    drawn from the distribution of Student with 4 degrees of freedom, the others from the Gaussian,
    and all scored by the mixture, so that tails of an exponential leave the variance finite.
    """
    latent, (count, size) = latent.double(), latent.shape
    wider, freedom, share = 1.3 * factor(latent), 4.0, 0.2
    noise = torch.empty_like(latent).normal_(generator=generator)
    others = torch.empty(count // 5, 4, dtype=latent.dtype).normal_(generator=generator)
    noise[: len(others)] /= (others.square().sum(-1, keepdim=True) / freedom).sqrt()
    share = len(others) / count

    def ratio(scores: Tensor, noise: Tensor) -> Tensor:
        """The density of points over that of their proposal."""
        square = noise.square().sum(-1)
        gaussian = -0.5 * square - size * HALF_LOG_2PI
        student = (
            math.lgamma((freedom + size) / 2)
            - math.lgamma(freedom / 2)
            - 0.5 * size * math.log(freedom * math.pi)
            - 0.5 * (freedom + size) * torch.log1p(square / freedom)
        )
        mixture = torch.logaddexp(gaussian + math.log(1 - share), student + math.log(share))
        return torch.exp(scores - mixture + wider.diagonal().log().sum())

    u = latent.mean(0) + noise @ wider.T
    scores, own = density(u), latent.new_zeros(1)
    if drawn is not None:
        whitened = torch.linalg.solve_triangular(wider, (latent - latent.mean(0)).T, upper=False).T
        own = ratio(drawn, whitened).nan_to_num(0.0)
    return u, scores, ratio(scores, noise), own


def estimate(weights: Tensor, most: float = 0.0) -> tuple[float, float]:
    """The mean of weights (S,), and what chance may do to it, also where few have most of it."""
    chance = DEVIATIONS * float(weights.std()) / math.sqrt(len(weights))
    return float(weights.mean()), chance + max(most, float(weights.abs().max())) / len(weights)


def unlikely(scores: Tensor, own: Tensor, others: Tensor, weights: Tensor) -> float:
    """`rarity` of many draws where a density is low, against its integral there.

    Args:
        scores: (S,) log-densities of the draws, and `own` their weights.
        others: (S,) those of the points that `proposed` returns, with `weights`.
    """
    ordered, order = scores.sort()
    ranks = 2 ** torch.arange(int(math.log2(len(scores))))
    most, found = own[order].cummax(0).values, []
    for rank in ranks.tolist():
        below = torch.where(others <= ordered[rank - 1], weights, 0.0)
        mass, chance = estimate(below, float(most[rank - 1]))
        found.append((mass + chance) * len(scores) / max(float(weights.mean()), 1e-300))
    most_of = torch.tensor(found, dtype=torch.float64)
    return rarity(ranks, ranks, torch.zeros_like(most_of), most_of)


def planes(
    latent: Tensor, points: Tensor, weights: Tensor, most: float, generator: torch.Generator
) -> tuple[float, float]:
    """(Difference, bound) of the integral beyond a plane from the draws' share of the whole.

    Where it is worst of the quartiles along each axis and along as many other directions.
    """
    lower, size = factor(latent), latent.shape[-1]
    others = torch.empty(size, size, dtype=latent.dtype).normal_(generator=generator)
    axes = torch.cat([torch.eye(size, dtype=latent.dtype), torch.linalg.qr(others).Q])
    axes = torch.linalg.solve_triangular(lower.T, axes.T, upper=True)  # (A, 2 A), whitened
    drawn, along, found = latent @ axes, points @ axes, []
    sampling = float(weights.mean()) * DEVIATIONS * 0.5 / math.sqrt(len(latent))
    for share in (0.25, 0.5, 0.75):
        beyond = (along > drawn.quantile(share, 0)).double()
        for column in beyond.T:
            mass, chance = estimate(weights * (column - (1.0 - share)), most)
            found.append((abs(mass), chance + sampling))
    return max(found, key=lambda one: one[0] - one[1])


def line_integral(
    density: Density, draws: Tensor, panels: int = 400
) -> tuple[float, float, float, float]:
    """Integral of a density p in one dimension, that of p log p, two distances of draws (S, 1).

    By Gauss's rule, between so many quantiles of the draws and in ever wider steps beyond; steps in
    which it is steep, or which their halves contradict, are halved. The distances are, at the ends
    of the steps and from the density made 1 in total, that of Kolmogorov and Smirnov, and `rarity`
    of the draws beyond.
    """
    ordered = draws.flatten().double().sort().values
    last = len(ordered) - 1
    ranks = 2 ** torch.arange(int(math.log2(last)))  # the outermost draws may be far apart
    even = torch.linspace(0, last, panels + 1).round().long()
    inner = ordered[torch.cat([even, ranks, last - ranks])].unique()
    away = (inner[-1] - inner[0]) * 0.05 * 2.0 ** torch.arange(40, dtype=torch.float64)
    edges = torch.cat([(inner[0] - away).flip(0), inner, inner[-1] + away])
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(16))
    nodes = torch.nn.functional.pad(nodes, (1, 1))
    nodes[0], nodes[-1] = -1.0, 1.0  # the ends show what lies between them and the others

    def integrals(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Of p and p log p over steps, (P, 2), and in which of these p is steep, (P,)."""
        half = (right - left) / 2
        scores = density((left + half + half * nodes.unsqueeze(-1)).T.unsqueeze(-1))
        values = torch.exp(scores[:, 1:-1])
        values = torch.stack([values, torch.special.xlogy(values, values)], -1)
        steep = (scores.diff().abs() > STEEP).any(-1)
        steep &= scores.amax(-1).exp() * half > NEGLIGIBLE
        return (values * weights.unsqueeze(-1)).sum(1) * half.unsqueeze(-1), steep

    left, right, found = edges[:-1], edges[1:], []
    held, steep = integrals(left, right)
    for _ in range(HALVINGS):
        middle = (left + right) / 2
        (one, of_one), (two, of_two) = integrals(left, middle), integrals(middle, right)
        open_ = steep | ((one + two - held)[:, 0].abs() > NEGLIGIBLE)
        open_ &= bool(open_.sum() < MOST)  # a function that is rough everywhere stays so
        found.append(torch.cat([right.unsqueeze(-1), one + two], -1)[~open_])
        if not bool(open_.any()):
            break
        left, right = torch.cat([left, middle]), torch.cat([middle, right])
        held, steep = torch.cat([one, two]), torch.cat([of_one, of_two])
        again = open_.repeat(2)
        left, right, held, steep = left[again], right[again], held[again], steep[again]
    steps = torch.cat(found)
    right, held, of_log = steps[steps[:, 0].argsort()].T.contiguous()
    below, drawn = held.cumsum(0), torch.searchsorted(ordered, right)
    distance = float((drawn / len(ordered) - below / below[-1]).abs().nan_to_num(1.0).max())
    above = held.flip(0).cumsum(0).flip(0) - held
    reached = torch.searchsorted(ordered, right, right=True)  # with the draws at the end itself
    expected = torch.cat([below, above]) * len(ordered) / below[-1]
    rare = rarity(
        torch.cat([drawn, len(ordered) - reached]),
        torch.cat([reached, len(ordered) - drawn]),
        expected - UNSURE,
        expected + UNSURE,
    )
    return float(below[-1]), float(of_log.sum()), distance, rare


@dataclass(frozen=True)
class Quadratic:
    """scores = offset + log N(u; mean, covariance) + residual, by least squares.

    The offset is NaN where the curvature is that of no Gaussian.
    """

    offset: float
    mean: Tensor  # (A,)
    covariance: Tensor  # (A, A)
    residual: Tensor  # (N,)


def quadratic_terms(z: Tensor) -> Tensor:
    """1, z_i and z_i z_j for i >= j of points (N, A), (N, 1 + A + A (A + 1) / 2)."""
    rows, columns = torch.tril_indices(z.shape[1], z.shape[1])
    return torch.cat([torch.ones_like(z[:, :1]), z, z[:, rows] * z[:, columns]], -1)


def quadratic(latent: Tensor, scores: Tensor, count: int) -> Quadratic:
    """The Gaussian that log-densities (N,) at latents (N, A) are those of, up to a constant.

    Fitted to the first `count` points; the residual is of all.
    """
    size = latent.shape[-1]
    centre, spread = latent[:count].mean(0), latent[:count].std(0)
    z = (latent - centre) / spread
    rows, columns = torch.tril_indices(size, size)
    terms = quadratic_terms(z)
    found = torch.linalg.lstsq(terms[:count], scores[:count].unsqueeze(-1)).solution.squeeze(-1)
    residual = scores - terms @ found
    precision = torch.zeros(size, size, dtype=z.dtype)
    precision[rows, columns] = -found[1 + size :]
    precision = precision + precision.T
    lower, failed = torch.linalg.cholesky_ex(precision)
    flat = int(failed) or float(lower.diagonal().min()) < FLAT
    covariance = torch.full_like(lower, math.nan) if flat else torch.cholesky_inverse(lower)
    mean = covariance @ found[1 : 1 + size]
    log_det = -2.0 * lower.diagonal().log().sum() + 2.0 * spread.log().sum()
    peak = found[0] + 0.5 * mean @ precision @ mean
    offset = peak + size * HALF_LOG_2PI + 0.5 * log_det + 0.0 * covariance.sum()
    return Quadratic(
        float(offset),
        centre + spread * mean,
        spread.unsqueeze(-1) * covariance * spread,
        residual,
    )


def slope_error(
    function: Density,
    points: Tensor,
    spread: Tensor | None = None,
    fine: bool = True,
    exempt: float = 0.1,
    axes: Sequence[int] | None = None,
) -> float | None:
    """Largest difference of a function's gradient from the slope of its values, relative.

    Along `axes`, by default all; at points (N, A), but for a share `exempt` of them, where it may
    have a kink. None where it has no gradient. Differences are taken over steps in units of
    `spread` (A,), by default the points' own, or of where the function changes by 1 if that is
    nearer. If not `fine`, or the value is float32, steps are wider, and what rounding to float32
    does to the slope is allowed for.
    """
    leaf = points.double().clone().requires_grad_()
    try:
        value = function(leaf)
    except ValueError:  # it leaves torch, and takes no tensor that has a gradient
        return None
    if not value.requires_grad:
        return None
    (found,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
    if found is None:  # the gradient is that of parameters alone
        return None
    fine = fine and value.dtype == torch.float64
    steps, lost = ((1e-4, 1e-3), 0.0) if fine else ((3e-2, 1e-1), COARSE)
    worst = 0.0
    if spread is None:
        spread = points.quantile(0.75, 0) - points.quantile(0.25, 0)
    for axis in range(len(spread)) if axes is None else axes:
        if not float(spread[axis]):
            continue
        own = found[:, axis]
        width, slopes = torch.fmin(spread[axis], 1 / own.abs()), []
        for part in steps:
            step = torch.zeros_like(points)
            step[:, axis] = part * width
            after, before = (function(leaf.detach() + sign * step).detach() for sign in (1, -1))
            slopes.append((after - before) / (2 * part * width))
        rounding = (slopes[1] - slopes[0]).abs()  # and curvature
        error = (own - slopes[0]).abs() - 2 * rounding
        error = error / (1 / spread[axis] + slopes[0].abs()) - lost
        worst = max(worst, float(error.nan_to_num(LARGE, LARGE).quantile(1.0 - exempt)))
    return worst


class Grid:
    """A density on a regular grid of u = mean + L t, and what it integrates to; one or two
    components. Nothing is renormalised.
    """

    def __init__(self, density: Density, support: Support, mean: Tensor, tril: Tensor) -> None:
        self.mean, self.scale, size = mean.double(), float(tril[0, 0]), len(mean)
        coarsest = 0.02 if size == 1 else 0.1  # the sum converges far earlier than `pit`
        largest = float(tril.abs().max())
        self.step = min(coarsest, 0.06 / largest) if bool(support.box.any()) else coarsest
        half = math.ceil(REACH / self.step)
        ticks = self.step * torch.arange(-half, half + 1, dtype=torch.float64)
        whitened = torch.stack(torch.meshgrid(*[ticks] * size, indexing="ij"), -1)  # (n, .., A)
        latent = self.mean + whitened @ tril.double().T
        scores = density(latent)
        mass = scores.exp() * (tril.double().diagonal() * self.step).prod()
        self.first, self.integral = float(ticks[0]), float(mass.sum())
        self.entropy = float((mass * (support.log_slope(latent) - scores)).sum())  # of the action
        marginal = mass.flatten(1).sum(1) if size > 1 else mass
        self.below = marginal.cumsum(0) - marginal / 2  # of the first component, at its nodes

    def pit(self, latent: Tensor) -> Tensor:
        """P(first component <= that of each draw) by the density's own integral, (S,).

        By the trapezoid rule, and linear between nodes: off by 2e-5 in one dimension, 5e-4 in two.
        """
        place = ((latent[:, 0].double() - self.mean[0]) / self.scale - self.first) / self.step
        place = place.clamp(0, len(self.below) - 1 - 1e-9)
        left = place.long()
        return torch.lerp(self.below[left], self.below[left + 1], place - left)
