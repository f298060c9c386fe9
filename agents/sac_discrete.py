"""Soft actor-critic for discrete actions: Christodoulou 2019 (arXiv 1910.07207)."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agents.base import BaseAgent, Stream
from agents.metrics import policy_metrics, value_metrics
from agents.soft import SoftNetworks, at_most
from data import Batch, Spec, Transition
from networks import DiscreteCritic
from policies import Categorical

if TYPE_CHECKING:
    from configs.agents import SACDiscreteConfig

AUTO = 0.3  # of log K; of two actions the better one is then taken with probability 0.947
RISKY = 0.9  # of log K, beyond which the policy is left next to no choice


class SACDiscrete(BaseAgent):
    """SAC with every expectation over the K actions taken exactly.

    As in `SAC`, all losses are evaluated at the weights before the update and stepped together.
    """

    on_policy = False
    serves = ("discrete",)
    policies = ("categorical",)

    def __init__(
        self, spec: Spec, settings: "SACDiscreteConfig", stream: Stream, horizon: int
    ) -> None:
        super().__init__(spec, settings, stream, horizon)
        self.settings = settings
        self.cycle = min(settings.policy_delay, 2)  # with the actor, without it
        self.hold = settings.explore_hold
        self.target_entropy = target_entropy(spec.action_dim, settings)
        most = math.log(spec.action_dim)
        if settings.alpha == "auto" and self.target_entropy > RISKY * most:
            self.caution = (
                f"agent.target_entropy: {self.target_entropy:g} is above {RISKY} log "
                f"{spec.action_dim}, the temperature may run away; give at most "
                f"{at_most(RISKY * most):g}"
            )
        networks = self.networks = SoftNetworks(
            spec,
            settings,
            self.policy_name,
            DiscreteCritic,
            stream("init"),
            self.device,
            self.horizon,
        )
        self.actor, self.critic = networks.actor, networks.critic
        self.critic_target, self.temperature = networks.critic_target, networks.temperature
        self.modules |= networks.modules
        self.optimizer = networks.optimizer

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on a batch (B, ·); actor and temperature only every `policy_delay` updates."""
        clocks = torch.empty(*batch.leading, self.spec.action_dim, device=self.device)
        Categorical.fill(clocks, self.generators["update"])
        train_actor = self.optimizer.updates % self.settings.policy_delay == 0
        self.optimizer.begin_update()
        self.given = (batch, clocks, train_actor)
        return self.step(*self.given)

    def step(self, batch: Batch, clocks: Tensor, train_actor: bool) -> dict[str, Tensor]:
        """From weights and a batch (B, ·) to new weights: one graph; clocks (B, K) are for logs."""
        rows = batch.read()
        return self.networks.step(lambda: self.losses(rows, clocks, train_actor))

    def losses(
        self, batch: Transition, clocks: Tensor, train_actor: bool
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of critic (eq. 4), actor (eq. 12) and temperature (eq. 11)."""
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        alpha = self.temperature().detach().exp()
        target = self.soft_target(batch, next_obs, alpha)
        values = self.critic(obs)  # (E, B, K)
        taken = batch.action.expand(len(values), -1).unsqueeze(-1)
        value = values.gather(-1, taken).squeeze(-1)  # (E, B)
        critic_loss = 0.5 * (value - target).square().mean(-1).sum()
        losses = {"critic": critic_loss}
        metrics = value_metrics(value, target, critic_loss) | {"policy/alpha": alpha}
        if train_actor:
            log_probs = self.actor(obs)  # (B, K)
            policy, probs = Categorical(log_probs), log_probs.exp()
            least = values.detach().amin(0)
            actor_loss = (probs * (alpha * log_probs - least)).sum(-1).mean()
            losses["actor"] = actor_loss
            entropy = policy.entropy()
            action, _ = policy.sample(clocks)
            metrics |= {
                "loss/actor": actor_loss.detach(),
                **policy_metrics(policy.log_prob(action), entropy, action),
            }
            if self.settings.alpha == "auto":
                losses["alpha"] = self.temperature.loss(entropy.mean(), self.target_entropy)
                metrics["loss/alpha"] = losses["alpha"].detach()
                metrics["policy/target_entropy"] = torch.full_like(alpha, self.target_entropy)
        return losses, metrics

    @torch.no_grad()
    def soft_target(self, batch: Transition, next_obs: Tensor, alpha: Tensor) -> Tensor:
        """r + gamma (1 - terminated) sum_a pi(a|s') (min_e Q_e(s', a) - alpha log pi(a|s')), (B,).

        Eq. 3 and 10 of arXiv 1910.07207.
        """
        log_probs = self.actor(next_obs)
        soft = self.critic_target(next_obs).amin(0) - alpha * log_probs
        next_value = (log_probs.exp() * soft).sum(-1)
        return batch.reward + self.settings.gamma * torch.where(batch.terminated, 0.0, next_value)


def target_entropy(actions: int, settings: "SACDiscreteConfig") -> float:
    """Nats that a learned temperature aims for; ValueError where K actions have no such entropy."""
    most = math.log(actions)
    if settings.target_entropy == "auto":
        return AUTO * most
    wanted = float(settings.target_entropy)
    if settings.alpha == "auto" and not 0.0 <= wanted <= most:
        raise ValueError(
            f"agent.target_entropy: {wanted:g} cannot be reached, entropies of {actions} actions "
            f"lie between 0 and log {actions} = {at_most(most):g}; give at most "
            f"{at_most(RISKY * most):g}" + " and not less than 0" * (wanted < 0.0)
        )
    return wanted
