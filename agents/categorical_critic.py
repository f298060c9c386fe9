"""A distributional critic, with a probability for each of K returns: `agent.atoms` of SAC."""

import torch
from torch import Tensor

from configs.agents import SACConfig
from configs.validate import at_most
from data import Transition
from networks.normalizer import ReturnScale

LIMIT = 5.0  # scaled returns lie in [-LIMIT, LIMIT]


class CategoricalReturn(ReturnScale):
    """Probabilities of K = `atoms` returns: Bellemare et al. 2017 (arXiv 1707.06887).

    The returns are evenly spaced in [-LIMIT, LIMIT]. Rewards are divided by the larger of the
    standard deviation of all discounted returns so far and the largest of them over LIMIT, as in
    Lee et al. 2025 (arXiv 2502.15280). A return continues across truncation, as the value does.
    """

    share, continuing = 1.0 / LIMIT, True  # as defined in ReturnScale
    values: Tensor

    def __init__(self, atoms: int, gamma: float) -> None:
        super().__init__(gamma)
        self.atoms = atoms
        self.width = 2.0 * LIMIT / (atoms - 1)
        self.register_buffer("values", torch.linspace(-LIMIT, LIMIT, atoms))

    def value(self, output: Tensor) -> Tensor:
        """Logits (E, B, K) -> mean scaled returns (E, B)."""
        return self.expected(output.softmax(-1))

    def expected(self, target: Tensor) -> Tensor:
        """Probabilities (*, K) -> mean scaled returns (*,)."""
        return (target * self.values).sum(-1)

    def target(self, output: Tensor, batch: Transition, gamma: float, bonus: Tensor) -> Tensor:
        """Probabilities (B, K) of r + gamma (1 - terminated) (Z + bonus): eq. 7.

        Z is that of the member with the smallest mean. The bonus (B,), -alpha log pi(a'|s'), is in
        scaled units, r is not.
        """
        over = batch.terminated.unsqueeze(-1)  # (B, 1)
        least = self.value(output).argmin(0)  # (B,)
        chosen = output.gather(0, least[None, :, None].expand(1, -1, self.atoms))[0]
        chosen = torch.where(over, 0.0, chosen)
        follows = gamma * torch.where(over, 0.0, self.values + bonus.unsqueeze(-1))  # (B, K)
        moved = ((batch.reward / self.unit).unsqueeze(-1) + follows).clamp(-LIMIT, LIMIT)
        apart = (moved.unsqueeze(-1) - self.values).abs() / self.width  # (B, K, K)
        return (chosen.softmax(-1).unsqueeze(-1) * (1.0 - apart).clamp_min(0.0)).sum(-2)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross entropy with the target (B, K), summed over the members, 0-d."""
        return -(target * output.log_softmax(-1)).sum(-1).mean(-1).sum()

    def in_rewards(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mean returns of output, (E, B), and target, (B,), in units of reward."""
        return self.value(output) * self.unit, self.expected(target) * self.unit


def caution(settings: SACConfig) -> str | None:
    """A warning if the entropy of all steps may be worth more than any scaled return."""
    key = "alpha_init" if settings.alpha == "auto" else "alpha"
    alpha, most = float(getattr(settings, key)), LIMIT * (1.0 - settings.gamma)
    if alpha <= most:
        return None
    remedy = f"give at most {at_most(most):g}" if most else "lower agent.gamma, which is 1"
    return (
        f"agent.{key}: {alpha:g} is large compared with returns, which agent.atoms scales into "
        f"+-{LIMIT:g}; {remedy}"
    )
