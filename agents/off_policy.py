"""The base of the soft actor-critics: critics with slow targets, a temperature, exploration."""

import copy
import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from agents.base import BaseAgent, Stream
from agents.optimizer import Losses, Metrics, Optimizer
from configs.agents import OffPolicyConfig
from configs.validate import at_most
from data import Batch, Spec, Transition
from networks.actor_critic import Critic, torso


class OffPolicyAgent(BaseAgent):
    """An actor, an ensemble of critics with targets that follow slowly, and a temperature.

    With `agent.actor_tau` below 1 an average of the actor takes the deterministic actions. The
    losses of an update are all evaluated at the weights before it, then stepped together.
    """

    draws: ClassVar[tuple[int, ...]] = ()  # leading dimensions of an update's noise
    settings: OffPolicyConfig
    losses: Callable[..., tuple[Losses, Metrics]]  # of (batch, noise, train_actor)

    def __init__(
        self, spec: Spec, settings: OffPolicyConfig, stream: Stream, horizon: int, outputs: int
    ) -> None:
        super().__init__(spec, settings, stream, horizon)
        init = stream("init")
        layers = (settings.hidden, settings.activation, init)
        body = torso(spec.obs_dim, *layers, images=spec.images, mask=spec.mask)
        self.actor = self.make_actor(body, init)
        self.critic = Critic(
            settings.critics,
            spec.obs_dim,
            0 if spec.discrete else spec.action_dim,
            *layers,
            settings.normalise_critic,
            spec.images,
            outputs,
            spec.mask,
        )
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        alpha = settings.alpha_init if settings.alpha == "auto" else float(settings.alpha)
        self.temperature = nn.ParameterDict({"log_alpha": torch.tensor(alpha).log()})
        self.modules |= {
            "actor": self.actor,
            "critic": self.critic,
            "critic_target": self.critic_target,
            "temperature": self.temperature,
        }
        averages = [(settings.tau, "critic", "critic_target")]
        if settings.actor_tau < 1.0:
            self.modules["actor_average"] = copy.deepcopy(self.actor).requires_grad_(False)
            averages.append((settings.actor_tau, "actor", "actor_average"))
        weights = {name: list(m.to(self.device).parameters()) for name, m in self.modules.items()}
        self.averages = [(tau, weights[live], weights[slow]) for tau, live, slow in averages]
        groups = {"critic": weights["critic"], "actor": weights["actor"]}
        groups["alpha"] = weights["temperature"]
        self.optimizer = Optimizer(groups, settings.lr, settings.max_grad_norm, self.horizon)

    def explore(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform actions (N, A), new ones every `explore_hold` steps.

        Repeated actions explore further than independent ones: Dabney et al. 2021 (arXiv
        2006.01782), there with random durations.
        """
        if self.explored % self.settings.explore_hold == 0:
            size, generator = (len(obs), self.spec.action_dim), self.generators["act"]
            unit = torch.rand(*size, generator=generator, device=self.device)
            self.held = (unit * 2.0 - 1.0).cpu()
        self.explored += 1
        return self.held, self.held

    def observe(self, transition: Transition) -> None:
        self.learn_statistics(transition.obs)
        self.learn_returns(transition)

    def set_target_entropy(
        self, default: float, least: float, most: float, remedy: str, risky: float = math.inf
    ) -> None:
        """Sets the target entropy, in nats, with a caution if it is above `risky`.

        Raises:
            ValueError: alpha is learned, and no policy reaches it: it is outside [least, most].
        """
        wanted, learned = self.settings.target_entropy, self.settings.alpha == "auto"
        target = self.target_entropy = default if wanted == "auto" else float(wanted)
        if learned and not least <= target <= most:
            raise ValueError(f"agent.target_entropy: {target:g} cannot be reached; {remedy}")
        if learned and target > risky:
            self.caution = (
                f"agent.target_entropy: {target:g} is close to the largest one, the temperature "
                f"may grow without end; give at most {at_most(risky):g}"
            )

    def update(self, batch: Batch) -> Metrics:
        """One step on a batch (B, ·); actor and temperature only every `policy_delay` updates."""
        shape = (*self.draws, len(batch[0]), *self.spec.noise_shape)  # B rows or observations
        noise = torch.empty(shape, device=self.device)
        self.policy_class.fill(noise, self.generators["update"])
        train_actor = self.optimizer.updates % self.settings.policy_delay == 0
        self.optimizer.begin_update()
        return self.step(batch, noise, train_actor)

    def step(self, batch: Batch, noise: Tensor, train_actor: bool) -> Metrics:
        """From weights, batch (B, ·) and noise to new weights: one graph of tensors.

        Steps the groups that have a loss, then the averages (arXiv 1812.05905, algorithm 1).
        """
        rows = batch.read()
        metrics = self.optimizer.minimise(lambda: self.losses(rows, noise, train_actor))
        with torch.no_grad():  # Polyak averaging, and not after divergence
            for tau, live, average in self.averages:
                weight = torch.where(self.optimizer.diverged, 0.0, tau)
                for old, new in zip(average, live, strict=True):
                    old.lerp_(new, weight)
        return metrics

    def temperature_loss(
        self, entropy: Tensor, alpha: Tensor, share: Tensor | float = 1.0
    ) -> tuple[Losses, Metrics]:
        """Loss and metrics of a learned temperature at the policy's entropy, 0-d; none if fixed.

        An entropy below `share` times its target raises alpha: arXiv 1812.05905, eq. 18, with the
        factor log alpha in place of alpha, which has the same root and does not stall near 0.
        `share` is below 1 where a mask permits fewer actions.
        """
        if self.settings.alpha != "auto":
            return {}, {}
        loss = self.temperature["log_alpha"] * (entropy.detach() - self.target_entropy * share)
        target = torch.full_like(alpha, self.target_entropy) * share
        return {"alpha": loss}, {"loss/alpha": loss.detach(), "policy/target_entropy": target}
