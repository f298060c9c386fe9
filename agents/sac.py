"""Soft actor-critic with a learned temperature: Haarnoja et al. 2018 (arXiv 1812.05905)."""

import math

import torch
from torch import Tensor

from agents.base import Stream
from agents.categorical_critic import CategoricalReturn, caution
from agents.metrics import policy_metrics, value_metrics
from agents.off_policy import OffPolicyAgent
from agents.optimizer import Losses, Metrics
from configs.agents import SACConfig
from configs.validate import at_most
from data import Spec, Transition
from policies import POLICIES, largest_entropy

ENTROPY_STATES = 64  # of a batch, for the log; the losses use the sampled log_pi


class SAC(OffPolicyAgent):
    """Off-policy maximum-entropy learning for continuous actions in [-1, 1].

    An update is `OffPolicyAgent.update` -> `step` -> `losses`; `step` then moves the targets.
    """

    policies = tuple(name for name, policy in POLICIES.items() if policy.squashed)
    draws = (2,)  # for the actions at s' and at s
    settings: SACConfig

    def __init__(self, spec: Spec, settings: SACConfig, stream: Stream, horizon: int) -> None:
        super().__init__(spec, settings, stream, horizon, outputs=settings.atoms or 1)
        self.require_gradient()
        low, high, size = settings.log_std_min, settings.log_std_max, spec.action_dim
        most = size * largest_entropy(low, high)
        remedy = (
            f"a squashed Gaussian in dimension {size} with agent.log_std_min={low:g} and "
            f"agent.log_std_max={high:g} reaches at most {at_most(most):g}; give less than that"
        )
        self.set_target_entropy(-float(size), -math.inf, most, remedy)
        if settings.atoms:
            self.returns = CategoricalReturn(settings.atoms, settings.gamma).to(self.device)
            self.modules["returns"] = self.returns
            self.caution = caution(settings)

    @torch.enable_grad()
    def require_gradient(self) -> None:
        """Raises ValueError unless draws have a gradient in each parameter (eq. 9)."""
        parameters = self.actor(torch.zeros(1, self.spec.obs_dim, device=self.device))
        noise = torch.empty(1, *self.spec.noise_shape, device=self.device)
        self.policy_class.fill(noise, torch.Generator(self.device).manual_seed(0))
        action, _ = self.policy_class(*parameters).rsample_with_log_prob(noise)
        slopes: tuple[Tensor | None, ...] = (None,)
        if action.requires_grad:
            slopes = torch.autograd.grad(action.sum(), parameters, allow_unused=True)
        if any(slope is None for slope in slopes):
            raise ValueError(
                f"agent.policy: draws of {self.policy_class.__name__} have no gradient in a "
                "parameter, which SAC needs; compute them from the noise, or use agent=ppo"
            )

    def losses(self, batch: Transition, noise: Tensor, train_actor: bool) -> tuple[Losses, Metrics]:
        """Losses of critic (eq. 5), actor (eq. 9) and temperature (eq. 18); noise is (2, B, A)."""
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        alpha = self.temperature["log_alpha"].detach().exp()

        target = self.soft_target(batch, next_obs, noise[0], alpha)
        output = self.critic(obs, batch.action)  # (E, B), or logits (E, B, K)
        if isinstance(self.returns, CategoricalReturn):
            critic_loss = self.returns.loss(output, target)
            metrics = value_metrics(*self.returns.in_rewards(output, target), critic_loss)
        else:
            critic_loss = 0.5 * (output - target).square().mean(-1).sum()
            metrics = value_metrics(output, target, critic_loss)
        metrics["policy/alpha"] = alpha
        if not train_actor:
            return {"critic": critic_loss}, metrics

        parameters = self.actor(obs)
        policy = self.policy_class(*parameters)
        action, log_pi = policy.rsample_with_log_prob(noise[1])
        value = self.value(self.critic(obs, action)).amin(0)
        actor_loss = (alpha * log_pi - value).mean()

        alpha_loss, alpha_metrics = self.temperature_loss(-log_pi.mean(), alpha)

        shown = self.policy_class(*(rows[:ENTROPY_STATES].detach() for rows in parameters))
        metrics |= {
            "loss/actor": actor_loss.detach(),
            **policy_metrics(log_pi, shown.entropy(), action, policy, noise[1]),
            **alpha_metrics,
        }
        return {"critic": critic_loss, "actor": actor_loss, **alpha_loss}, metrics

    @torch.no_grad()
    def soft_target(
        self, batch: Transition, next_obs: Tensor, noise: Tensor, alpha: Tensor
    ) -> Tensor:
        """r + gamma (1 - terminated) (min_e Q_e(s', a') - alpha log pi(a'|s')), (B,): eq. 5, 6.

        With a distributional critic its probabilities, (B, K).
        """
        gamma = self.settings.gamma
        next_action, next_log_pi = self.policy(next_obs).rsample_with_log_prob(noise)
        output = self.critic_target(next_obs, next_action)
        if isinstance(self.returns, CategoricalReturn):
            return self.returns.target(output, batch, gamma, -alpha * next_log_pi)
        next_value = output.amin(0) - alpha * next_log_pi
        return self.scaled(batch.reward) + gamma * torch.where(batch.terminated, 0.0, next_value)

    def value(self, output: Tensor) -> Tensor:
        """Outputs of the critics -> mean returns, (E, B)."""
        return self.returns.value(output) if isinstance(self.returns, CategoricalReturn) else output
