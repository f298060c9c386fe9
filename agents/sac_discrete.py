"""Soft actor-critic for discrete actions: Christodoulou 2019 (arXiv 1910.07207)."""

import math

import torch
from torch import Tensor

from agents.base import Stream
from agents.metrics import policy_metrics, value_metrics
from agents.off_policy import OffPolicyAgent
from agents.optimizer import Losses, Metrics
from configs.agents import SACDiscreteConfig
from configs.validate import at_most
from data import Spec, Transition
from policies import Categorical

AUTO = 0.3  # of log K; of two actions the better one is then taken with probability 0.947
RISKY = 0.9  # of log K; policies with more entropy are almost uniform


class SACDiscrete(OffPolicyAgent):
    """SAC with exact expectations over the K actions."""

    policies = ("categorical",)
    settings: SACDiscreteConfig

    def __init__(
        self, spec: Spec, settings: SACDiscreteConfig, stream: Stream, horizon: int
    ) -> None:
        super().__init__(spec, settings, stream, horizon, outputs=spec.action_dim)
        most = math.log(spec.action_dim)
        risky = RISKY * most
        remedy = (
            f"entropies of {spec.action_dim} actions lie between 0 and log {spec.action_dim} = "
            f"{at_most(most):g}; give at most {at_most(risky):g} and not less than 0"
        )
        self.set_target_entropy(AUTO * most, 0.0, most, remedy, risky)

    def losses(self, batch: Transition, noise: Tensor, train_actor: bool) -> tuple[Losses, Metrics]:
        """Losses of critic (eq. 4), actor (eq. 12) and temperature (eq. 11).

        The noise (B, K) draws the actions that are logged; no loss depends on it.
        """
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        alpha = self.temperature["log_alpha"].detach().exp()

        target = self.soft_target(batch, next_obs, alpha)
        values = self.critic(obs)  # (E, B, K)
        taken = batch.action.expand(len(values), -1).unsqueeze(-1)
        value = values.gather(-1, taken).squeeze(-1)  # (E, B)
        critic_loss = 0.5 * (value - target).square().mean(-1).sum()
        metrics = value_metrics(value, target, critic_loss) | {"policy/alpha": alpha}
        if not train_actor:
            return {"critic": critic_loss}, metrics

        (log_probs,) = self.actor(obs)  # (B, K)
        policy, least = Categorical(log_probs), values.detach().amin(0)
        actor_loss = policy.expectation(alpha * log_probs - least).mean()

        entropy, share = policy.entropy(), self.share(log_probs)
        alpha_loss, alpha_metrics = self.temperature_loss(entropy.mean(), alpha, share)

        action, _ = policy.sample(noise)
        metrics |= {
            "loss/actor": actor_loss.detach(),
            **policy_metrics(policy.log_prob(action), entropy, action),
            **alpha_metrics,
        }
        return {"critic": critic_loss, "actor": actor_loss, **alpha_loss}, metrics

    def explore(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform permitted actions (N,), each kept for `explore_hold` steps or until forbidden."""
        generator, count, mask = self.generators["act"], self.spec.action_dim, self.spec.mask
        anew = self.explored % self.settings.explore_hold == 0
        if mask:
            permitted = self.normalizer(obs.to(self.device))[..., -mask:]
            drawn = torch.multinomial(permitted, 1, generator=generator)
            held = drawn if anew else self.held.to(self.device).unsqueeze(-1)
            drawn = torch.where(permitted.gather(-1, held) > 0, held, drawn)
            self.held = drawn.squeeze(-1).cpu()
        elif anew:
            drawn = torch.randint(count, (len(obs),), generator=generator, device=self.device)
            self.held = drawn.cpu()
        self.explored += 1
        return self.held, self.held

    def share(self, log_probs: Tensor) -> Tensor | float:
        """Mean of log(permitted actions) / log K: the factor of a target entropy of K actions."""
        if not self.spec.mask:
            return 1.0
        permitted = (log_probs > -torch.inf).sum(-1)
        return permitted.log().mean() / math.log(self.spec.action_dim)

    @torch.no_grad()
    def soft_target(self, batch: Transition, next_obs: Tensor, alpha: Tensor) -> Tensor:
        """r + gamma (1 - terminated) sum_a pi(a|s') (min_e Q_e(s', a) - alpha log pi(a|s')), (B,).

        Eq. 3 and 10 of arXiv 1910.07207.
        """
        (log_probs,) = self.actor(next_obs)
        soft = self.critic_target(next_obs).amin(0) - alpha * log_probs
        next_value = Categorical(log_probs).expectation(soft)
        reward, gamma = self.scaled(batch.reward), self.settings.gamma
        return reward + gamma * torch.where(batch.terminated, 0.0, next_value)
