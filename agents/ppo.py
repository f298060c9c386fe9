"""Proximal policy optimisation, clipped: Schulman et al. 2017 (arXiv 1707.06347)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from agents.base import Stream
from agents.metrics import policy_metrics, value_metrics
from agents.on_policy import OnPolicyAgent, standardise
from agents.optimizer import Losses, Metrics
from common.metrics import MergedMetrics
from configs.agents import PPOConfig
from data import Spec, Transition

PIECE = 32 << 20  # bytes of observations that are evaluated or reordered at a time
STOP = 1.5  # times agent.target_kl, above which the remaining minibatches are skipped


class PPO(OnPolicyAgent):
    """Several passes over each rollout in minibatches."""

    settings: PPOConfig

    def __init__(self, spec: Spec, settings: PPOConfig, stream: Stream, horizon: int) -> None:
        super().__init__(spec, settings, stream, horizon)
        self.stopped = torch.zeros((), dtype=torch.bool, device=self.device)  # by the KL
        self.reads_flags = self.device.type == "cpu"  # reading one would wait for a GPU

    def update(self, batch: Transition) -> Metrics:
        """`epochs` passes over a rollout (T, N, ·), each in a new order.

        On a GPU the minibatches after a stop are computed, change nothing and are not logged.
        """
        self.begin_update(batch)
        merged = MergedMetrics()
        may_stop = self.settings.target_kl is not None
        for minibatch in self.minibatches(batch):
            left_out = self.stopped.clone() if may_stop and not self.reads_flags else None
            metrics = self.step(*minibatch)
            if self.reads_flags and self.optimizer.diverged:  # its metrics are reported
                return metrics
            merged.add(metrics, left_out)
            if self.reads_flags and self.stopped:
                break
        self.stopped.zero_()  # of this update alone
        self.learn_statistics(batch.obs)  # last: actions were taken under the old statistics
        return merged.result()

    def minibatches(self, batch: Transition) -> Iterator[tuple[Tensor, ...]]:
        """The arguments of `losses`, each (B, ·)."""
        settings, generator = self.settings, self.generators["update"]
        assert batch.latent is not None
        advantage, target, log_prob = self.evaluate_rollout(batch)
        row = batch.obs.shape[-1] * batch.obs.element_size()
        several = max(1, PIECE // (row * settings.batch_size))  # minibatches reordered at once
        for epoch in range(settings.epochs):
            if epoch and settings.recompute_advantage:
                advantage, target, _ = self.evaluate_rollout(batch)
            order = torch.randperm(log_prob.numel(), generator=generator, device=self.device)
            fields = (batch.obs, batch.action, batch.latent, advantage, target, log_prob)
            for part in order.split(several * settings.batch_size):
                rows = [field.flatten(0, 1).index_select(0, part) for field in fields]  # (B', ·)
                yield from zip(*(row.split(settings.batch_size) for row in rows), strict=True)

    @torch.no_grad()
    def evaluate_rollout(self, batch: Transition) -> tuple[Tensor, Tensor, Tensor]:
        """(advantage, target, log_prob) of a rollout under the present weights, (T, N) each.

        With images in parts of some steps, to bound the memory of convolutions; otherwise at once,
        since the last bits of a matrix product depend on its number of rows.
        """
        steps, envs = batch.reward.shape
        if self.spec.images:
            steps = max(1, PIECE // (4 * self.spec.obs_dim * envs))
        fields = [field.split(steps) for field in batch if field is not None]
        parts = []
        for part in map(Transition._make, zip(*fields, strict=True)):
            policy, value = self.evaluate(self.normalizer(part.obs))
            next_value = self.critic(self.normalizer(part.next_obs))
            parts.append((value, next_value, policy.log_prob(part.action, part.latent)))
        value, next_value, log_prob = map(torch.cat, zip(*parts, strict=True))
        return *self.advantages(batch, value, next_value), log_prob

    def step(self, *minibatch: Tensor) -> Metrics:
        """From weights and a minibatch, as `losses` takes it, to new weights: one graph."""
        return self.optimizer.minimise(lambda: self.losses(*minibatch), unless=self.stopped)

    def losses(
        self,
        obs: Tensor,
        action: Tensor,
        latent: Tensor,
        advantage: Tensor,
        target: Tensor,
        old_log_prob: Tensor,
    ) -> tuple[Losses, Metrics]:
        """Clipped surrogate (eq. 7), value regression and entropy bonus (eq. 9), of (B, ·).

        The ratio of two squashed policies is that of the Gaussians before squashing: the Jacobian,
        which does not depend on the weights given the latent, cancels.
        """
        settings = self.settings
        policy, value = self.evaluate(self.normalizer(obs))
        if settings.normalise_advantage:
            advantage = standardise(advantage, self.optimizer.ranks)
        log_prob, entropy = policy.log_prob(action, latent), policy.entropy()
        log_ratio = log_prob - old_log_prob
        ratio, clip = log_ratio.exp(), self.clip()
        bounded = ratio.clamp(1.0 - clip, 1.0 + clip)
        actor_loss = -torch.minimum(ratio * advantage, bounded * advantage).mean()
        critic_loss = 0.5 * (target - value).square().mean()
        total = actor_loss + settings.value_coef * critic_loss - settings.ent_coef * entropy.mean()
        with torch.no_grad():
            # KL(old || new) from samples of old; never negative, unlike the mean of -log_ratio.
            kl = (torch.expm1(log_ratio) - log_ratio).mean()
            if settings.target_kl is not None:
                (kl,) = self.optimizer.ranks.average([kl])
                self.stopped |= kl > STOP * settings.target_kl
            clipped = ((ratio - 1.0).abs() > clip).float().mean()
        return {"actor": total, "critic": total}, {
            "loss/actor": actor_loss.detach(),
            **value_metrics(value, target, critic_loss),
            "policy/kl": kl,
            "policy/clip_fraction": clipped,
            **policy_metrics(log_prob, entropy, action, policy, latent=latent),
        }

    def clip(self) -> Any:
        """Largest distance of the ratio from 1; with `linear` it falls with the learning rate."""
        if self.settings.clip_schedule == "constant":
            return self.settings.clip_range
        return self.settings.clip_range / self.settings.lr * self.optimizer.lr

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.stopped.zero_()
