"""Soft actor-critic with a learned temperature: Haarnoja et al. 2018 (arXiv 1812.05905)."""

from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from agents.base import BaseAgent, Stream
from agents.metrics import gaussian_metrics, policy_metrics, value_metrics
from agents.returns import LIMIT, Distribution, Number
from agents.soft import SoftNetworks, at_most
from data import Batch, Spec, Transition
from networks import Critic
from policies import TanhGaussian, largest_entropy

if TYPE_CHECKING:
    from configs.agents import SACConfig

ENTROPY_STATES = 64  # of a batch; a log is the mean over many batches


class SAC(BaseAgent):
    """Off-policy maximum-entropy learning for continuous actions in [-1, 1].

    The three losses of an update are all evaluated at the weights before it, then stepped together:
    the update is one function of (weights, batch, noise), and it commits all of them or none.
    """

    on_policy = False
    serves = ("continuous",)
    policies = ("tanh_gaussian", "tanh_full_gaussian")

    def __init__(self, spec: Spec, settings: "SACConfig", stream: Stream, horizon: int) -> None:
        super().__init__(spec, settings, stream, horizon)
        self.settings = settings
        self.cycle = min(settings.policy_delay, 2)  # with the actor, without it
        self.hold = settings.explore_hold
        self.target_entropy = (
            -float(spec.action_dim)
            if settings.target_entropy == "auto"
            else float(settings.target_entropy)
        )
        if settings.alpha == "auto":
            require_reachable(self.target_entropy, spec.action_dim, settings)
        self.returns: Number | Distribution = Number()
        if settings.atoms:
            self.returns = Distribution(settings.atoms, settings.gamma).to(self.device)
            self.modules["returns"] = self.returns
            self.caution = large_temperature(settings)
        kind = partial(Critic, outputs=self.returns.outputs)
        networks = self.networks = SoftNetworks(
            spec, settings, self.policy_name, kind, stream("init"), self.device, self.horizon
        )
        self.actor, self.critic = networks.actor, networks.critic
        self.critic_target, self.temperature = networks.critic_target, networks.temperature
        self.modules |= networks.modules
        self.optimizer = networks.optimizer

    def observe(self, transition: Transition) -> None:
        super().observe(transition)
        if isinstance(self.returns, Distribution):
            rows = torch.stack([transition.reward, transition.terminated.float()], -1)
            reward, terminated = self.optimizer.ranks.gather(rows.to(self.device)).unbind(-1)
            self.returns.observe(reward, terminated.bool(), self.diverged)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on a batch (B, ·); actor and temperature only every `policy_delay` updates."""
        noise = torch.empty(2, *batch.leading, self.spec.action_dim, device=self.device)
        noise.normal_(generator=self.generators["update"])
        train_actor = self.optimizer.updates % self.settings.policy_delay == 0
        self.optimizer.begin_update()
        self.given = (batch, noise, train_actor)
        return self.step(*self.given)

    def step(self, batch: Batch, noise: Tensor, train_actor: bool) -> dict[str, Tensor]:
        """From weights, batch (B, ·) and noise (2, B, A) to new weights: one graph of tensors."""
        rows = batch.read()
        return self.networks.step(lambda: self.losses(rows, noise, train_actor))

    def losses(
        self, batch: Transition, noise: Tensor, train_actor: bool
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of critic, actor and temperature; noise is (2, B, A)."""
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        alpha = self.temperature().detach().exp()
        target = self.soft_target(batch, next_obs, noise[0], alpha)
        said = self.critic(obs, batch.action)  # (E, B), or (E, B, K)
        critic_loss = self.returns.loss(said, target)
        losses = {"critic": critic_loss}
        value, expected = self.returns.value(said), self.returns.expected(target)
        unit = self.returns.unit  # the log is in rewards
        metrics = value_metrics(value * unit, expected * unit, critic_loss)
        metrics["policy/alpha"] = alpha
        if train_actor:
            actor_losses, actor_metrics = self.actor_losses(obs, noise[1], alpha)
            losses |= actor_losses
            metrics |= actor_metrics
        return losses, metrics

    @torch.no_grad()
    def soft_target(
        self, batch: Transition, next_obs: Tensor, noise: Tensor, alpha: Tensor
    ) -> Tensor:
        """r + gamma (1 - terminated) (min_e Q_e(s', a') - alpha log pi(a'|s')), (B,): eq. 5, 6.

        Or how likely each such return is, (B, K).
        """
        policy = cast(TanhGaussian, self.policy(next_obs))
        next_action, next_log_pi = policy.rsample_with_log_prob(noise)
        said = self.critic_target(next_obs, next_action)
        return self.returns.target(said, batch, self.settings.gamma, -alpha * next_log_pi)

    def actor_losses(
        self, obs: Tensor, noise: Tensor, alpha: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Actor (eq. 9) and, where it is learned, temperature."""
        parameters = self.actor(obs)
        policy = cast(TanhGaussian, self.policy_class(*parameters))
        action, log_pi = policy.rsample_with_log_prob(noise)
        value = self.returns.value(self.critic(obs, action))
        actor_loss = (alpha * log_pi - value.amin(0)).mean()
        losses = {"actor": actor_loss}
        metrics = {
            "loss/actor": actor_loss.detach(),
            **policy_metrics(log_pi, self.entropy(parameters), action),
            **gaussian_metrics(policy, noise),
        }
        if self.settings.alpha == "auto":
            losses["alpha"] = self.temperature.loss(-log_pi.mean(), self.target_entropy)
            metrics["loss/alpha"] = losses["alpha"].detach()
            metrics["policy/target_entropy"] = torch.full_like(alpha, self.target_entropy)
        return losses, metrics

    @torch.no_grad()
    def entropy(self, parameters: tuple[Tensor, ...]) -> Tensor:
        """For the log alone, and so of a few states: the losses keep the sampled log_pi."""
        return self.policy_class(*(rows[:ENTROPY_STATES] for rows in parameters)).entropy()


def require_reachable(target_entropy: float, action_dim: int, settings: "SACConfig") -> None:
    """Raises ValueError where no policy of this class has such an entropy: alpha would run away."""
    most = action_dim * largest_entropy(settings.log_std_min, settings.log_std_max)
    if target_entropy > most:
        raise ValueError(
            f"agent.target_entropy: {target_entropy:g} cannot be reached; a squashed Gaussian in "
            f"dimension {action_dim} with agent.log_std_min={settings.log_std_min:g} and "
            f"agent.log_std_max={settings.log_std_max:g} reaches at most {at_most(most):g}; give "
            "less than that"
        )


def large_temperature(settings: "SACConfig") -> str | None:
    """A warning where the entropy of a step, for ever, is worth more than any scaled return."""
    key = "alpha_init" if settings.alpha == "auto" else "alpha"
    alpha = float(getattr(settings, key))
    most = LIMIT * (1.0 - settings.gamma)
    if alpha <= most:
        return None
    remedy = f"give at most {at_most(most):g}" if most else "lower agent.gamma, which is 1"
    return (f"agent.{key}: {alpha:g} is large beside returns that agent.atoms scales into "
            f"+-{LIMIT:g}; {remedy}")  # fmt: skip
