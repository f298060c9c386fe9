"""What chance may do: probabilities of statistics of right draws."""

import math

import torch
from torch import Tensor


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


def rarity(many: Tensor, few: Tensor, least: Tensor, most: Tensor) -> float:
    """Largest -log10 of the probability of so `many` draws (N,), or so `few`, by Poisson's law.

    Their expectation is known to be between `least` and `most`, (N,).
    """
    above = torch.special.gammainc(many.double().clamp_min(1.0), most.clamp_min(0.0))
    below = torch.special.gammaincc(few + 1.0, least.clamp_min(0.0))
    found = torch.minimum(torch.where(many > 0, above, 1.0), below).nan_to_num(1.0)
    return -math.log10(max(float(found.min()), 1e-300))


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
