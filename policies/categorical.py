"""One choice out of K."""

import torch
from torch import Tensor

from policies.numerics import at_least_float32


class Categorical:
    """Categorical distribution over K actions, given by its log-probabilities.

    Args:
        log_probs: (*, K), normalised (the output of `log_softmax`).
    """

    def __init__(self, log_probs: Tensor) -> None:
        self.log_probs = at_least_float32(log_probs)

    @staticmethod
    def fill(noise: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Overwrites `noise`, (*, K), by Exp(1) clocks."""
        return noise.exponential_(generator=generator)

    def noise(self, generator: torch.Generator | None = None) -> Tensor:
        """K independent Exp(1) clocks per draw, (*, K)."""
        return self.fill(torch.empty_like(self.log_probs), generator)

    def sample(self, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(action, action), (*,) int64: of clocks with rates p, number k rings first with p_k."""
        with torch.no_grad():
            clocks = self.noise() if noise is None else noise
            action = (self.log_probs - clocks.log()).argmax(-1)
            return action, action

    def log_prob(self, action: Tensor, latent: Tensor | None = None) -> Tensor:
        """Log-probability of `action` (*,) int64; `latent` is ignored, for nothing is squashed."""
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """-sum_k p_k log p_k, (*,), with 0 log 0 = 0."""
        probs = self.log_probs.exp()
        return -(probs * self.log_probs.clamp_min(torch.finfo(probs.dtype).min)).sum(-1)

    def deterministic(self) -> Tensor:
        """The most probable action, (*,) int64."""
        return self.log_probs.argmax(-1)
