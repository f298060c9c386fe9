"""The base of all agents: acting, running statistics, and the state that is saved."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from agents.optimizer import Metrics, Optimizer
from common.seeding import restore_generator
from configs.agents import AgentConfig, GaussianConfig
from configs.validate import require_methods
from data import Spec, Transition
from networks.actor_critic import GaussianActor
from networks.discrete import CategoricalActor
from networks.full_gaussian import FullGaussianActor
from networks.layers import Linear
from networks.normalizer import Pixels, ReturnScale, RunningNorm, SomePixels
from policies import POLICIES, Policy

Stream = Callable[[str], torch.Generator]  # name -> that name's own generator
POLICY_METHODS = (  # discrete policies need not define the last one
    *("__init__", "fill", "noise", "sample", "log_prob", "entropy", "deterministic"),
    "rsample_with_log_prob",
)


class BaseAgent:
    """From observations to actions, and from a batch to new weights; no logger, no step counter.

    An algorithm names the `policies` it can use, builds `actor`, `optimizer` and the modules listed
    in `modules`, and defines `losses`, `step` and `update`. `update` draws noise and counts; `step`
    is a pure function of tensors, which may be traced whole and be replaced by its compiled form.

    Args:
        stream: name -> generator; "init" draws the first weights, "act" the actions, "update" the
            noise of updates.
        horizon: updates in the whole run, over which a linear learning rate falls to 0.
    """

    policies: ClassVar[tuple[str, ...]]  # names in POLICIES, the preferred one of each kind first
    settings: AgentConfig
    normalizer: nn.Module
    actor: CategoricalActor | GaussianActor
    optimizer: Optimizer
    step: Callable[..., Metrics]  # (batch, noise and constants ...) -> metrics
    caution: str | None = None  # to print before the run, where a setting is risky
    explore: Callable[[Tensor], tuple[Tensor, Tensor]]  # `act` while a replay warms up

    def __init__(self, spec: Spec, settings: AgentConfig, stream: Stream, horizon: int) -> None:
        self.spec, self.settings = spec, settings
        self.horizon = horizon if settings.lr_schedule == "linear" else None
        fitting = self.fitting(spec.kind)
        if settings.policy not in ("auto", *fitting):
            raise ValueError(
                f"agent.policy: {settings.policy} is not for this agent with {spec.kind} actions; "
                f"use {' or '.join(fitting)}"
            )
        self.policy_class = POLICIES[fitting[0] if settings.policy == "auto" else settings.policy]
        methods = POLICY_METHODS if spec.kind == "continuous" else POLICY_METHODS[:-1]
        require_methods("agent.policy", self.policy_class, Policy, methods)
        self.generators = {name: stream(name) for name in ("act", "update")}
        self.device = self.generators["update"].device
        if settings.normalise_obs and spec.pixels:
            why = "bytes of an image are scaled to [0, 1] anyway"
            raise ValueError(f"agent.normalise_obs: {why}; set it to false")
        self.normalizer = Pixels() if spec.pixels else nn.Identity()  # first layer of all networks
        if settings.normalise_obs:
            self.normalizer = RunningNorm(spec.obs_dim, spec.bytes, spec.mask)
        elif spec.bytes:
            self.normalizer = SomePixels(spec.obs_dim, spec.bytes)
        self.modules: dict[str, nn.Module] = {"normalizer": self.normalizer.to(self.device)}
        self.returns: ReturnScale | None = None  # None: rewards have a constant scale
        if settings.reward_scale == "auto":
            self.modules["returns"] = self.returns = ReturnScale(settings.gamma).to(self.device)
        self.explored, self.held = 0, torch.empty(0)  # steps of uniform actions, the last of them

    @classmethod
    def fitting(cls, kind: str) -> list[str]:
        """The policies for actions of this kind, see `Spec.kind`; `auto` is the first."""
        return [name for name in cls.policies if POLICIES[name].action_kind == kind]

    def make_actor(
        self, torso: nn.Module, generator: torch.Generator, gain: float | None = None
    ) -> CategoricalActor | GaussianActor:
        """The actor of this policy; with a gain its heads are initialised orthogonally."""
        head = partial(Linear, self.settings.hidden[-1], generator=generator, gain=gain)
        if self.spec.discrete:
            choices = self.spec.choices or self.spec.action_dim
            return CategoricalActor(torso, head, choices, self.spec.mask > 0)
        assert isinstance(self.settings, GaussianConfig)
        names = ("log_std", "log_std_init", "log_std_min", "log_std_max", "log_std_bound")
        options: dict[str, Any] = {name: getattr(self.settings, name) for name in names}
        options["bounded_mean"] = self.settings.bounded_mean and not self.policy_class.squashed
        actor = FullGaussianActor if self.policy_class.correlated else GaussianActor
        return actor(torso, head, self.spec.action_dim, **options)

    def update(self, batch: Any) -> Metrics:
        """Learns from a rollout (T, N, ·), or from a batch of `Replay.sample`.

        Returns:
            Detached metrics. 0-d ones are averaged over the log interval (names ending in _min and
            _max: its extremes). Of the last update in it, 1-d ones are shown as histograms, and of
            2-d ones (*, A) the mean of each of the first columns.
        """
        raise NotImplementedError

    @property
    def deterministic_actor(self) -> nn.Module:
        """The actor of deterministic actions, in evaluations and exported files."""
        return self.modules.get("actor_average", self.actor)

    def policy(self, obs: Tensor, features: Tensor | None = None) -> Policy:
        """The policy at normalised observations (*, O); `features` of them, if computed before."""
        return self.policy_class(*self.actor(obs, features))

    @torch.no_grad()
    def parameters(self, obs: Tensor, actor: nn.Module | None = None) -> tuple[Tensor, ...]:
        """Parameters of the policy at raw observations (N, O), from `actor` if one is given."""
        return (actor or self.actor)(self.normalizer(obs.to(self.device)))

    def act(
        self, obs: Tensor, deterministic: bool = False, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """(action, latent) for obs (N, O); both are the action if it is deterministic."""
        if deterministic:
            actor = self.deterministic_actor
            action = self.policy_class(*self.parameters(obs, actor)).deterministic().cpu()
            return action, action
        noise = torch.empty(len(obs), *self.spec.noise_shape, device=self.device)
        self.policy_class.fill(noise, generator or self.generators["act"])
        action, latent = self.draw(obs.to(self.device), noise)
        return action.cpu(), latent.cpu()

    def draw(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(action, latent) for obs (N, O) and noise (N, A) or (N, K): one graph of tensors."""
        with torch.no_grad():
            return self.policy(self.normalizer(obs)).sample(noise)

    def observe(self, transition: Transition) -> None:
        """Updates the statistics of an off-policy agent by a new transition (N, ·)."""

    def learn_statistics(self, obs: Tensor) -> None:
        """Updates running statistics, if any, by new observations (*, O) of all ranks."""
        if isinstance(self.normalizer, RunningNorm):
            rows = self.optimizer.ranks.gather(obs.flatten(0, -2).to(self.device))
            self.normalizer.update(rows, skip=self.optimizer.diverged)

    def learn_returns(self, steps: Transition) -> None:
        """Updates the unit of rewards, if it is learned, by new steps (N,) or (T, N)."""
        if self.returns is not None:
            fields = (steps.reward, steps.terminated.float(), steps.truncated.float())
            rows = torch.stack(fields, -1).to(self.device)  # (N, 3) or (T, N, 3)
            self.returns.update(rows, self.optimizer.ranks.gather, self.optimizer.diverged)

    def scaled(self, reward: Tensor) -> Tensor:
        """Rewards divided by the learned unit, or multiplied by `agent.reward_scale`."""
        scale: Any = self.settings.reward_scale
        return reward * scale if self.returns is None else reward / self.returns.unit

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
        """Restores the modules; ValueError where a weight is not finite."""
        for name, module in self.modules.items():
            for key, tensor in state["modules"][name].items():
                if not torch.isfinite(tensor).all():
                    raise ValueError(f"{name}.{key} is not finite")
            module.load_state_dict(state["modules"][name])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict` that was saved on any device."""
        self.load_weights(state)
        self.optimizer.load_state_dict(state["optimizer"])
        for name, generator in self.generators.items():
            restore_generator(generator, state["generators"][name])
        self.explored, self.held = state["explored"], state["held"]
