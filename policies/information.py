"""Divergence of two policies, and the largest entropy of a squashed one, in nats."""

from typing import Any

import torch
from torch import Tensor

from policies.base import Policy
from policies.categorical import Categorical, MultiCategorical
from policies.full_gaussian import FullGaussian, TanhFullGaussian
from policies.gaussian import HALF_LOG_2PI, Gaussian, TanhGaussian, expected_log_det_tanh

GAUSSIANS = Gaussian, TanhGaussian, FullGaussian, TanhFullGaussian  # a subclass may differ


def kl_divergence(p: Policy, q: Policy) -> Tensor:
    """KL(p || q) = E[log p - log q] under p, (*,) nats, exact.

    For squashed policies it is that of the distributions before squashing: a bijection leaves it
    unchanged.

    Raises:
        TypeError: they are of different classes, or of one that has no formula here.
    """
    if type(p) is not type(q):
        raise TypeError(f"kl_divergence: {p} and {q} are of two classes; give two of one class")
    if type(p) in GAUSSIANS:
        return of_gaussians(p, q)
    if not isinstance(p, Categorical) or not isinstance(q, Categorical):
        raise TypeError(f"kl_divergence: {p} has no formula; average log p - log q of draws of p")
    found = p.expectation(p.log_probs - q.log_probs)  # 0 where p_k = 0; infinite where only q_k = 0
    return found.sum(-1) if isinstance(p, MultiCategorical) else found


def of_gaussians(p: Any, q: Any) -> Tensor:
    """sum_i [r_i^2 - 1 - 2 log r_i + d_i^2] / 2, (*,).

    r is the std of p over that of q, d the noise with which q draws the mean of p, (*, A) each.
    With full covariances, half the squares below the diagonal of L_q^-1 L_p are added.
    """
    log_ratio = p.log_scale - q.log_scale
    spread = torch.expm1(2.0 * log_ratio) - 2.0 * log_ratio
    found = 0.5 * (spread + q.noise_of(p.mean).square()).sum(-1)
    if isinstance(p, FullGaussian):
        whitened = torch.linalg.solve_triangular(q.scale_tril, p.scale_tril, upper=False)
        found = found + 0.5 * whitened.tril(-1).square().sum((-2, -1))
    return found


def largest_entropy(log_std_min: float, log_std_max: float) -> float:
    """Largest entropy of one squashed component with a log_std in this range, in nats.

    It belongs to mean 0, and is 0.6836 where the range contains log 0.874. Correlations lower it.
    """
    log_std = torch.linspace(log_std_min, log_std_max, 4001, dtype=torch.float64)
    log_det = expected_log_det_tanh(torch.zeros_like(log_std), log_std.exp())
    return float((log_std + 0.5 + HALF_LOG_2PI + log_det).max())
