"""What the agents share: acting, observing, and handing over their state."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from agents.optimizer import Optimizer
from common.seeding import go_on
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
from policies import (
    Categorical,
    FullGaussian,
    Gaussian,
    MultiCategorical,
    Policy,
    TanhFullGaussian,
    TanhGaussian,
)

if TYPE_CHECKING:
    from configs.agents import AgentConfig, GaussianConfig

Stream = Callable[[str], torch.Generator]  # name -> that name's own generator

POLICIES: dict[str, type[Any]] = {  # of Policy
    "categorical": Categorical,
    "multi_categorical": MultiCategorical,
    "gaussian": Gaussian,
    "tanh_gaussian": TanhGaussian,
    "full_gaussian": FullGaussian,
    "tanh_full_gaussian": TanhFullGaussian,
}
UNSQUASHED = ("gaussian", "full_gaussian")
FULL = ("full_gaussian", "tanh_full_gaussian")
CONTINUOUS = ("gaussian", "tanh_gaussian", *FULL)
OF_KIND = {"discrete": ("categorical",), "multi_discrete": ("multi_categorical",),
           "continuous": CONTINUOUS}  # fmt: skip


def choose_policy(name: str, spec: Spec, allowed: tuple[str, ...]) -> str:
    """The name of the policy class, `auto` resolved by the action space.

    Raises:
        ValueError: the agent has no such policy for the action space; choose another, or `auto`.
    """
    fitting = [p for p in allowed if p in OF_KIND[spec.kind]]
    if name == "auto":
        return fitting[0]
    if name not in fitting:
        raise ValueError(
            f"agent.policy: {name} is not for this agent with {spec.kind} actions; use "
            f"{' or '.join(fitting)}"
        )
    return name


def make_normalizer(spec: Spec, running: bool) -> nn.Module:
    """What observations go through first; ValueError where bytes are to be standardised."""
    if not running:
        if spec.bytes:
            return SomePixels(spec.obs_dim, spec.bytes)
        return Pixels() if spec.pixels else nn.Identity()
    if spec.pixels:
        raise ValueError(
            "agent.normalise_obs: bytes of an image are scaled to [0, 1] anyway; set it to false"
        )
    return RunningNorm(spec.obs_dim, spec.bytes)


class BaseAgent:
    """An actor, what it learns with, and an optional observation normaliser.

    A subclass names the policies it can use, builds `actor`, `optimizer` and the modules that
    `modules` lists. Its `update` does what is not of tensors (draws noise, counts) and leaves the
    rest to its `step`, which may be traced whole and be replaced by its compiled form.

    Args:
        spec: shapes of the environment.
        settings: hyperparameters, documented in `configs/agents.py`.
        stream: name -> generator; "init" draws the first weights, "act" the actions, "update" the
            noise of updates.
        horizon: updates in the whole run, over which `lr_schedule: linear` falls to 0.
    """

    actor: nn.Module
    optimizer: Optimizer
    on_policy: bool
    serves: tuple[str, ...]  # kinds of action spaces, see `Spec.kind`
    policies: tuple[str, ...]  # names in POLICIES, the preferred one of each space first
    step: Callable[..., dict[str, Tensor]]  # (batch, noise and constants ...) -> metrics
    given: tuple[Any, ...]  # what the last `step` was given
    caution: str | None = None  # what the user should know before the run
    cycle = 1  # updates after which every kind of update has occurred
    hold = 1  # steps for which a uniform action is held

    def __init__(self, spec: Spec, settings: "AgentConfig", stream: Stream, horizon: int) -> None:
        self.spec = spec
        self.horizon = horizon if settings.lr_schedule == "linear" else None
        self.policy_name = choose_policy(settings.policy, spec, self.policies)
        self.policy_class = POLICIES[self.policy_name]
        self.normalizer = make_normalizer(spec, settings.normalise_obs)
        self.generators = {name: stream(name) for name in ("act", "update")}
        self._device = self.generators["update"].device
        self.noise = torch.empty(0)  # of the last action, overwritten by the next
        self.explored, self.held = 0, torch.empty(0)  # uniform steps, and the last such action
        self.modules: dict[str, nn.Module] = {"normalizer": self.normalizer.to(self.device)}

    def update(self, batch: Any) -> dict[str, Tensor]:
        """Learns from a rollout (T, N, ·), or from what `Replay.sample` gave."""
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
        """Uniform actions (N, A) or (N,), new ones every `hold` steps.

        One that is held gets further than the sum of as many independent ones: Dabney et al. 2021
        (arXiv 2006.01782), there with random durations.
        """
        if self.explored % self.hold == 0:
            self.held = self.uniform(len(obs)).cpu()
        self.explored += 1
        return self.held, self.held

    def uniform(self, count: int) -> Tensor:
        """Independent uniform actions, (N, A) or (N,)."""
        size, generator = self.spec.action_dim, self.generators["act"]
        if self.spec.discrete:
            return torch.randint(size, (count,), generator=generator, device=self.device)
        return torch.rand(count, size, generator=generator, device=self.device) * 2.0 - 1.0

    @torch.no_grad()
    def parameters(self, obs: Tensor) -> tuple[Tensor, ...]:
        """What the policy it draws from is made of at obs (N, O): logits, or mean and log_std."""
        return as_tuple(self.actor(self.normalizer(obs.to(self.device))))

    def observe(self, transition: Transition) -> None:
        """An on-policy agent sees each transition once anyway: in the rollout of its update."""
        if not self.on_policy and isinstance(self.normalizer, RunningNorm):
            self.learn_statistics(transition.obs.to(self.device))

    def learn_statistics(self, obs: Tensor) -> None:
        """Takes fresh observations (*, O) of all ranks into the normaliser, where there is one."""
        if isinstance(self.normalizer, RunningNorm):
            rows = self.optimizer.ranks.gather(obs.flatten(0, -2))
            self.normalizer.update(rows, skip=self.diverged)

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def diverged(self) -> Tensor:
        return self.optimizer.diverged

    def state_dict(self) -> dict[str, Any]:
        return {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "generators": {name: g.get_state() for name, g in self.generators.items()},
            "explored": self.explored,
            "held": self.held,
        }

    def load_weights(self, state: dict[str, Any]) -> None:
        """Restores what acting needs, on whatever device it was saved from.

        Raises:
            ValueError: a weight is not finite, which none is that was saved here.
        """
        for name, module in self.modules.items():
            for key, tensor in state["modules"][name].items():
                if not torch.isfinite(tensor).all():
                    raise ValueError(f"{name}.{key} is not finite")
            module.load_state_dict(state["modules"][name])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.load_weights(state)
        self.optimizer.load_state_dict(state["optimizer"])
        for name, generator in self.generators.items():
            go_on(generator, state["generators"][name])
        self.explored, self.held = state["explored"], state["held"]


def as_tuple(parameters: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What an actor emits, as the arguments of its policy's class."""
    return parameters if isinstance(parameters, tuple) else (parameters,)


def make_actor(
    spec: Spec,
    settings: "AgentConfig",
    policy: str,
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
    gaussian = cast("GaussianConfig", settings)
    kind = FullGaussianActor if policy in FULL else GaussianActor
    return kind(
        torso,
        features,
        spec.action_dim,
        generator,
        bounded_mean=gaussian.bounded_mean and policy in UNSQUASHED,
        log_std=gaussian.log_std,
        log_std_init=gaussian.log_std_init,
        log_std_min=gaussian.log_std_min,
        log_std_max=gaussian.log_std_max,
        log_std_bound=gaussian.log_std_bound,
        orthogonal=orthogonal,
    )
