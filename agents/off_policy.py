"""The base of the soft actor-critics: critics with slow targets, a temperature, exploration."""

import copy
from collections.abc import Callable
from decimal import ROUND_FLOOR, Context

import torch
from torch import Tensor, nn

from agents.base import BaseAgent, Stream, make_actor
from agents.optimizer import Losses, Metrics, Optimizer
from configs.agents import OffPolicyConfig
from data import Batch, Spec, Transition
from networks import Critic, DiscreteCritic, RunningNorm, torso


class Temperature(nn.Module):
    """log alpha, the logarithm of the entropy's weight."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.tensor(alpha).log())

    def forward(self) -> Tensor:
        return self.log_alpha

    def loss(self, entropy: Tensor, target_entropy: float) -> Tensor:
        """0-d; its gradient raises alpha where the entropy, 0-d, is below its target.

        arXiv 1812.05905, eq. 18, with log alpha in place of alpha as the factor: same root, and no
        stall near 0.
        """
        return self.log_alpha * (entropy.detach() - target_entropy)


class OffPolicyAgent(BaseAgent):
    """An actor, an ensemble of critics with targets that follow slowly, and a temperature.

    The actor may have an average that follows it, too, and acts wherever actions are deterministic.
    The losses of an update are all evaluated at the weights before it, then stepped together: it is
    one function of (weights, batch, noise), and it commits all of them or none.

    Args:
        make_critic: the class of the critics.
        others: as in `BaseAgent`.
    """

    on_policy = False
    settings: OffPolicyConfig
    target_entropy: float  # nats that a learned temperature aims for

    def __init__(
        self,
        spec: Spec,
        settings: OffPolicyConfig,
        stream: Stream,
        horizon: int,
        make_critic: Callable[..., Critic | DiscreteCritic],
    ) -> None:
        super().__init__(spec, settings, stream, horizon)
        init, hidden, activation = stream("init"), settings.hidden, settings.activation
        body = torso(spec.obs_dim, hidden, activation, init, images=spec.images)
        self.actor = make_actor(spec, settings, self.policy_class, body, init, orthogonal=False)
        self.critic = make_critic(
            settings.critics,
            spec.obs_dim,
            spec.action_dim,
            hidden,
            activation,
            init,
            settings.normalise_critic,
            spec.images,
        )
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        alpha = settings.alpha_init if settings.alpha == "auto" else float(settings.alpha)
        self.temperature = Temperature(alpha)
        self.modules |= {
            "actor": self.actor.to(self.device),
            "critic": self.critic.to(self.device),
            "critic_target": self.critic_target.to(self.device),
            "temperature": self.temperature.to(self.device),
        }
        self.optimizer = Optimizer(
            {
                "critic": list(self.critic.parameters()),
                "actor": list(self.actor.parameters()),
                "alpha": list(self.temperature.parameters()),
            },
            settings.lr,
            max_grad_norm=settings.max_grad_norm,
            horizon=self.horizon,
        )
        followers: list[tuple[float, nn.Module, nn.Module]] = [
            (settings.tau, self.critic, self.critic_target)
        ]
        if settings.actor_tau < 1.0:
            self.modules["actor_average"] = copy.deepcopy(self.actor).requires_grad_(False)
            followers.append((settings.actor_tau, self.actor, self.modules["actor_average"]))
        self.followers = [
            (tau, list(live.parameters()), list(average.parameters()))
            for tau, live, average in followers
        ]

    def explore(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform actions (N, A) or (N,), new ones every `explore_hold` steps.

        One that is held gets further than the sum of as many independent ones: Dabney et al. 2021
        (arXiv 2006.01782), there with random durations.
        """
        if self.explored % self.settings.explore_hold == 0:
            self.held = self.uniform(len(obs)).cpu()
        self.explored += 1
        return self.held, self.held

    def uniform(self, count: int) -> Tensor:
        """Independent uniform actions, (N, A) or (N,)."""
        size, generator = self.spec.action_dim, self.generators["act"]
        if self.spec.discrete:
            return torch.randint(size, (count,), generator=generator, device=self.device)
        return torch.rand(count, size, generator=generator, device=self.device) * 2.0 - 1.0

    def observe(self, transition: Transition) -> None:
        """Updates the running statistics by fresh transitions."""
        if isinstance(self.normalizer, RunningNorm):
            self.learn_statistics(transition.obs.to(self.device))

    def begin_update(self) -> bool:
        """Counts an update; whether actor and temperature learn in it: every `policy_delay`-th."""
        train_actor = self.optimizer.updates % self.settings.policy_delay == 0
        self.optimizer.begin_update()
        return train_actor

    def step(self, batch: Batch, noise: Tensor, train_actor: bool) -> Metrics:
        """From weights, batch (B, ·) and noise to new weights: one graph of tensors.

        Steps the groups that have a loss, then the averages (arXiv 1812.05905, algorithm 1).
        """
        rows = batch.read()
        metrics = self.optimizer.minimise(lambda: self.losses(rows, noise, train_actor))
        with torch.no_grad():  # Polyak averaging, and not after divergence
            for tau, live, average in self.followers:
                weight = torch.where(self.diverged, 0.0, tau)
                for old, new in zip(average, live, strict=True):
                    old.lerp_(new, weight)
        return metrics

    def losses(self, batch: Transition, noise: Tensor, train_actor: bool) -> tuple[Losses, Metrics]:
        """Losses of critic, actor and temperature at the present weights, and metrics."""
        raise NotImplementedError

    def temperature_loss(self, entropy: Tensor, alpha: Tensor) -> tuple[Losses, Metrics]:
        """Of a learned temperature, given the policy's entropy, 0-d; empty where it is fixed."""
        if self.settings.alpha != "auto":
            return {}, {}
        loss = self.temperature.loss(entropy, self.target_entropy)
        target = torch.full_like(alpha, self.target_entropy)
        return {"alpha": loss}, {"loss/alpha": loss.detach(), "policy/target_entropy": target}


def at_most(number: float) -> float:
    """The number rounded down to four digits, for a message that names the largest allowed."""
    return float(Context(prec=4, rounding=ROUND_FLOOR).create_decimal(number))
