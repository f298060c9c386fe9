"""Diagonal Gaussian, unsquashed: its actions are stored and scored unclipped."""

import torch
from torch import Tensor

from policies.numerics import HALF_LOG_2PI, at_least_float32, gaussian_log_prob


class Gaussian:
    """N(mean, diag(exp(log_std))^2).

    Args:
        mean, log_std: (*, A).
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean = at_least_float32(mean)
        self.log_std = at_least_float32(log_std)

    def noise(self, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal, (*, A)."""
        return torch.empty_like(self.mean).normal_(generator=generator)

    def rsample_with_log_prob(self, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """action = mean + std * noise (*, A), and its log_pi (*,)."""
        noise = self.noise() if noise is None else noise
        action = self.mean + self.log_std.exp() * noise
        return action, gaussian_log_prob(noise, self.log_std).sum(-1)

    @torch.no_grad()
    def sample(self, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(action, action), (*, A): nothing is squashed."""
        noise = self.noise() if noise is None else noise
        action = self.mean + self.log_std.exp() * noise
        return action, action

    def log_prob(self, action: Tensor, latent: Tensor | None = None) -> Tensor:
        """Log-density of a given action, (*,); `latent` is ignored, for it is the action."""
        noise = (action - self.mean) * torch.exp(-self.log_std)
        return gaussian_log_prob(noise, self.log_std).sum(-1)

    def entropy(self) -> Tensor:
        """sum_i (log_std_i + log(2 pi e) / 2), (*,)."""
        return (self.log_std + (0.5 + HALF_LOG_2PI)).sum(-1)

    def deterministic(self) -> Tensor:
        """The mean, (*, A)."""
        return self.mean
