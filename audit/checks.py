"""Is this density the distribution that the samples come from? Tests that use nothing but log_prob.

`density` is always a function of latents u (*, A) to the log-density of u, (*,) float64 in nats;
`Support` maps actions to latents. All is of ONE state.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LOG_2 = math.log(2.0)
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
NAN = math.nan
FLAT = 1e-3  # in units of the draws, a curvature that is that of no Gaussian
REACH = 9.0  # standard deviations on each side of a grid; 2e-19 lies beyond
Density = Callable[[Tensor], Tensor]


def ks_statistic(uniforms: Tensor) -> float:
    """Largest distance between the distribution of `uniforms` (S,) and the uniform one on [0, 1].

    Values outside [0, 1] count as its ends; one that is no number makes the distance 1.
    """
    if bool(uniforms.isnan().any()):
        return 1.0
    ordered = uniforms.double().clamp(0.0, 1.0).sort().values
    steps = torch.arange(len(ordered) + 1, dtype=torch.float64) / len(ordered)
    return float(torch.maximum(steps[1:] - ordered, ordered - steps[:-1]).max())


def ks_p_value(statistic: float, count: int) -> float:
    """Probability of a Kolmogorov-Smirnov distance of at least `statistic` among `count` draws.

    Kolmogorov's series at the argument (sqrt(n) + 0.12 + 0.11 / sqrt(n)) D of Stephens 1970, which
    serves from n = 5 on.
    """
    scaled = (math.sqrt(count) + 0.12 + 0.11 / math.sqrt(count)) * statistic
    if scaled < 0.3:  # 1 - 1e-5; below, the series converges slowly
        return 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2.0 * (k * scaled) ** 2) for k in range(1, 30))
    return min(1.0, max(0.0, 2.0 * sum(terms)))


def ks_bound(count: int, p_value: float) -> float:
    """The distance that `count` draws exceed with this probability, if it is small: below 0.01."""
    scaled = math.sqrt(0.5 * math.log(2.0 / p_value))  # of the series the first term alone
    return scaled / (math.sqrt(count) + 0.12 + 0.11 / math.sqrt(count))


def chi2_p_value(counts: Tensor, probs: Tensor) -> float:
    """Probability of counts (K,) at least as far from their expectation, if `probs` (K,) are right.

    Pearson's statistic; cells with less than 5 expected counts are pooled, rarest first. Where
    something of probability 0 was counted, or `probs` do not sum to 1, the answer is 0.
    """
    counts, probs = counts.double(), probs.double()
    if bool((counts[probs <= 0] > 0).any()) or not abs(float(probs.sum()) - 1.0) < 1e-4:
        return 0.0
    order = probs.argsort()
    pairs = torch.stack([counts[order], probs[order] * counts.sum()], -1)  # observed, expected
    cells = [torch.zeros_like(pairs[0])]
    for pair in pairs:
        if cells[-1][1] >= 5.0:
            cells.append(torch.zeros_like(pair))
        cells[-1] = cells[-1] + pair
    if len(cells) > 1 and cells[-1][1] < 5.0:
        cells[-2:] = [cells[-2] + cells[-1]]
    if len(cells) < 2:  # nothing that could be wrong
        return 1.0
    observed, expected = torch.stack(cells).unbind(-1)
    statistic = ((observed - expected).square() / expected).sum()
    freedom = torch.tensor(len(cells) - 1.0, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom / 2.0, statistic / 2.0))


def log_slope(latent: Tensor) -> Tensor:
    """log(d tanh(u) / du), written otherwise than the policies do it: -2 log cosh(u)."""
    return 2.0 * (LOG_2 - torch.logaddexp(latent, -latent))


@dataclass(frozen=True)
class Support:
    """Bounds of the actions, (A,) float64 each, infinite where there is none, and their latents u.

    A component between two bounds is low + (high - low) (1 + tanh u) / 2; one above a single bound
    is low + exp(u), one below it high - exp(-u); without bounds it is u itself.
    """

    low: Tensor
    high: Tensor

    def __getitem__(self, component: int) -> "Support":
        """That of one component."""
        return Support(self.low[component, None], self.high[component, None])

    @property
    def box(self) -> Tensor:
        """Which components have two bounds, (A,)."""
        return self.low.isfinite() & self.high.isfinite()

    @property
    def side(self) -> Tensor:
        """1 for components above a single bound, -1 below one, else 0, (A,)."""
        return (self.low.isfinite().double() - self.high.isfinite().double()).masked_fill(
            self.box, 0.0
        )

    @property
    def half(self) -> Tensor:
        """Half the width between two bounds, else 1, (A,)."""
        return torch.where(self.box, (self.high - self.low) / 2, 1.0)

    @property
    def size(self) -> Tensor:
        """The largest absolute value of a bound, 0 where there is none, (A,)."""
        ends = torch.stack([self.low, self.high]).nan_to_num(0, 0, 0)
        return ends.abs().amax(0)

    def action(self, latent: Tensor) -> Tensor:
        """The action of a latent, (*, A), differentiable."""
        low, high = self.low.nan_to_num(0, 0, 0), self.high.nan_to_num(0, 0, 0)
        squashed = (low + high) / 2 + self.half * torch.tanh(latent)
        one_sided = low + high + self.side * torch.exp(self.side * latent)
        return torch.where(self.box, squashed, torch.where(self.side == 0, latent, one_sided))

    def latent(self, action: Tensor) -> Tensor:
        """The latent of an action inside the bounds, (*, A)."""
        up, down = torch.log(action - self.low), -torch.log(self.high - action)
        one_sided = torch.where(self.side > 0, up, down)
        unbounded = torch.where(self.side == 0, action, one_sided)
        return torch.where(self.box, (up + down) / 2, unbounded)

    def log_slope(self, latent: Tensor) -> Tensor:
        """log |d action / d latent| of all components together, (*,)."""
        squashed = self.half.log() + log_slope(latent)
        return torch.where(self.box, squashed, self.side * latent).sum(-1)

    def reach(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Least and largest latents whose actions are inside the bounds in a float type, (A,)."""
        kind = torch.finfo(dtype)
        ends = []
        for low, high in zip(self.low.tolist(), self.high.tolist(), strict=True):
            finite = [abs(bound) for bound in (low, high) if math.isfinite(bound)]
            near = max(kind.tiny, kind.eps * max(finite, default=0.0))
            if len(finite) == 2:
                end = 0.5 * math.log((high - low) / near) - 0.5
                ends.append((-end, end))
            elif finite:
                floor, top = math.log(4 * near), 0.9 * math.log(kind.max)
                ends.append((floor, top) if math.isfinite(low) else (-top, -floor))
            else:
                ends.append((-math.inf, math.inf))
        least, largest = torch.tensor(ends, dtype=torch.float64).unbind(-1)
        return least, largest


