"""Gaussian with a full covariance, unsquashed: components of an action may be correlated."""

import torch
from torch import Tensor

from policies.gaussian import Gaussian
from policies.numerics import at_least_float32


class FullGaussian(Gaussian):
    """N(mean, L L^T), u = mean + L noise: scored from the noise, so that sampling solves nothing.

    Args:
        mean: (*, A).
        scale_tril: L (*, A, A), zero above its diagonal and positive on it.
    """

    def __init__(self, mean: Tensor, scale_tril: Tensor) -> None:
        self.mean = at_least_float32(mean)
        self.scale_tril = at_least_float32(scale_tril)
        self.log_scale = self.scale_tril.diagonal(dim1=-2, dim2=-1).log()

    @property
    def log_std(self) -> Tensor:
        """Log of each component's own (marginal) standard deviation, a row norm of L, (*, A)."""
        return 0.5 * self.scale_tril.square().sum(-1).log()

    def latent_of(self, noise: Tensor) -> Tensor:
        """mean + L noise, (*, A); written out, for autocast would round a matrix product."""
        return self.mean + (self.scale_tril * noise.unsqueeze(-2)).sum(-1)

    def noise_of(self, latent: Tensor) -> Tensor:
        """The noise that gives this latent, (*, A), by forward substitution."""
        offset = (latent - self.mean).unsqueeze(-1)
        return torch.linalg.solve_triangular(self.scale_tril, offset, upper=False).squeeze(-1)
