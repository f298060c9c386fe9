"""Gaussians with full covariance, plain and squashed."""

import torch
from torch import Tensor

from policies.base import at_least_float32
from policies.gaussian import Gaussian, TanhGaussian


class FullGaussian(Gaussian):
    """N(mean, L L^T), whose components may be correlated: u = mean + L noise.

    `mean` is (*, A), `scale_tril` L (*, A, A), zero above the diagonal and positive on it. A draw
    is scored from its noise, without solving a linear system.
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
        """mean + L noise, (*, A), as a sum: autocast would round a matrix product."""
        return self.mean + (self.scale_tril * noise.unsqueeze(-2)).sum(-1)

    def noise_of(self, latent: Tensor) -> Tensor:
        """The noise that gives this latent, (*, A), by forward substitution."""
        offset = (latent - self.mean).unsqueeze(-1)
        return torch.linalg.solve_triangular(self.scale_tril, offset, upper=False).squeeze(-1)


class TanhFullGaussian(TanhGaussian, FullGaussian):
    """Distribution of a = tanh(u), u ~ N(mean, L L^T), made from `mean` and `scale_tril` of u."""
