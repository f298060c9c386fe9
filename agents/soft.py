"""What the soft actor-critics share: critics with slow targets, a temperature, one step of all."""

import copy
from collections.abc import Callable
from decimal import ROUND_FLOOR, Context
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from agents.base import make_actor
from agents.optimizer import Losses, Metrics, Optimizer
from data import Spec
from networks import Critic, DiscreteCritic, torso

if TYPE_CHECKING:
    from configs.agents import OffPolicyConfig


class Temperature(nn.Module):
    """log alpha, the logarithm of the entropy's weight."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.tensor(alpha).log())

    def forward(self) -> Tensor:
        return self.log_alpha

    def loss(self, entropy: Tensor, target_entropy: float) -> Tensor:
        """0-d; its gradient raises alpha where the entropy, 0-d, is below its target.

        arXiv 1812.05905, eq. 18, with log alpha in place of alpha as the factor: same root, and no
        stall near 0.
        """
        return self.log_alpha * (entropy.detach() - target_entropy)


class SoftNetworks:
    """An actor, an ensemble of critics with targets that follow slowly, and a temperature.

    The actor may have an average that follows it, too, and acts wherever actions are deterministic.

    Args:
        policy_name: what the actor's parameters are for.
        kind: makes the critics.
        init: draws the first weights.
        device: where they go.
        horizon: of the learning rate, see `Optimizer`.
    """

    def __init__(
        self,
        spec: Spec,
        settings: "OffPolicyConfig",
        policy_name: str,
        kind: Callable[..., Critic | DiscreteCritic],
        init: torch.Generator,
        device: torch.device,
        horizon: int | None,
    ) -> None:
        hidden, activation = settings.hidden, settings.activation
        body = torso(spec.obs_dim, hidden, activation, init, images=spec.images)
        self.actor = make_actor(spec, settings, policy_name, body, init, orthogonal=False)
        self.critic = kind(
            settings.critics,
            spec.obs_dim,
            spec.action_dim,
            hidden,
            activation,
            init,
            settings.normalise_critic,
            spec.images,
        )
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        alpha = settings.alpha_init if settings.alpha == "auto" else float(settings.alpha)
        self.temperature = Temperature(alpha)
        self.modules = {
            "actor": self.actor.to(device),
            "critic": self.critic.to(device),
            "critic_target": self.critic_target.to(device),
            "temperature": self.temperature.to(device),
        }
        self.optimizer = Optimizer(
            {
                "critic": list(self.critic.parameters()),
                "actor": list(self.actor.parameters()),
                "alpha": list(self.temperature.parameters()),
            },
            settings.lr,
            max_grad_norm=settings.max_grad_norm,
            horizon=horizon,
        )
        followers: list[tuple[float, nn.Module, nn.Module]] = [
            (settings.tau, self.critic, self.critic_target)
        ]
        if settings.actor_tau < 1.0:
            self.modules["actor_average"] = copy.deepcopy(self.actor).requires_grad_(False)
            followers.append((settings.actor_tau, self.actor, self.modules["actor_average"]))
        self.followers = [
            (tau, list(live.parameters()), list(average.parameters()))
            for tau, live, average in followers
        ]

    def step(self, losses: Callable[[], tuple[Losses, Metrics]]) -> Metrics:
        """Steps what the losses name; then the averages follow (arXiv 1812.05905, algorithm 1)."""
        metrics = self.optimizer.minimise(losses)
        with torch.no_grad():  # Polyak averaging, and not after divergence
            for tau, live, average in self.followers:
                weight = torch.where(self.optimizer.diverged, 0.0, tau)
                for old, new in zip(average, live, strict=True):
                    old.lerp_(new, weight)
        return metrics


def at_most(number: float) -> float:
    """The number rounded down to four digits, for a message: what it names is not too much."""
    return float(Context(prec=4, rounding=ROUND_FLOOR).create_decimal(number))
