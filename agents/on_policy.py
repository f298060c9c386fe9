"""The base of A2C and PPO: an actor with a value, and advantages of a rollout."""

from typing import cast

import torch
from torch import Tensor, nn

from agents.base import BaseAgent, Stream, as_tuple, make_actor
from agents.optimizer import Optimizer, Ranks
from configs.agents import OnPolicyConfig
from data import Spec, Transition, gae
from networks import CategoricalActor, GaussianActor, Value, inverse_deviation, torso
from policies import POLICIES, Policy


class OnPolicyAgent(BaseAgent):
    """An actor and a value, on one torso or on two, for discrete and continuous actions."""

    on_policy = True
    policies = tuple(POLICIES)
    settings: OnPolicyConfig

    def __init__(self, spec: Spec, settings: OnPolicyConfig, stream: Stream, horizon: int) -> None:
        super().__init__(spec, settings, stream, horizon)
        if settings.unit_obs and spec.images:
            raise ValueError("agent.unit_obs: would scale images to length 1; set it to false")
        init = stream("init")

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
        self.actor = make_actor(
            spec, settings, self.policy_class, actor_torso, init, orthogonal=True
        )
        self.critic = Value(
            actor_torso if settings.shared_torso else make_torso(),
            settings.hidden[-1],
            init,
            orthogonal=True,
            bounded=settings.bounded_value,
        )
        self.modules |= {"actor": self.actor.to(self.device), "critic": self.critic.to(self.device)}
        actor = list(self.actor.parameters())  # those of a shared torso are the actor's
        known = {id(parameter) for parameter in actor}
        critic = [p for p in self.critic.parameters() if id(p) not in known]
        self.optimizer = Optimizer(
            {"actor": actor, "critic": critic},
            settings.lr,
            max_grad_norm=settings.max_grad_norm,
            horizon=self.horizon,
            eps=1e-5,  # as PPO's authors have it (Huang et al. 2022, "37 details", the third)
        )

    def evaluate(self, obs: Tensor) -> tuple[Policy, Tensor]:
        """The policy and the value at normalised observations; a shared torso is computed once."""
        if not self.settings.shared_torso:
            return self.policy(obs), self.critic(obs)
        actor = cast(CategoricalActor | GaussianActor, self.actor)
        features = actor.torso(obs)
        policy = self.policy_class(*as_tuple(actor.from_features(features)))
        features = features.detach() if self.settings.detach_critic else features
        return policy, self.critic.from_features(features)

    @torch.no_grad()
    def advantages(
        self, batch: Transition, value: Tensor, next_value: Tensor
    ) -> tuple[Tensor, Tensor]:
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
