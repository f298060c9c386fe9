"""The base of A2C and PPO: an actor with a value, and advantages of a rollout."""

from functools import partial

import torch
from torch import Tensor

from agents.base import BaseAgent, Stream
from agents.optimizer import Optimizer, Peers
from configs.agents import OnPolicyConfig
from data import Spec, Transition, gae
from networks.actor_critic import HEAD_GAIN, TORSO_GAIN, Value, torso
from networks.layers import Linear
from networks.normalizer import inverse_deviation
from policies import POLICIES, Policy


class OnPolicyAgent(BaseAgent):
    """An actor and a value, on one torso or on two.

    The `update` of an algorithm begins with `begin_update`, which sets the learning rate and the
    unit of rewards, and ends with `learn_statistics`. Its losses are {"actor": total, "critic":
    total}: both groups of weights follow the gradient of the sum, because a shared torso belongs to
    the actor's group.
    """

    policies = tuple(POLICIES)
    settings: OnPolicyConfig

    def __init__(self, spec: Spec, settings: OnPolicyConfig, stream: Stream, horizon: int) -> None:
        super().__init__(spec, settings, stream, horizon)
        if settings.unit_obs and spec.images:
            raise ValueError("agent.unit_obs: would scale images to length 1; set it to false")
        init = stream("init")
        layers = (spec.obs_dim, settings.hidden, settings.activation, init, spec.images)
        make_torso = partial(torso, *layers, TORSO_GAIN, settings.unit_obs, spec.mask)
        self.actor = self.make_actor(make_torso(), init, gain=HEAD_GAIN)
        body = self.actor.torso if settings.shared_torso else make_torso()
        head = Linear(settings.hidden[-1], 1, init, gain=1.0)
        self.critic = Value(body, head, settings.bounded_value)
        self.modules |= {"actor": self.actor.to(self.device), "critic": self.critic.to(self.device)}
        actor = dict.fromkeys(self.actor.parameters())  # those of a shared torso are the actor's
        groups = {"actor": actor, "critic": [p for p in self.critic.parameters() if p not in actor]}
        self.optimizer = Optimizer(
            groups, settings.lr, settings.max_grad_norm, self.horizon, settings.adam_eps
        )

    def evaluate(self, obs: Tensor) -> tuple[Policy, Tensor]:
        """Policy and value at normalised observations; a shared torso is evaluated once."""
        if not self.settings.shared_torso:
            return self.policy(obs), self.critic(obs)
        features = self.actor.torso(obs)
        policy = self.policy(obs, features)
        features = features.detach() if self.settings.detach_critic else features
        return policy, self.critic(obs, features)

    def begin_update(self, batch: Transition) -> None:
        """Sets learning rate and unit of rewards for a rollout (T, N, ·), outside the graph."""
        self.optimizer.begin_update()
        self.learn_returns(batch)

    @torch.no_grad()
    def advantages(
        self, batch: Transition, value: Tensor, next_value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(advantage, target) of a rollout (T, N, ·), given the values of its observations."""
        reward, ends = self.scaled(batch.reward), (batch.terminated, batch.truncated)
        return gae(reward, value, next_value, *ends, self.settings.gamma, self.settings.gae_lambda)


def standardise(advantage: Tensor, ranks: Peers) -> Tensor:
    """Zero mean and unit standard deviation over the batches of all ranks.

    A single sample, or samples equal up to the resolution of float32, become exactly 0.
    """
    mean = advantage.double().mean()
    variance = (advantage.double() - mean).square().mean()
    if ranks.size > 1:
        mean, square = ranks.average([mean, variance + mean.square()])
        variance = (square - mean.square()).clamp_min(0.0)
    inverse_std = inverse_deviation(mean, variance, constant=0.0)
    return ((advantage.double() - mean) * inverse_std).to(advantage)
