"""A Gaussian squashed into (-1, 1) by tanh, with the change of variables done exactly."""

import torch
from torch import Tensor

from policies.gaussian import Gaussian
from policies.numerics import (
    HALF_LOG_2PI,
    expected_log_det_tanh,
    gaussian_log_prob,
    log_det_tanh,
)


class Squashed:
    """Distribution of a = tanh(u), u ~ base.

    log pi(a) = log base(u) - sum_i log(1 - tanh(u_i)^2)
    (Haarnoja et al. 2018, arXiv 1812.05905, eq. 26).

    Args:
        base: distribution of u, of which it needs noise, latents, marginals and entropy.
    """

    def __init__(self, base: Gaussian) -> None:
        self.base = base

    @property
    def mean(self) -> Tensor:
        """Mean of u, (*, A)."""
        return self.base.mean

    @property
    def log_std(self) -> Tensor:
        """Log of the standard deviation of each component of u, (*, A)."""
        return self.base.log_std

    fill = staticmethod(Gaussian.fill)

    def noise(self, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal, (*, A)."""
        return self.base.noise(generator)

    def noise_of(self, latent: Tensor) -> Tensor:
        """The noise that gives this latent, (*, A)."""
        return self.base.noise_of(latent)

    def terms(self, noise: Tensor) -> dict[str, Tensor]:
        """Those of the base, and the squashing's `jacobian`."""
        return self.base.terms(noise) | {"jacobian": -log_det_tanh(self.base.latent_of(noise))}

    def rsample_with_log_prob(self, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """action = tanh(latent_of(noise)) (*, A), and its log_pi (*,), exact at saturation."""
        noise = self.noise() if noise is None else noise
        latent = self.base.latent_of(noise)
        return torch.tanh(latent), self._score(noise, latent)

    def sample(self, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(action, latent), (*, A) each, action = tanh(latent)."""
        with torch.no_grad():
            latent = self.base.latent_of(self.noise() if noise is None else noise)
            return torch.tanh(latent), latent

    def log_prob(self, action: Tensor, latent: Tensor | None = None) -> Tensor:
        """Log-density of a given action, (*,).

        Args:
            action: (*, A) in [-1, 1].
            latent: (*, A) the u that was squashed. Without it u is recovered as atanh(action), with
                the action clamped inside (-1, 1): lossy beyond |u| = 7, never used in training.
        """
        if latent is None:
            edge = 1.0 - torch.finfo(self.mean.dtype).eps
            latent = torch.atanh(action.to(self.mean.dtype).clamp(-edge, edge))
        return self._score(self.noise_of(latent), latent)

    def _score(self, noise: Tensor, latent: Tensor) -> Tensor:
        return (gaussian_log_prob(noise, self.base.log_scale) - log_det_tanh(latent)).sum(-1)

    def entropy(self) -> Tensor:
        """Entropy of the squashed action, (*,): the base's plus E[log det], by quadrature.

        The Jacobian is diagonal, so that marginals suffice, whatever the correlations. At most
        0.6836 nat per dimension (mean 0, std 0.874); it falls again for a larger std.
        """
        log_det = expected_log_det_tanh(self.mean, self.log_std.exp())
        return self.base.entropy() + log_det.sum(-1)

    def deterministic(self) -> Tensor:
        """tanh(mean), (*, A): the median of each component, not the mode."""
        return torch.tanh(self.mean)


def largest_entropy(log_std_min: float, log_std_max: float) -> float:
    """The most entropy that one squashed component reaches with a log_std in this range, in nats.

    It is reached with mean 0: 0.6836 where the range holds log 0.874. Correlations only lower it.
    """
    log_std = torch.linspace(log_std_min, log_std_max, 4001, dtype=torch.float64)
    log_det = expected_log_det_tanh(torch.zeros_like(log_std), log_std.exp())
    return float((log_std + 0.5 + HALF_LOG_2PI + log_det).max())
