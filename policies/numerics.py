"""Formulas that several densities share, in forms that stay exact at saturation."""

import math

import torch
from torch import Tensor

LOG_2 = math.log(2.0)
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)

QUADRATURE_NODES, QUADRATURE_END = 65, 6.0  # 3/16 apart: exact numbers


def at_least_float32(parameter: Tensor) -> Tensor:
    """Densities are float32 even under autocast; float64 stays float64."""
    return parameter if parameter.dtype == torch.float64 else parameter.float()


def log_det_tanh(latent: Tensor) -> Tensor:
    """log(1 - tanh(u)^2) of each component u: 2 (log 2 - |u| - log(1 + exp(-2|u|))), in nats.

    `log(1 - tanh(u)**2 + 1e-6)` is the same function on paper; in float32 it is off by 4.8 nats at
    u = 10 and has no gradient beyond |u| = 9.02, where tanh rounds to 1.
    """
    magnitude = latent.abs()
    return 2.0 * (LOG_2 - magnitude - torch.log1p(torch.exp(-2.0 * magnitude)))


def gaussian_log_prob(noise: Tensor, log_scale: Tensor) -> Tensor:
    """Log-density of u = mean + exp(log_scale) * noise, per component, in nats.

    Recovering the noise as (u - mean) / std loses every digit of float32 when std is small against
    |mean|. For u = mean + L noise with a triangular L, log_scale is log L_ii.
    """
    return -0.5 * noise.square() - log_scale - HALF_LOG_2PI


def expected_log_det_tanh(mean: Tensor, std: Tensor) -> Tensor:
    """E[log(1 - tanh(u)^2)] in nats for u ~ N(mean, std^2), (*, A) each, by quadrature.

    The trapezoid rule converges exponentially on the whole line and, unlike Gauss-Hermite, spends
    no nodes on the far tails. Its error, exp(-pi^2 / (h std)) at node distance h = 3/16, is set by
    the poles of log cosh at +-i pi/2: below 1e-7 up to std 2.7, below 0.002 at std e^2.
    """
    nodes = torch.linspace(
        -QUADRATURE_END, QUADRATURE_END, QUADRATURE_NODES, dtype=mean.dtype, device=mean.device
    )
    weights = torch.softmax(-0.5 * nodes.square(), 0)
    latent = mean.unsqueeze(-1) + std.unsqueeze(-1) * nodes  # (*, A, nodes)
    return (log_det_tanh(latent) * weights).sum(-1)
