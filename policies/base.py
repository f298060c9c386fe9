"""The interface of policies: stateless objects made from the outputs of an actor."""

from inspect import signature
from typing import ClassVar

import torch
from torch import Tensor


class Policy:
    """A distribution over actions; `*` are its leading dimensions, log-probabilities (*,) in nats.

    Actions of bounded continuous spaces are in [-1, 1]. A draw is a function of `noise`, by default
    from torch's global generator.
    """

    action_kind: ClassVar[str]  # "discrete", "multi_discrete" or "continuous", see `Spec.kind`
    squashed: ClassVar[bool] = False  # action = tanh(latent); otherwise they are equal
    correlated: ClassVar[bool] = False  # parameters: mean and a factor of the covariance

    def __init__(self, *parameters: Tensor) -> None:
        raise NotImplementedError

    @staticmethod
    def fill(noise: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Fills `noise` with a new draw, which `sample` maps to an action."""
        raise NotImplementedError

    def noise(self, generator: torch.Generator | None = None) -> Tensor:
        """A new draw of noise."""
        raise NotImplementedError

    def sample(self, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(action, latent), without gradient; the latent is the action before squashing."""
        raise NotImplementedError

    def rsample_with_log_prob(self, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(action, log_pi (*,)), differentiable in the parameters, log_pi scored from the noise.

        For continuous policies only; SAC and audits use it.
        """
        raise NotImplementedError

    def log_prob(self, action: Tensor, latent: Tensor | None = None) -> Tensor:
        """Log-density (continuous) or log-probability (discrete) of a given action, (*,)."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """Entropy of the distribution of actions, (*,), without sampling."""
        raise NotImplementedError

    def deterministic(self) -> Tensor:
        """The action without exploration."""
        raise NotImplementedError

    def __repr__(self) -> str:
        shapes = (f"{k}: {tuple(getattr(self, k).shape)}" for k in signature(type(self)).parameters)
        return f"{type(self).__name__}({', '.join(shapes)})"


def at_least_float32(parameter: Tensor) -> Tensor:
    """The parameter in float32, also under autocast; float64 stays float64."""
    return parameter if parameter.dtype == torch.float64 else parameter.float()
