"""What the soft actor-critics share: a temperature, and targets that follow slowly."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Temperature(nn.Module):
    """log alpha, the logarithm of the entropy's weight."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.tensor(alpha).log())

    def forward(self) -> Tensor:
        return self.log_alpha

    def loss(self, entropy: Tensor, target_entropy: float) -> Tensor:
        """0-d; its gradient raises alpha where the entropy, 0-d, is below its target.

        Arxiv 1812.05905, eq. 18, with log alpha in place of alpha as the factor: same root, and no
        stall near 0.
        """
        return self.log_alpha * (entropy.detach() - target_entropy)


@torch.no_grad()
def follow(targets: Sequence[Tensor], live: Sequence[Tensor], tau: float, unless: Tensor) -> None:
    """Polyak averaging (arXiv 1812.05905, algorithm 1); nothing moves where the 0-d bool is up."""
    weight = torch.where(unless, 0.0, tau)
    for target, parameter in zip(targets, live, strict=True):
        target.lerp_(parameter, weight)
