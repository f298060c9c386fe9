"""Gaussians, unsquashed: their actions are stored and scored unclipped."""

import torch
from torch import Tensor

from policies.base import Policy
from policies.numerics import HALF_LOG_2PI, at_least_float32, gaussian_log_prob


class Gaussian(Policy):
    """N(mean, diag(exp(log_std))^2); `mean` and `log_std` are (*, A).

    A subclass with another covariance has its own `mean`, `log_scale`, `log_std`, `latent_of` and
    `noise_of`; one with another map to actions its own `squash`, `unsquash`, `scores`, `terms` and
    `entropy`. All else is made of them.
    """

    action_kind = "continuous"
    mean: Tensor
    log_scale: Tensor  # (*, A), log of the diagonal of d latent / d noise

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean = at_least_float32(mean)
        self.log_scale = at_least_float32(log_std)

    @property
    def log_std(self) -> Tensor:
        """Log of each component's own (marginal) standard deviation, (*, A)."""
        return self.log_scale

    @staticmethod
    def fill(noise: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Overwrites `noise`, (*, A), by standard normal numbers."""
        return noise.normal_(generator=generator)

    def noise(self, generator: torch.Generator | None = None) -> Tensor:
        return self.fill(torch.empty_like(self.mean), generator)

    def latent_of(self, noise: Tensor) -> Tensor:
        """mean + std * noise, (*, A)."""
        return self.mean + self.log_scale.exp() * noise

    def noise_of(self, latent: Tensor) -> Tensor:
        """The noise that gives this latent, (*, A); see `gaussian_log_prob` for its error."""
        return (latent - self.mean) * torch.exp(-self.log_scale)

    def squash(self, latent: Tensor) -> Tensor:
        """The action of a latent, (*, A): itself."""
        return latent

    def unsquash(self, action: Tensor) -> Tensor:
        """The latent of an action, (*, A): itself."""
        return action

    def scores(self, noise: Tensor, latent: Tensor) -> Tensor:
        """What each component adds to the log-density of a latent and its noise, (*, A)."""
        return gaussian_log_prob(noise, self.log_scale)

    def terms(self, noise: Tensor) -> dict[str, Tensor]:
        """The scores taken apart, {name: (*, A)} in nats; for a latent, `terms(noise_of(latent))`.

        Summed over names and dimensions they are log_pi.
        """
        return {
            "gaussian": -0.5 * noise.square() - HALF_LOG_2PI,
            "scale": -self.log_scale.expand_as(noise),
        }

    def rsample_with_log_prob(self, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        noise = self.noise() if noise is None else noise
        latent = self.latent_of(noise)
        return self.squash(latent), self.scores(noise, latent).sum(-1)

    def sample(self, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with torch.no_grad():  # as a decorator it could not be compiled
            latent = self.latent_of(self.noise() if noise is None else noise)
            return self.squash(latent), latent

    def log_prob(self, action: Tensor, latent: Tensor | None = None) -> Tensor:
        """Log-density of an action (*, A), (*,); exact, given the latent that was squashed."""
        if latent is None or not self.squashed:
            latent = self.unsquash(action)
        return self.scores(self.noise_of(latent), latent).sum(-1)

    def entropy(self) -> Tensor:
        """sum_i (log_scale_i + log(2 pi e) / 2), (*,)."""
        return (self.log_scale + (0.5 + HALF_LOG_2PI)).sum(-1)

    def deterministic(self) -> Tensor:
        """The action of the mean, (*, A)."""
        return self.squash(self.mean)


class FullGaussian(Gaussian):
    """N(mean, L L^T), whose components may be correlated: u = mean + L noise.

    `mean` is (*, A), `scale_tril` L (*, A, A), zero above its diagonal and positive on it. Scored
    from the noise, so that sampling solves no equations.
    """

    correlated = True

    def __init__(self, mean: Tensor, scale_tril: Tensor) -> None:
        self.mean = at_least_float32(mean)
        self.scale_tril = at_least_float32(scale_tril)
        self.log_scale = self.scale_tril.diagonal(dim1=-2, dim2=-1).log()

    @property
    def log_std(self) -> Tensor:
        """The logs of the row norms of L, (*, A)."""
        return 0.5 * self.scale_tril.square().sum(-1).log()

    def latent_of(self, noise: Tensor) -> Tensor:
        """mean + L noise, (*, A); written out, for autocast would round a matrix product."""
        return self.mean + (self.scale_tril * noise.unsqueeze(-2)).sum(-1)

    def noise_of(self, latent: Tensor) -> Tensor:
        """The noise that gives this latent, (*, A), by forward substitution."""
        offset = (latent - self.mean).unsqueeze(-1)
        return torch.linalg.solve_triangular(self.scale_tril, offset, upper=False).squeeze(-1)
