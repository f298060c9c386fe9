"""Is this density the distribution that the samples come from? Tests that use nothing but log_prob.

All take draws of a policy for ONE state, that is with parameters (A,), or (A,) expanded to (S, A).
Everything is computed in float64: give the policy float64 parameters.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from policies.gaussian import HALF_LOG_2PI, LOG_2


class Scored(Protocol):
    """The part of a policy that these tests use."""

    def log_prob(self, action: Tensor, latent: Tensor | None = None) -> Tensor: ...


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


def log_density(policy: Scored, latent: Tensor, squashed: bool) -> Tensor:
    """Log-density that `log_prob` implies for latents (*, A), (*,) float64 in nats."""
    score = policy.log_prob(torch.tanh(latent) if squashed else latent, latent).double()
    return score + log_slope(latent).sum(-1) if squashed else score


def factor(latent: Tensor) -> Tensor:
    """Cholesky factor of the covariance of draws (S, A), (A, A); by QR, which never fails."""
    upper: Tensor = torch.linalg.qr(latent - latent.mean(0), mode="r").R
    return (upper * upper.diagonal().sign().unsqueeze(-1)).T / math.sqrt(len(latent) - 1)


def line_pit(
    policy: Scored, latent: Tensor, dimension: int, nodes: int = 129, *, squashed: bool
) -> Tensor:
    """Conditional distribution function of one component at the draws, given the others, (S,).

    Along a line through each draw, parallel to axis `dimension`, exp(log_prob) is integrated by the
    trapezoid rule, da = (da/du) du. If the density is that of the draws, the values are uniform on
    (0, 1) for every `dimension`, whatever A and the correlation. A constant factor of the density
    cancels; `normaliser` sees it.

    Args:
        policy: its log_prob is called once, with (nodes, S, A).
        latent: (S, A) the draws before squashing; S well above A, for their covariance.
        dimension: the component that varies.
        nodes: odd; the middle one is the draw, and near it they are a hundred times closer.
        squashed: whether action = tanh(latent); if not they are equal.
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
    scores = log_density(policy, u, squashed) + stretch
    mass = torch.exp(scores - scores.amax(0))
    return torch.trapezoid(mass[: nodes // 2 + 1], dim=0) / torch.trapezoid(mass, dim=0)


def normaliser(
    policy: Scored, latent: Tensor, generator: torch.Generator, *, squashed: bool
) -> tuple[float, float]:
    """Integral of exp(log_prob) over all actions, and its standard error: 1 if it is a density.

    By importance sampling: proposals are as many fresh draws, from `generator`, of the Gaussian
    with the mean and 1.3 times the standard deviations of `latent` (S, A), correlation included.
    """
    latent = latent.double()
    wider = 1.3 * factor(latent)
    noise = torch.empty_like(latent).normal_(generator=generator)
    u = latent.mean(0) + noise @ wider.T
    proposal = -0.5 * noise.square() - HALF_LOG_2PI - wider.diagonal().log()
    ratios = torch.exp(log_density(policy, u, squashed) - proposal.sum(-1))
    return float(ratios.mean()), float(ratios.std()) / math.sqrt(len(ratios))
