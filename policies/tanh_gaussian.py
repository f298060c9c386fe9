"""Diagonal Gaussian squashed by tanh."""

from torch import Tensor

from policies.gaussian import Gaussian
from policies.squashed import Squashed


class TanhGaussian(Squashed):
    """Distribution of a = tanh(u), u ~ N(mean, diag(exp(log_std))^2).

    Args:
        mean, log_std: (*, A), of u.
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        super().__init__(Gaussian(mean, log_std))