def support_between(size: int, bound: float = math.inf) -> Support:
    """From -bound to bound in every component."""
    bounds = torch.full((size,), bound, dtype=torch.float64)
    return Support(-bounds, bounds)


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


def normaliser(
    density: Density, latent: Tensor, generator: torch.Generator
) -> tuple[float, float, float]:
    """Integral of a density, its standard error, and the largest share that one point has of it.

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
    square = noise.square().sum(-1)
    gaussian = -0.5 * square - size * HALF_LOG_2PI
    student = (
        math.lgamma((freedom + size) / 2)
        - math.lgamma(freedom / 2)
        - 0.5 * size * math.log(freedom * math.pi)
        - 0.5 * (freedom + size) * torch.log1p(square / freedom)
    )
    mixture = torch.logaddexp(gaussian + math.log(1 - share), student + math.log(share))
    u = latent.mean(0) + noise @ wider.T
    ratios = torch.exp(density(u) - mixture + wider.diagonal().log().sum())
    return (
        float(ratios.mean()),
        float(ratios.std()) / math.sqrt(count),
        float(ratios.max()) / count,
    )


class Line:
    """exp(density) in one dimension, integrated between quantiles of the draws and far beyond.

    By Gauss's rule, in panels that are halved until two estimates agree. `edges` (K + 1,) are the
    ends of the first panels and `below` (K + 1,) the integral up to each.
    """

    def __init__(self, density: Density, draws: Tensor) -> None:
        places = torch.linspace(0, len(draws) - 1, PANELS + 1).round().long()
        inner = draws.flatten().double().sort().values[places].unique()
        away = (inner[-1] - inner[0]) * 0.05 * 2.0 ** torch.arange(40)
        self.edges = torch.cat([(inner[0] - away).flip(0), inner, inner[-1] + away])
        left, right = self.edges[:-1], self.edges[1:]
        owner, mass = torch.arange(len(left)), torch.zeros_like(left)
        whole, _ = gauss(density, left, right)
        self.entropy = 0.0  # of the latent, in nats
        for turn in range(TURNS):
            middle = (left + right) / 2
            (first, first_entropy), (second, second_entropy) = (
                gauss(density, left, middle),
                gauss(density, middle, right),
            )
            wanting = ~((first + second - whole).abs() <= 1e-8) & (turn < TURNS - 1)
            mass.index_add_(0, owner[~wanting], (first + second)[~wanting])
            self.entropy += float((first_entropy + second_entropy)[~wanting].sum())
            if not bool(wanting.any()):
                break
            left, right = (
                torch.cat([left, middle])[wanting.repeat(2)],
                torch.cat([middle, right])[wanting.repeat(2)],
            )
            owner, whole = owner[wanting].repeat(2), torch.cat([first, second])[wanting.repeat(2)]
        self.below = torch.cat([mass.new_zeros(1), mass.cumsum(0)])

    @property
    def integral(self) -> float:
        return float(self.below[-1])

    def ks_statistic(self, draws: Tensor) -> float:
        """Largest distance, at the edges, of the draws' distribution from the integral's."""
        ordered = draws.flatten().double().sort().values
        drawn = torch.searchsorted(ordered, self.edges) / len(ordered)
        distance = (drawn - self.below / self.below[-1]).abs()
        return float(distance.max()) if bool(distance.isfinite().all()) else 1.0


PANELS, TURNS = 200, 12
NODES, WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(8))


def gauss(density: Density, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Integrals of p and of -p log p over each panel, (K,) float64, by eight nodes."""
    half = (right - left) / 2
    u = ((left + right) / 2).unsqueeze(-1) + half.unsqueeze(-1) * NODES
    scores = density(u.reshape(-1, 1)).reshape(u.shape)
    p = torch.exp(scores)
    surprise = torch.where(p > 0, -p * scores, torch.where(p == 0, 0.0, p))
    return (p * WEIGHTS).sum(-1) * half, (surprise * WEIGHTS).sum(-1) * half


