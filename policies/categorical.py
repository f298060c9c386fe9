"""Policies over one discrete choice, or several at once."""

import torch
from torch import Tensor

from policies.base import Policy, at_least_float32


class Categorical(Policy):
    """Categorical distribution over K actions: `log_probs` (*, K), as of `log_softmax`.

    An action with -inf is forbidden: never drawn, no part of any sum, without a gradient.
    """

    action_kind = "discrete"

    def __init__(self, log_probs: Tensor) -> None:
        self.log_probs = at_least_float32(log_probs)

    @staticmethod
    def fill(noise: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Fills `noise`, (*, K), with independent draws of the exponential distribution."""
        return noise.exponential_(generator=generator)

    def noise(self, generator: torch.Generator | None = None) -> Tensor:
        return self.fill(torch.empty_like(self.log_probs), generator)

    def sample(self, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(action, action), (*,) int64: argmax_k p_k / noise_k, which is k with probability p_k.

        -log noise_k is Gumbel noise (Maddison et al. 2014, arXiv 1411.0030, section 2).
        """
        with torch.no_grad():
            exponential_noise = self.noise() if noise is None else noise
            action = (self.log_probs - exponential_noise.log()).argmax(-1)
            return action, action

    def log_prob(self, action: Tensor, latent: Tensor | None = None) -> Tensor:
        """Log-probability of `action` (*,) int64; `latent` is not used."""
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """-sum_k p_k log p_k, (*,), with 0 log 0 = 0."""
        probs = self.log_probs.exp()
        return -(probs * self.log_probs.clamp_min(torch.finfo(probs.dtype).min)).sum(-1)

    def expectation(self, values: Tensor) -> Tensor:
        """sum_k p_k values_k, (*,), of values (*, K), which may be infinite where p_k = 0."""
        probs = self.log_probs.exp()
        return (probs * torch.where(probs > 0, values, 0.0)).sum(-1)

    def deterministic(self) -> Tensor:
        """The most probable action, (*,) int64."""
        return self.log_probs.argmax(-1)

    @property
    def mode(self) -> Tensor:
        return self.deterministic()

    @property
    def logits(self) -> Tensor:
        """Normalised logits, as in torch.distributions, (*, K)."""
        return self.log_probs

    @property
    def probs(self) -> Tensor:
        """Probabilities, (*, K)."""
        return self.log_probs.exp()


class MultiCategorical(Categorical):
    """Independent choices, one for each of D components: `log_probs` (*, D, K), actions (*, D).

    The row of a component with fewer than K actions ends in -inf.
    """

    action_kind = "multi_discrete"

    def log_prob(self, action: Tensor, latent: Tensor | None = None) -> Tensor:
        """Log-probability of all components of `action` (*, D) together, (*,)."""
        return super().log_prob(action).sum(-1)

    def entropy(self) -> Tensor:
        """The sum of the components' entropies, (*,)."""
        return super().entropy().sum(-1)
