"""Advantage actor-critic: Mnih et al. 2016 (arXiv 1602.01783), synchronous, with GAE."""

import torch

from agents.metrics import policy_metrics, value_metrics
from agents.on_policy import OnPolicyAgent, standardise
from agents.optimizer import Losses, Metrics
from configs.agents import A2CConfig
from data import Transition


class A2C(OnPolicyAgent):
    """One gradient step per rollout."""

    settings: A2CConfig

    def update(self, batch: Transition) -> Metrics:
        """One step on a rollout (T, N, ·)."""
        self.begin_update(batch)
        metrics = self.step(batch)
        self.learn_statistics(batch.obs)  # last: actions were taken under the old statistics
        return metrics

    def step(self, batch: Transition) -> Metrics:
        """From weights and a rollout (T, N, ·) to new weights: one graph of tensors."""
        return self.optimizer.minimise(lambda: self.losses(batch))

    def losses(self, batch: Transition) -> tuple[Losses, Metrics]:
        """Policy gradient, value regression and entropy bonus (arXiv 1602.01783, section 4)."""
        settings = self.settings
        policy, value = self.evaluate(self.normalizer(batch.obs))  # value (T, N)
        with torch.no_grad():
            next_value = self.critic(self.normalizer(batch.next_obs))
        advantage, target = self.advantages(batch, value.detach(), next_value)
        if settings.normalise_advantage:
            advantage = standardise(advantage, self.optimizer.ranks)
        log_prob, entropy = policy.log_prob(batch.action, batch.latent), policy.entropy()
        actor_loss = -(advantage * log_prob).mean()
        critic_loss = 0.5 * (target - value).square().mean()
        total = actor_loss + settings.value_coef * critic_loss - settings.ent_coef * entropy.mean()
        return {"actor": total, "critic": total}, {
            "loss/actor": actor_loss.detach(),
            **value_metrics(value, target, critic_loss),
            **policy_metrics(log_prob, entropy, batch.action, policy, latent=batch.latent),
        }
