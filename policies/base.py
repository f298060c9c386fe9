"""What every policy is: a stateless value made from the actor's parameters."""

from typing import Protocol

import torch
from torch import Tensor


class Policy(Protocol):
    """A distribution over actions; `*` are its leading dimensions, log-probabilities (*,) in nats.

    Actions of bounded continuous spaces live in [-1, 1]. `noise` is what makes a draw reproducible:
    agents always pass their own; left out, it comes from torch's default generator (for notebooks).
    """

    @staticmethod
    def fill(noise: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Overwrites `noise` by a fresh draw of whatever `sample` turns into an action."""

    def noise(self, generator: torch.Generator | None = None) -> Tensor:
        """A fresh draw in a tensor of its own."""

    def sample(self, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(action, latent), without gradient; latent is the draw before squashing."""

    def log_prob(self, action: Tensor, latent: Tensor | None = None) -> Tensor:
        """Log-density (continuous) or log-probability (discrete) of a given action, (*,)."""

    def entropy(self) -> Tensor:
        """Entropy of the distribution of actions, (*,), without sampling."""

    def deterministic(self) -> Tensor:
        """The action to take when nothing is to be explored."""


class Reparameterised(Policy, Protocol):
    """A policy whose sample is a differentiable function of its parameters and the noise."""

    @property
    def log_std(self) -> Tensor:
        """Log of the standard deviation of each component before squashing, (*, A)."""

    def rsample_with_log_prob(self, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(action (*, A), log_pi (*,)): both differentiable; log_pi is scored from the noise."""

    def noise_of(self, latent: Tensor) -> Tensor:
        """The noise that gives this latent, (*, A)."""

    def terms(self, noise: Tensor) -> dict[str, Tensor]:
        """log_pi by origin and dimension, {name: (*, A)} in nats; all of them sum to log_pi."""
