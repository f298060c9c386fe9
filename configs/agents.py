"""Every key of the agents: its type, its range, and what it means."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from common.errors import ConfigError
from configs.validate import Auto, Group, key

Discrete = Literal["categorical", "multi_categorical"]
Continuous = Literal["gaussian", "tanh_gaussian", "full_gaussian", "tanh_full_gaussian"]
Policy = Literal["auto", Discrete, Continuous]
Activation = Literal["relu", "tanh", "silu", "elu"]


@dataclass(frozen=True)
class AgentConfig(Group):
    """Keys that all agents share."""

    on_policy: ClassVar[bool] = False

    name: str = key("chosen by agent=NAME")
    policy: Policy = key("auto: (multi_)categorical for discrete actions, else the agent's own")
    hidden: list[int] = key("units per hidden layer", ge=1, le=65536)
    activation: Activation = key("after each hidden layer")
    lr: float = key("learning rate of Adam", gt=0, le=10)
    lr_schedule: Literal["constant", "linear"] = key("linear: falls to 0 at the end of the run")
    gamma: float = key("discount", ge=0, le=1)
    max_grad_norm: float | None = key("gradients are scaled down to this norm; null: never", gt=0)
    normalise_obs: bool = key("standardise observations by running statistics")
    reward_scale: float | Auto = key(
        "rewards are multiplied by it before learning; auto: divided by the deviation of "
        "discounted returns so far",
        gt=0,
        le=1_000_000,
        before=1.0,
    )

    def check(self) -> None:
        if not self.hidden:
            raise ConfigError("hidden: must name at least one layer; e.g. [64,64]")


@dataclass(frozen=True)
class GaussianConfig(AgentConfig):
    """Keys of the agents that may have a Gaussian policy."""

    bounded_mean: bool = key("unsquashed Gaussians only: tanh on the mean, into [-1, 1]")
    log_std: Literal["state", "parameter"] = key(
        "state: from the network; parameter: one number per dimension"
    )
    log_std_init: float = key("log standard deviation before training", ge=-20, le=20)
    log_std_min: float = key("lower bound of the log standard deviation", ge=-20, le=20)
    log_std_max: float = key("upper bound of the log standard deviation", ge=-20, le=20)
    log_std_bound: Literal["clamp", "smooth"] = key(
        "clamp: cut at the bounds; smooth: mapped by tanh"
    )

    def check(self) -> None:
        super().check()
        if self.log_std_min >= self.log_std_max:
            raise ConfigError(f"log_std_min: must be < log_std_max={self.log_std_max:g}; lower it")
        if not self.log_std_min <= self.log_std_init <= self.log_std_max:
            raise ConfigError("log_std_init: is outside [log_std_min, log_std_max]; move it inside")


@dataclass(frozen=True)
class OnPolicyConfig(GaussianConfig):
    """Keys of the agents that learn from rollouts."""

    on_policy: ClassVar[bool] = True

    adam_eps: float = key(
        "epsilon of Adam: gradients far below it take small steps", gt=0, le=1, before=1e-5
    )
    n_steps: int = key("steps of each environment per update", ge=1, le=1_000_000)
    gae_lambda: float = key("1: n-step returns; 0: one-step", ge=0, le=1)
    ent_coef: float = key("weight of the entropy bonus", ge=0, le=1000)
    value_coef: float = key("weight of the value loss", ge=0, le=1000)
    normalise_advantage: bool = key("mean 0, deviation 1 over the rollout; PPO: the minibatch")
    shared_torso: bool = key("actor and critic read one torso")
    detach_critic: bool = key("the critic's gradient stops before the shared torso")
    bounded_value: bool = key("tanh on the value, for returns scaled into [-1, 1]")
    unit_obs: bool = key("scale each observation to length 1")

    def check(self) -> None:
        super().check()
        if self.detach_critic and not self.shared_torso:
            why = "there is no shared torso to detach from"
            raise ConfigError(f"detach_critic: {why}; set agent.shared_torso=true too")


class A2CConfig(OnPolicyConfig):
    """Of `agent=a2c`."""


@dataclass(frozen=True)
class PPOConfig(OnPolicyConfig):
    """Of `agent=ppo`."""

    batch_size: int = key("steps per minibatch; divides n_steps x env.num_envs", ge=1, le=1_000_000)
    epochs: int = key("passes over each rollout", ge=1, le=10_000)
    clip_range: float = key("how far the ratio may lie from 1", gt=0, le=100)
    clip_schedule: Literal["constant", "linear"] = key("linear: falls with a linear lr_schedule")
    target_kl: float | None = key("the passes end at 1.5 times this; null: never", gt=0, le=1000)
    recompute_advantage: bool = key("again before each pass, with the value of then")

    def check(self) -> None:
        super().check()
        if self.clip_schedule == "linear" and self.lr_schedule == "constant":
            why = "linear follows the learning rate, which is constant"
            raise ConfigError(f"clip_schedule: {why}; set agent.lr_schedule=linear too")
        if self.batch_size == 1 and self.normalise_advantage:
            remedy = "raise it, or set agent.normalise_advantage=false"
            raise ConfigError(f"batch_size: a single advantage, normalised, is 0; {remedy}")


@dataclass(frozen=True)
class OffPolicyConfig(AgentConfig):
    """Keys of the agents that learn from a replay."""

    batch_size: int = key("transitions per update", ge=1, le=1_000_000)
    buffer_size: int = key("transitions kept", ge=1, le=1_000_000_000)
    learning_starts: int = key("steps with uniform actions before the first update", ge=1)
    explore_hold: int = key("steps for which a uniform action is repeated", ge=1, le=1_000)
    updates_per_step: float = key("updates per environment step", gt=0, le=1000)
    policy_delay: int = key("updates per update of actor and temperature", ge=1, le=1000)
    tau: float = key("share of the critic that moves into its target", gt=0, le=1)
    actor_tau: float = key(
        "share of the actor that moves into the average that is evaluated", gt=0, le=1, before=1.0
    )
    critics: int = key("number of critics", ge=1, le=100)
    normalise_critic: bool = key("layer normalisation in the critics")
    alpha: float | Auto = key("weight of the entropy; auto: learned", gt=0, le=1000)
    alpha_init: float = key("where a learned alpha begins", gt=0, le=1000)
    target_entropy: float | Auto = key("nats; auto: -dim(action), of K discrete ones 0.3 log K")

    def check(self) -> None:
        super().check()
        for name in ("batch_size", "learning_starts"):
            if getattr(self, name) > self.buffer_size:
                why = f"is more than agent.buffer_size={self.buffer_size}"
                raise ConfigError(f"{name}: {why}; enlarge the buffer")


@dataclass(frozen=True)
class SACConfig(GaussianConfig, OffPolicyConfig):
    """Of `agent=sac`."""

    atoms: int = key("returns in the critic's distribution; 0: their mean alone", ge=0, le=201)

    def check(self) -> None:
        super().check()
        if self.atoms == 1:
            raise ConfigError("atoms: 1 is no choice of returns; use 0, or 51")
        if self.atoms and self.reward_scale != 1.0:
            why = "agent.atoms has a scale of its own, which undoes any other"
            raise ConfigError(f"reward_scale: {why}; set it to 1, or agent.atoms=0")


class SACDiscreteConfig(OffPolicyConfig):
    """Of `agent=sac_discrete`."""


AGENT_GROUPS: dict[str, type[AgentConfig]] = {
    "a2c": A2CConfig,
    "ppo": PPOConfig,
    "sac": SACConfig,
    "sac_discrete": SACDiscreteConfig,
}
