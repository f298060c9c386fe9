"""Gaussian with a full covariance, squashed by tanh."""

from torch import Tensor

from policies.full_gaussian import FullGaussian
from policies.squashed import Squashed


class TanhFullGaussian(Squashed):
    """Distribution of a = tanh(u), u ~ N(mean, L L^T).

    Args:
        mean: (*, A), of u.
        scale_tril: L (*, A, A), zero above its diagonal and positive on it.
    """

    def __init__(self, mean: Tensor, scale_tril: Tensor) -> None:
        super().__init__(FullGaussian(mean, scale_tril))
