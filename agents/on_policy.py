"""What the on-policy agents share: an actor with a value, and what a rollout says of both."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from agents.base import as_tuple, make_actor
from agents.optimizer import Optimizer
from agents.ranks import Ranks
from data import Spec, Transition, gae
from networks import Value, inverse_deviation, torso

if TYPE_CHECKING:
    from configs.agents import OnPolicyConfig


class ActorValue:
    """An actor and a value, on one torso or on two.

    Args:
        policy_name: what the actor's parameters are for.
        policy_class: made from them.
        init: draws the first weights.
        device: where they go.
    """

    def __init__(
        self,
        spec: Spec,
        settings: "OnPolicyConfig",
        policy_name: str,
        policy_class: Any,
        init: torch.Generator,
        device: torch.device,
    ) -> None:
        self.settings, self.policy_class = settings, policy_class
        if settings.unit_obs and spec.images:
            raise ValueError("agent.unit_obs: would scale images to length 1; set it to false")

        def make_torso() -> nn.Module:
            return torso(
                spec.obs_dim,
                settings.hidden,
                settings.activation,
                init,
                orthogonal=True,
                unit_input=settings.unit_obs,
                images=spec.images,
            )

        actor_torso = make_torso()
        self.actor = make_actor(spec, settings, policy_name, actor_torso, init, orthogonal=True)
        self.value = Value(
            actor_torso if settings.shared_torso else make_torso(),
            settings.hidden[-1],
            init,
            orthogonal=True,
            bounded=settings.bounded_value,
        )
        self.modules = {"actor": self.actor.to(device), "critic": self.value.to(device)}

    def optimizer(self, horizon: int | None) -> Optimizer:
        """Of both; the parameters of a shared torso are the actor's."""
        actor = list(self.actor.parameters())
        known = {id(parameter) for parameter in actor}
        return Optimizer(
            {"actor": actor, "critic": [p for p in self.value.parameters() if id(p) not in known]},
            self.settings.lr,
            max_grad_norm=self.settings.max_grad_norm,
            horizon=horizon,
            eps=1e-5,  # as PPO's authors have it (Huang et al. 2022, "37 details", the third)
        )

    def __call__(self, obs: Tensor) -> tuple[Any, Tensor]:
        """The policy and the value at normalised observations; a shared torso is computed once."""
        actor: Any = self.actor
        if not self.settings.shared_torso:
            return self.policy(actor(obs)), self.value(obs)
        features = actor.torso(obs)
        policy = self.policy(actor.from_features(features))
        features = features.detach() if self.settings.detach_critic else features
        return policy, self.value.from_features(features)

    def policy(self, parameters: Tensor | tuple[Tensor, ...]) -> Any:
        return self.policy_class(*as_tuple(parameters))

    @torch.no_grad()
    def judge(self, batch: Transition, value: Tensor, next_value: Tensor) -> tuple[Tensor, Tensor]:
        """(advantage, target) of a rollout, (T, N) each.

        Args:
            batch: (T, N, ·).
            value: of its observations, (T, N).
            next_value: of its successors, (T, N).
        """
        settings = self.settings
        return gae(
            batch.reward * settings.reward_scale,
            value,
            next_value,
            batch.terminated,
            batch.truncated,
            settings.gamma,
            settings.gae_lambda,
        )


def standardise(advantage: Tensor, ranks: Ranks) -> Tensor:
    """Zero mean and unit standard deviation over the batches of all ranks.

    Whatever the unit of the rewards. A single sample, or samples that are equal up to the
    resolution of float32, become exactly 0.
    """
    mean = advantage.double().mean()
    variance = (advantage.double() - mean).square().mean()
    if ranks.size > 1:
        mean, square = ranks.average([mean, variance + mean.square()])
        variance = (square - mean.square()).clamp_min(0.0)
    inverse_std = inverse_deviation(mean, variance, constant=0.0)
    return ((advantage.double() - mean) * inverse_std).to(advantage)
