"""Several choices at once, each out of its own number of actions."""

import torch
from torch import Tensor

from policies.categorical import Categorical


class MultiCategorical:
    """Independent categorical distributions, one for each of D components.

    Args:
        log_probs: (*, D, K), each row normalised; one with fewer than K actions ends in -inf.
    """

    def __init__(self, log_probs: Tensor) -> None:
        self.base = Categorical(log_probs)
        self.log_probs = self.base.log_probs

    fill = staticmethod(Categorical.fill)

    def noise(self, generator: torch.Generator | None = None) -> Tensor:
        """Independent Exp(1) clocks, (*, D, K)."""
        return self.base.noise(generator)

    def sample(self, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(action, action), (*, D) int64."""
        return self.base.sample(noise)

    def log_prob(self, action: Tensor, latent: Tensor | None = None) -> Tensor:
        """Log-probability of all components of `action` (*, D) together, (*,)."""
        return self.base.log_prob(action).sum(-1)

    def entropy(self) -> Tensor:
        """The sum of the components' entropies, (*,)."""
        return self.base.entropy().sum(-1)

    def deterministic(self) -> Tensor:
        """The most probable action of each component, (*, D) int64."""
        return self.base.deterministic()

    def components(self) -> list[Categorical]:
        """Of one state: each component by itself, without the actions that it does not have."""
        return [Categorical(row[row > -torch.inf]) for row in self.log_probs]