@dataclass(frozen=True)
class Quadratic:
    """scores = offset + log N(u; mean, covariance) + residual, by least squares.

    The offset is NaN where the curvature is that of no Gaussian.
    """

    offset: float
    mean: Tensor  # (A,)
    covariance: Tensor  # (A, A)
    residual: Tensor  # (N,)


def quadratic(latent: Tensor, scores: Tensor, count: int) -> Quadratic:
    """The Gaussian that log-densities (N,) at latents (N, A) are those of, up to a constant.

    Fitted to the first `count` points; the residual is of all.
    """
    size = latent.shape[-1]
    centre, spread = latent[:count].mean(0), latent[:count].std(0)
    z = (latent - centre) / spread
    rows, columns = torch.tril_indices(size, size).unbind(0)
    terms = torch.cat([torch.ones_like(z[:, :1]), z, z[:, rows] * z[:, columns]], -1)
    found = torch.linalg.lstsq(terms[:count], scores[:count].unsqueeze(-1)).solution.squeeze(-1)
    residual = scores - terms @ found
    precision = torch.zeros(size, size, dtype=z.dtype)
    precision[rows, columns] = -found[1 + size :]
    precision = precision + precision.T
    lower, failed = torch.linalg.cholesky_ex(precision)
    flat = int(failed) or float(lower.diagonal().min()) < FLAT
    covariance = torch.full_like(lower, NAN) if flat else torch.cholesky_inverse(lower)
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


def mean_p_value(whitened: Tensor) -> float:
    """Of the mean of draws (S, A) that are N(0, I) if they are as claimed: chi-square with A."""
    statistic = len(whitened) * whitened.mean(0).square().sum()
    half = torch.tensor(whitened.shape[-1] / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(half, statistic / 2))


def bartlett(whitened: Tensor) -> float:
    """P-value of the covariance of draws (S, A) that are N(0, I) if they are as claimed.

    E^T E = T T^T with independent T_11^2 ~ chi2(S), T_21 ~ N(0, 1), T_22^2 ~ chi2(S - 1), ...
    (Bartlett's decomposition); the smallest of the two-sided p-values, times their number.
    """
    lower, failed = torch.linalg.cholesky_ex(whitened.T @ whitened)
    if int(failed) or not bool(lower.isfinite().all()):
        return 0.0
    found = []
    for i in range(len(lower)):
        half, tail = torch.tensor([(len(whitened) - i) / 2]).double(), lower[i, i].square() / 2
        above = float(torch.special.gammaincc(half, tail))
        found += [2 * min(above, 1 - above)]
        found += [normal_p_value(float(entry)) for entry in lower[i, :i]]
    return min(1.0, len(found) * min(found))


def normal_p_value(deviation: float) -> float:
    """Two-sided, of a standard normal."""
    return math.erfc(abs(deviation) / math.sqrt(2))


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
