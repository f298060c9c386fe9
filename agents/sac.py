"""Soft actor-critic with a learned temperature: Haarnoja et al. 2018 (arXiv 1812.05905)."""

from functools import partial

import torch
from torch import Tensor

from agents.base import Stream
from agents.categorical_critic import LIMIT, CategoricalReturn
from agents.metrics import gaussian_metrics, policy_metrics, value_metrics
from agents.off_policy import OffPolicyAgent, at_most
from configs.agents import SACConfig
from data import Batch, Spec, Transition
from networks import Critic
from policies import POLICIES, Gaussian, largest_entropy

ENTROPY_STATES = 64  # of a batch; a log is the mean over many batches


class MeanReturn:
    """Critics of the mean return, regressed on their target: arXiv 1812.05905, eq. 5.

    `CategoricalReturn` takes its place where there are `atoms`.
    """

    unit = 1.0  # rewards in a value of 1

    def value(self, output: Tensor) -> Tensor:
        """Outputs of the critics (E, B) -> the return that they expect, (E, B)."""
        return output

    def target(self, output: Tensor, batch: Transition, gamma: float, bonus: Tensor) -> Tensor:
        """r + gamma (1 - terminated) (Q + bonus), (B,), by the member whose Q is least."""
        return batch.reward + gamma * torch.where(batch.terminated, 0.0, output.amin(0) + bonus)

    def expected(self, target: Tensor) -> Tensor:
        """The mean of a target, (B,)."""
        return target

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Each member regresses on the same target, 0-d."""
        return 0.5 * (output - target).square().mean(-1).sum()


class SAC(OffPolicyAgent):
    """Off-policy maximum-entropy learning for continuous actions in [-1, 1]."""

    policies = tuple(name for name, policy in POLICIES.items() if policy.squashed)
    settings: SACConfig

    def __init__(self, spec: Spec, settings: SACConfig, stream: Stream, horizon: int) -> None:
        critic = partial(Critic, outputs=settings.atoms or 1)
        super().__init__(spec, settings, stream, horizon, critic)
        self.target_entropy = (
            -float(spec.action_dim)
            if settings.target_entropy == "auto"
            else float(settings.target_entropy)
        )
        if settings.alpha == "auto":
            require_reachable(self.target_entropy, spec.action_dim, settings)
        self.returns: MeanReturn | CategoricalReturn = MeanReturn()
        if settings.atoms:
            self.returns = CategoricalReturn(settings.atoms, settings.gamma).to(self.device)
            self.modules["returns"] = self.returns

    def observe(self, transition: Transition) -> None:
        super().observe(transition)
        if isinstance(self.returns, CategoricalReturn):
            rows = torch.stack([transition.reward, transition.terminated.float()], -1)
            reward, terminated = self.optimizer.ranks.gather(rows.to(self.device)).unbind(-1)
            self.returns.observe(reward, terminated.bool(), self.diverged)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on a batch (B, ·); actor and temperature only every `policy_delay` updates."""
        noise = torch.empty(2, *batch.leading, self.spec.action_dim, device=self.device)
        noise.normal_(generator=self.generators["update"])
        return self.step(batch, noise, self.begin_update())

    def losses(
        self, batch: Transition, noise: Tensor, train_actor: bool
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of critic, actor and temperature; noise is (2, B, A)."""
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        alpha = self.temperature().detach().exp()
        target = self.soft_target(batch, next_obs, noise[0], alpha)
        output = self.critic(obs, batch.action)  # (E, B), or logits (E, B, K)
        critic_loss = self.returns.loss(output, target)
        losses = {"critic": critic_loss}
        value, expected = self.returns.value(output), self.returns.expected(target)
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

        With a categorical critic the probabilities of such returns, (B, K).
        """
        next_action, next_log_pi = self.policy(next_obs).rsample_with_log_prob(noise)
        output = self.critic_target(next_obs, next_action)
        return self.returns.target(output, batch, self.settings.gamma, -alpha * next_log_pi)

    def actor_losses(
        self, obs: Tensor, noise: Tensor, alpha: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Actor (eq. 9) and, where it is learned, temperature."""
        parameters = self.actor(obs)
        policy = self.policy_class(*parameters)
        action, log_pi = policy.rsample_with_log_prob(noise)
        value = self.returns.value(self.critic(obs, action))
        actor_loss = (alpha * log_pi - value.amin(0)).mean()
        metrics = {
            "loss/actor": actor_loss.detach(),
            **policy_metrics(log_pi, self.entropy(parameters), action),
        }
        if isinstance(policy, Gaussian):
            metrics |= gaussian_metrics(policy, noise)
        alpha_loss, alpha_metrics = self.temperature_loss(-log_pi.mean(), alpha)
        return {"actor": actor_loss, **alpha_loss}, metrics | alpha_metrics

    @torch.no_grad()
    def entropy(self, parameters: tuple[Tensor, ...]) -> Tensor:
        """For the log alone, and so of a few states: the losses keep the sampled log_pi."""
        return self.policy_class(*(rows[:ENTROPY_STATES] for rows in parameters)).entropy()

    def caution(self) -> str | None:
        """A warning where the entropy of a step, for ever, is worth more than any scaled return."""
        settings = self.settings
        key = "alpha_init" if settings.alpha == "auto" else "alpha"
        alpha = float(getattr(settings, key))
        most = LIMIT * (1.0 - settings.gamma)
        if not settings.atoms or alpha <= most:
            return None
        remedy = f"give at most {at_most(most):g}" if most else "lower agent.gamma, which is 1"
        return (
            f"agent.{key}: {alpha:g} is large beside returns that agent.atoms scales into "
            f"+-{LIMIT:g}; {remedy}"
        )


def require_reachable(target_entropy: float, action_dim: int, settings: SACConfig) -> None:
    """Raises ValueError where no policy of this class has such an entropy: alpha would run away."""
    most = action_dim * largest_entropy(settings.log_std_min, settings.log_std_max)
    if target_entropy > most:
        raise ValueError(
            f"agent.target_entropy: {target_entropy:g} cannot be reached; a squashed Gaussian in "
            f"dimension {action_dim} with agent.log_std_min={settings.log_std_min:g} and "
            f"agent.log_std_max={settings.log_std_max:g} reaches at most {at_most(most):g}; give "
            "less than that"
        )
