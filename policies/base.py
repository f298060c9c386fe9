"""The interface of policies: stateless values made from the actor's parameters."""

from inspect import signature
from typing import ClassVar

import torch
from torch import Tensor


class Policy:
    """A distribution over actions; `*` are its leading dimensions, log-probabilities (*,) in nats.

    Actions of bounded continuous spaces live in [-1, 1]. `noise` makes a draw reproducible; left
    out, it comes from torch's default generator.
    """

    action_kind: ClassVar[str]  # "discrete", "multi_discrete" or "continuous", see `Spec.kind`
    squashed: ClassVar[bool] = False  # action = tanh(latent); otherwise they are equal
    correlated: ClassVar[bool] = False  # made from a factor of the covariance, not from log_std

    def __init__(self, *parameters: Tensor) -> None:
        raise NotImplementedError

    @staticmethod
    def fill(noise: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Overwrites `noise` by a fresh draw, which `sample` turns into an action."""
        raise NotImplementedError

    def noise(self, generator: torch.Generator | None = None) -> Tensor:
        """A fresh draw in a tensor of its own."""
        raise NotImplementedError

    def sample(self, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(action, latent), without gradient; latent is the draw before squashing."""
        raise NotImplementedError

    def rsample_with_log_prob(self, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(action, log_pi (*,)), differentiable in the parameters, log_pi scored from the noise.

        SAC and audits need it; only continuous policies have it.
        """
        raise NotImplementedError

    def log_prob(self, action: Tensor, latent: Tensor | None = None) -> Tensor:
        """Log-density (continuous) or log-probability (discrete) of a given action, (*,)."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """Entropy of the distribution of actions, (*,), without sampling."""
        raise NotImplementedError

    def deterministic(self) -> Tensor:
        """The action to take when nothing is to be explored."""
        raise NotImplementedError

    def __repr__(self) -> str:
        shapes = (f"{k}: {tuple(getattr(self, k).shape)}" for k in signature(type(self)).parameters)
        return f"{type(self).__name__}({', '.join(shapes)})"


def at_least_float32(parameter: Tensor) -> Tensor:
    """Densities are float32 even under autocast; float64 stays float64."""
    return parameter if parameter.dtype == torch.float64 else parameter.float()
