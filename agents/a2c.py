"""Advantage actor-critic: Mnih et al. 2016 (arXiv 1602.01783), synchronous, with GAE."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from agents.base import CONTINUOUS, BaseAgent, Stream, make_actor
from agents.metrics import explained_variance, gaussian_metrics, policy_metrics
from agents.optimizer import Optimizer
from data import Spec, Transition, gae
from networks import Value, torso

if TYPE_CHECKING:
    from configs.schema import A2CConfig


class A2C(BaseAgent):
    """One gradient step per rollout, for discrete and continuous actions."""

    on_policy = True
    serves = ("discrete", "continuous")
    policies = ("categorical", *CONTINUOUS)

    def __init__(self, spec: Spec, settings: "A2CConfig", stream: Stream, horizon: int) -> None:
        super().__init__(spec, settings, stream, horizon)
        self.settings = settings
        init = stream("init")

        def make_torso() -> nn.Module:
            return torso(
                spec.obs_dim,
                settings.hidden,
                settings.activation,
                init,
                orthogonal=True,
                unit_input=settings.unit_obs,
            )

        actor_torso = make_torso()
        self.actor = make_actor(
            spec, settings, self.policy_name, actor_torso, init, orthogonal=True
        )
        self.critic = Value(
            actor_torso if settings.shared_torso else make_torso(),
            settings.hidden[-1],
            init,
            orthogonal=True,
            bounded=settings.bounded_value,
        )
        self.modules |= {"actor": self.actor.to(self.device), "critic": self.critic.to(self.device)}
        actor_parameters = list(self.actor.parameters())
        known = {id(parameter) for parameter in actor_parameters}
        self.optimizer = Optimizer(
            {
                "actor": actor_parameters,  # with the torso, where it is shared
                "critic": [p for p in self.critic.parameters() if id(p) not in known],
            },
            settings.lr,
            max_grad_norm=settings.max_grad_norm,
            horizon=self.horizon,
            eps=1e-5,
        )

    def evaluate(self, obs: Tensor) -> tuple[Any, Tensor]:
        """The policy and the value at normalised observations; a shared torso is computed once."""
        if not self.settings.shared_torso:
            return self.policy(obs), self.critic(obs)
        actor: Any = self.actor
        features = actor.torso(obs)
        parameters = actor.from_features(features)
        parameters = parameters if isinstance(parameters, tuple) else (parameters,)
        features = features.detach() if self.settings.detach_critic else features
        return self.policy_class(*parameters), self.critic.from_features(features)

    def update(self, batch: Transition) -> dict[str, Tensor]:
        """One step on a rollout (T, N, ·)."""
        self.optimizer.begin_update()
        self.given = (batch,)
        metrics = self.step(*self.given)
        self.learn_statistics(batch.obs)  # only now: the rollout was acted under the old ones
        return metrics

    def step(self, batch: Transition) -> dict[str, Tensor]:
        """From weights and a rollout (T, N, ·) to new weights: one graph of tensors."""
        return self.optimizer.minimise(lambda: self.losses(batch))

    def losses(self, batch: Transition) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Policy gradient, value regression and entropy bonus (arXiv 1602.01783, section 4)."""
        settings = self.settings
        obs = self.normalizer(batch.obs)
        policy, value = self.evaluate(obs)  # value (T, N)
        with torch.no_grad():
            next_value = self.critic(self.normalizer(batch.next_obs))
            advantage, target = gae(
                batch.reward * settings.reward_scale,
                value.detach(),
                next_value,
                batch.terminated,
                batch.truncated,
                settings.gamma,
                settings.gae_lambda,
            )
        if settings.normalise_advantage:
            advantage = standardise(advantage)
        log_prob = policy.log_prob(batch.action, batch.latent)
        entropy = policy.entropy()
        actor_loss = -(advantage * log_prob).mean()
        critic_loss = 0.5 * (target - value).square().mean()
        total = actor_loss + settings.value_coef * critic_loss - settings.ent_coef * entropy.mean()
        metrics = {
            "loss/actor": actor_loss.detach(),
            "loss/critic": critic_loss.detach(),
            "value/mean": value.detach().mean(),
            "value/target_mean": target.mean(),
            "value/explained_variance": explained_variance(value, target),
            "value/td_abs": (target - value).detach().abs().mean(),
            **policy_metrics(log_prob, entropy, batch.action),
        }
        if not self.spec.discrete:
            assert batch.latent is not None
            metrics |= gaussian_metrics(policy, policy.noise_of(batch.latent))
        return {"actor": total, "critic": total}, metrics


def standardise(advantage: Tensor) -> Tensor:
    """Zero mean and unit standard deviation; a single sample, or equal ones, become exactly 0.

    In float64, where the mean of equal float32 numbers is exact.
    """
    centred = advantage.double() - advantage.double().mean()
    return (centred / (centred.square().mean().sqrt() + 1e-8)).to(advantage)
