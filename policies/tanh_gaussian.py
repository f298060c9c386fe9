"""Gaussians squashed into (-1, 1) by tanh, with the change of variables done exactly."""

import torch
from torch import Tensor

from policies.gaussian import FullGaussian, Gaussian
from policies.numerics import HALF_LOG_2PI, expected_log_det_tanh, log_det_tanh


class TanhGaussian(Gaussian):
    """Distribution of a = tanh(u), u ~ N(mean, diag(exp(log_std))^2).

    log pi(a) = log N(u) - sum_i log(1 - tanh(u_i)^2)
    (Haarnoja et al. 2018, arXiv 1812.05905, eq. 26).

    `mean`, `log_std`, noise and latents are those of u, (*, A) each. `deterministic` is tanh(mean):
    the median of each component, not the mode.
    """

    squashed = True

    def squash(self, latent: Tensor) -> Tensor:
        """tanh(u), (*, A)."""
        return torch.tanh(latent)

    def unsquash(self, action: Tensor) -> Tensor:
        """atanh(action), (*, A), clamped inside (-1, 1): lossy beyond |u| = 7, not for training."""
        edge = 1.0 - torch.finfo(self.mean.dtype).eps
        return torch.atanh(action.to(self.mean.dtype).clamp(-edge, edge))

    def scores(self, noise: Tensor, latent: Tensor) -> Tensor:
        """The Gaussian's, and the correction for the squashing, exact at saturation, (*, A)."""
        return super().scores(noise, latent) - log_det_tanh(latent)

    def terms(self, noise: Tensor) -> dict[str, Tensor]:
        """Those of the Gaussian, and the squashing's `jacobian`."""
        return super().terms(noise) | {"jacobian": -log_det_tanh(self.latent_of(noise))}

    def entropy(self) -> Tensor:
        """Entropy of the squashed action, (*,): the Gaussian's plus E[log det], by quadrature.

        The Jacobian is diagonal, so that marginals suffice, whatever the correlations. At most
        0.6836 nat per dimension (mean 0, std 0.874); it falls again for a larger std.
        """
        log_det = expected_log_det_tanh(self.mean, self.log_std.exp())
        return super().entropy() + log_det.sum(-1)


class TanhFullGaussian(TanhGaussian, FullGaussian):
    """Distribution of a = tanh(u), u ~ N(mean, L L^T), made from `mean` and `scale_tril` of u."""


def largest_entropy(log_std_min: float, log_std_max: float) -> float:
    """The most entropy that one squashed component reaches with a log_std in this range, in nats.

    It is reached with mean 0: 0.6836 where the range holds log 0.874. Correlations only lower it.
    """
    log_std = torch.linspace(log_std_min, log_std_max, 4001, dtype=torch.float64)
    log_det = expected_log_det_tanh(torch.zeros_like(log_std), log_std.exp())
    return float((log_std + 0.5 + HALF_LOG_2PI + log_det).max())
