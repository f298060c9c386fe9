"""The base of all agents: acting, running statistics, and the state that is saved."""

from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from agents.optimizer import Optimizer
from common.seeding import go_on
from configs.agents import AgentConfig, GaussianConfig
from data import Spec, Transition
from networks import (
    CategoricalActor,
    FullGaussianActor,
    GaussianActor,
    MultiCategoricalActor,
    Pixels,
    RunningNorm,
    SomePixels,
)
from policies import POLICIES, Policy

Stream = Callable[[str], torch.Generator]  # name -> that name's own generator


class BaseAgent:
    """obs -> action, batch -> new weights. Has no configuration tree, logger or count of steps.

    An algorithm names the `policies` it can use, builds `actor`, `optimizer` and the modules listed
    in `modules`, and defines `update` and `step`. `update` draws noise and counts; `step` is a pure
    function of tensors, which may be traced whole and be replaced by its compiled form.

    Args:
        spec: shapes of the environment.
        settings: hyperparameters, documented in `configs/agents.py`.
        stream: name -> generator; "init" draws the first weights, "act" the actions, "update" the
            noise of updates.
        horizon: updates in the whole run, over which `lr_schedule: linear` falls to 0.
    """

    on_policy: ClassVar[bool]
    policies: ClassVar[tuple[str, ...]]  # names in POLICIES, the preferred one of each kind first
    settings: AgentConfig
    actor: nn.Module
    optimizer: Optimizer
    step: Callable[..., dict[str, Tensor]]  # (batch, noise and constants ...) -> metrics

    def __init__(self, spec: Spec, settings: AgentConfig, stream: Stream, horizon: int) -> None:
        self.spec, self.settings = spec, settings
        self.horizon = horizon if settings.lr_schedule == "linear" else None
        self.policy_class = choose_policy(settings.policy, spec, self.policies)
        self.normalizer = make_normalizer(spec, settings.normalise_obs)
        self.generators = {name: stream(name) for name in ("act", "update")}
        self._device = self.generators["update"].device
        self.noise = torch.empty(0)  # of the last action, overwritten by the next
        self.explored, self.held = 0, torch.empty(0)  # uniform steps, and the last such action
        self.modules: dict[str, nn.Module] = {"normalizer": self.normalizer.to(self.device)}

    @classmethod
    def serves(cls, kind: str) -> bool:
        """Whether it has a policy for actions of this kind, see `Spec.kind`."""
        return any(POLICIES[name].action_kind == kind for name in cls.policies)

    def caution(self) -> str | None:
        """A warning to print before the run, where a setting is risky."""
        return None

    def update(self, batch: Any) -> dict[str, Tensor]:
        """Learns from a rollout (T, N, ·), or from a batch of `Replay.sample`.

        Returns:
            Detached metrics. 0-d are averaged over the log interval (names ending in _min, _max by
            that); of the last update in it, 1-d are shown as histograms, 2-d (*, A) as the mean of
            each of the first columns.
        """
        raise NotImplementedError

    @property
    def player(self) -> nn.Module:
        """The actor whose deterministic actions count: in evaluations and in exported files."""
        return self.modules.get("actor_average", self.actor)

    def policy(self, obs: Tensor) -> Policy:
        """The policy at normalised observations (*, O)."""
        return self.policy_class(*as_tuple(self.actor(obs)))

    def act(
        self, obs: Tensor, deterministic: bool = False, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """(action, latent) for obs (N, O), drawn from the agent's generator unless given one.

        A deterministic action was not drawn: it stands in both places.
        """
        obs = obs.to(self.device)
        if deterministic:
            with torch.no_grad():
                parameters = as_tuple(self.player(self.normalizer(obs)))
                action = self.policy_class(*parameters).deterministic()
            return action.cpu(), action.cpu()
        if len(self.noise) != len(obs):
            self.noise = torch.empty(len(obs), *self.spec.noise_shape, device=self.device)
        self.policy_class.fill(self.noise, generator or self.generators["act"])
        action, latent = self.draw(obs, self.noise)
        return action.cpu(), latent.cpu()

    def draw(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(action, latent) for obs (N, O) and noise (N, A) or (N, K): one graph of tensors."""
        with torch.no_grad():
            return self.policy(self.normalizer(obs)).sample(noise)

    def explore(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """(action, latent) while a replay warms up."""
        raise NotImplementedError

    @torch.no_grad()
    def parameters(self, obs: Tensor) -> tuple[Tensor, ...]:
        """The arguments of its policy's class at obs (N, O), without gradients."""
        return as_tuple(self.actor(self.normalizer(obs.to(self.device))))

    def observe(self, transition: Transition) -> None:
        """Updates running statistics by each fresh transition, once.

        On-policy agents take theirs from the rollout, at the end of its update.
        """

    def learn_statistics(self, obs: Tensor) -> None:
        """Updates the normaliser, where there is one, by fresh observations (*, O) of all ranks."""
        if isinstance(self.normalizer, RunningNorm):
            rows = self.optimizer.ranks.gather(obs.flatten(0, -2))
            self.normalizer.update(rows, skip=self.diverged)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._device

    @property
    def diverged(self) -> Tensor:
        """0-d bool: a loss or gradient was not finite; nothing has been committed since."""
        return self.optimizer.diverged

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on: weights, optimiser, counters, generators."""
        return {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "generators": {name: g.get_state() for name, g in self.generators.items()},
            "explored": self.explored,
            "held": self.held,
        }

    def load_weights(self, state: dict[str, Any]) -> None:
        """Restores the modules, whichever device they were saved from.

        Raises:
            ValueError: a weight is not finite.
        """
        for name, module in self.modules.items():
            for key, tensor in state["modules"][name].items():
                if not torch.isfinite(tensor).all():
                    raise ValueError(f"{name}.{key} is not finite")
            module.load_state_dict(state["modules"][name])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.load_weights(state)
        self.optimizer.load_state_dict(state["optimizer"])
        for name, generator in self.generators.items():
            go_on(generator, state["generators"][name])
        self.explored, self.held = state["explored"], state["held"]


def as_tuple(parameters: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The output of an actor, as the arguments of its policy's class."""
    return parameters if isinstance(parameters, tuple) else (parameters,)


def choose_policy(name: str, spec: Spec, allowed: tuple[str, ...]) -> type[Policy]:
    """The policy class of this name, `auto` resolved by the action space.

    Raises:
        ValueError: the agent has no such policy for the action space; choose another, or `auto`.
    """
    fitting = [p for p in allowed if POLICIES[p].action_kind == spec.kind]
    if name == "auto":
        return POLICIES[fitting[0]]
    if name not in fitting:
        raise ValueError(
            f"agent.policy: {name} is not for this agent with {spec.kind} actions; use "
            f"{' or '.join(fitting)}"
        )
    return POLICIES[name]


def make_normalizer(spec: Spec, running: bool) -> nn.Module:
    """The first layer of every network; ValueError where bytes are to be standardised."""
    if running and spec.pixels:
        raise ValueError(
            "agent.normalise_obs: bytes of an image are scaled to [0, 1] anyway; set it to false"
        )
    if running:
        return RunningNorm(spec.obs_dim, spec.bytes)
    if spec.bytes:
        return SomePixels(spec.obs_dim, spec.bytes)
    return Pixels() if spec.pixels else nn.Identity()


def make_actor(
    spec: Spec,
    settings: AgentConfig,
    policy: type[Policy],
    torso: nn.Module,
    generator: torch.Generator,
    orthogonal: bool,
) -> nn.Module:
    """The actor that emits the parameters of the policy which fits the action space."""
    features = settings.hidden[-1]
    if spec.choices:
        return MultiCategoricalActor(torso, features, spec.choices, generator, orthogonal)
    if spec.discrete:
        return CategoricalActor(torso, features, spec.action_dim, generator, orthogonal)
    gaussian = cast(GaussianConfig, settings)
    actor = FullGaussianActor if policy.correlated else GaussianActor
    return actor(
        torso,
        features,
        spec.action_dim,
        generator,
        bounded_mean=gaussian.bounded_mean and not policy.squashed,
        log_std=gaussian.log_std,
        log_std_init=gaussian.log_std_init,
        log_std_min=gaussian.log_std_min,
        log_std_max=gaussian.log_std_max,
        log_std_bound=gaussian.log_std_bound,
        orthogonal=orthogonal,
    )
