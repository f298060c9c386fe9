"""Every key of the configuration: its type, its range, and what it means.

Defaults live in the YAML files beside this module; what is written here once is checked everywhere.
Configuration is data: a name resolves through a registry, nothing is imported or executed.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from configs.validate import Group

Auto = Literal["auto"]
Policy = Literal[
    "auto", "categorical", "multi_categorical",
    "gaussian", "tanh_gaussian", "full_gaussian", "tanh_full_gaussian",
]  # fmt: skip
Acceleration = Literal["auto", "none", "compile", "cudagraph"]
Activation = Literal["relu", "tanh", "silu", "elu"]


def key(doc: str, **limits: float) -> Any:
    """A field with its meaning and its limits: ge/gt (from below), le/lt (from above)."""
    return field(metadata={"doc": doc, **limits})


@dataclass(frozen=True)
class EnvConfig(Group):
    id: str = key("Gymnasium id; a module to import may stand before a colon, module:Id-v0")
    num_envs: int | Auto = key(
        "copies stepped together; auto: 8 on-policy, 1 off-policy", ge=1, le=65536
    )
    vectorization: Literal["auto", "native", "sync", "async"] = key(
        "auto: native for CartPole-v1, else sync; async: one process a copy"
    )
    kwargs: dict[str, Any] = key("arguments of the environment")
    timeout: float = key("seconds that async copies have to answer a step or a reset", gt=0, le=1e6)


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
    bounded_mean: bool = key(
        "unsquashed Gaussians only: tanh on the mean, so that it stays in [-1, 1]"
    )
    log_std: Literal["state", "parameter"] = key("emitted by the network, or one per dimension")
    log_std_init: float = key("before training", ge=-20, le=20)
    log_std_min: float = key("lower bound", ge=-20, le=20)
    log_std_max: float = key("upper bound", ge=-20, le=20)
    log_std_bound: Literal["clamp", "smooth"] = key(
        "cut at the bounds, or mapped into them by tanh"
    )

    def check(self) -> None:
        self.require(bool(self.hidden), "hidden", "must name at least one layer", "e.g. [64,64]")
        self.require(
            self.log_std_min < self.log_std_max,
            "log_std_min",
            f"{self.log_std_min:g} is not below log_std_max={self.log_std_max:g}",
            "lower it",
        )
        self.require(
            self.log_std_min <= self.log_std_init <= self.log_std_max,
            "log_std_init",
            f"{self.log_std_init:g} is outside [log_std_min, log_std_max]",
            "move it inside",
        )


@dataclass(frozen=True)
class OnPolicyConfig(AgentConfig):
    """Keys of the agents that learn from rollouts."""

    on_policy: ClassVar[bool] = True

    n_steps: int = key("steps of each environment per update", ge=1, le=1_000_000)
    gae_lambda: float = key("1: n-step returns; 0: one-step", ge=0, le=1)
    ent_coef: float = key("weight of the entropy bonus", ge=0, le=1000)
    value_coef: float = key("weight of the value loss", ge=0, le=1000)
    reward_scale: float = key("rewards are multiplied by it before learning", gt=0, le=1e6)
    normalise_advantage: bool = key(
        "zero mean, unit deviation over the rollout; PPO: the minibatch"
    )
    shared_torso: bool = key("actor and critic read one torso")
    detach_critic: bool = key("the critic's gradient stops before the shared torso")
    bounded_value: bool = key("tanh on the value, for returns scaled into [-1, 1]")
    unit_obs: bool = key("scale each observation to length 1")

    def check(self) -> None:
        super().check()
        self.require(
            self.shared_torso or not self.detach_critic,
            "detach_critic",
            "there is no shared torso to detach from",
            "set agent.shared_torso=true too",
        )


@dataclass(frozen=True)
class A2CConfig(OnPolicyConfig):
    pass


@dataclass(frozen=True)
class PPOConfig(OnPolicyConfig):
    batch_size: int = key("steps per minibatch; divides n_steps x env.num_envs", ge=1, le=1_000_000)
    epochs: int = key("passes over each rollout", ge=1, le=10_000)
    clip_range: float = key("how far the ratio may lie from 1", gt=0, le=100)
    clip_schedule: Literal["constant", "linear"] = key("linear: falls with a linear lr_schedule")
    target_kl: float | None = key(
        "a minibatch whose KL is 1.5 times as much ends the passes; null: never", gt=0, le=1000
    )
    recompute_advantage: bool = key("anew before each pass, under the value of then")

    def check(self) -> None:
        super().check()
        self.require(
            self.clip_schedule == "constant" or self.lr_schedule == "linear",
            "clip_schedule",
            "linear follows the learning rate, which is constant",
            "set agent.lr_schedule=linear too",
        )
        self.require(
            self.batch_size > 1 or not self.normalise_advantage,
            "batch_size",
            "a single advantage, normalised, is 0",
            "raise it, or set agent.normalise_advantage=false",
        )


@dataclass(frozen=True)
class OffPolicyConfig(AgentConfig):
    """Keys of the agents that learn from a replay."""

    batch_size: int = key("transitions per update", ge=1, le=1_000_000)
    buffer_size: int = key("transitions kept", ge=1, le=1_000_000_000)
    learning_starts: int = key("steps with uniform actions before the first update", ge=1)
    updates_per_step: float = key("updates per environment step", gt=0, le=1000)
    policy_delay: int = key("updates per update of actor and temperature", ge=1, le=1000)
    tau: float = key("share of the critic that moves into its target", gt=0, le=1)
    critics: int = key("members of the ensemble", ge=1, le=100)
    normalise_critic: bool = key("layer normalisation in the critics")
    alpha: float | Auto = key("weight of the entropy; auto: learned", gt=0, le=1000)
    alpha_init: float = key("where a learned alpha begins", gt=0, le=1000)
    target_entropy: float | Auto = key(
        "nats that a learned alpha aims for; auto: -dim(action), for K discrete actions 0.3 log K"
    )

    def check(self) -> None:
        super().check()
        for name in ("batch_size", "learning_starts"):
            self.require(
                getattr(self, name) <= self.buffer_size,
                name,
                f"{getattr(self, name)} is more than agent.buffer_size={self.buffer_size}",
                "enlarge the buffer",
            )


@dataclass(frozen=True)
class SACConfig(OffPolicyConfig):
    pass


@dataclass(frozen=True)
class SACDiscreteConfig(OffPolicyConfig):
    pass


@dataclass(frozen=True)
class LogConfig(Group):
    every: int | Auto = key("environment steps; auto: 1 % of the run, at least 50", ge=1)


@dataclass(frozen=True)
class EvalConfig(Group):
    every: int | Auto = key("environment steps; auto: 10 % of the run", ge=1)
    episodes: int = key("episodes per evaluation", ge=1, le=1_000_000)


@dataclass(frozen=True)
class CheckpointConfig(Group):
    every: int | Auto = key("environment steps; auto: 10 % of the run", ge=1)
    keep: int = key("newest checkpoints kept, beside the best", ge=1, le=1_000_000)


@dataclass(frozen=True)
class AuditConfig(Group):
    every: int | Auto = key(
        "environment steps; auto: 25 % of the run, at least 10,000 updates", ge=1
    )


AGENT_GROUPS: dict[str, type[AgentConfig]] = {
    "a2c": A2CConfig,
    "ppo": PPOConfig,
    "sac": SACConfig,
    "sac_discrete": SACDiscreteConfig,
}


@dataclass(frozen=True)
class TrainConfig(Group):
    """What `train.py` runs."""

    seed: int = key("everything random derives from it", ge=0, lt=2**63)
    device: str = key("cpu, cuda or cuda:N")
    total_steps: int = key("environment steps, counted over all environments", ge=1, le=10**12)
    run_dir: str | None = key("null: runs/<env>/<agent>/<date-time>-s<seed>")
    resume: str | None = key(
        "run directory to go on with, bit for bit; auto: the run in run_dir, or a new one there"
    )
    threads: int | Auto = key(
        "torch threads; auto: 1 while batch (A2C: 256) x width^2 < 4e6, else cores up to 4",
        ge=1,
        le=1024,
    )
    accelerate: Acceleration = key(
        "updates as one compiled graph, or one CUDA graph; auto: cudagraph on a GPU, compile from "
        "20,000 updates on (40,000 with agent.policy_delay), else none"
    )
    debug: bool = key("show tracebacks")
    env: EnvConfig = key("what is to be solved")
    agent: AgentConfig = key("what learns it")
    log: LogConfig = key("scalars and histograms")
    eval: EvalConfig = key("evaluation on environments that training never sees")
    checkpoint: CheckpointConfig = key("what can be evaluated and resumed")
    audit: AuditConfig = key("verification of the density")

    VARIANTS: ClassVar[dict[str, dict[str, Any]]] = {"agent": AGENT_GROUPS}

    def check(self) -> None:
        if isinstance(self.agent, OffPolicyConfig):
            self.env.require(
                self.env.num_envs == "auto" or self.env.num_envs <= self.agent.buffer_size,
                "num_envs",
                f"{self.env.num_envs} is more than agent.buffer_size={self.agent.buffer_size}",
                "enlarge the buffer",
            )
        for name in ("run_dir", "resume"):
            value = getattr(self, name)
            self.require(
                value is None or not (set(value) & set("=,\n") or not value.strip()),
                name,
                f"{value!r} is empty or contains '=' or ','",
                "choose a plain path",
            )


@dataclass(frozen=True)
class PlayedConfig(Group):
    id: str | None = key("repeats the id of a run whose environment a module registers")


@dataclass(frozen=True)
class EvaluateConfig(Group):
    """What `evaluate.py` runs."""

    run: str = key("run directory")
    episodes: int = key("how many", ge=1, le=10_000_000)
    seed: int = key("of the evaluation, independent of training", ge=0, lt=2**63)
    deterministic: bool = key("take the policy's deterministic action; false: sample")
    checkpoint: str = key("latest, best, or step-<12 digits>")
    video: bool = key("film the first episode; not built yet, refused")
    env: PlayedConfig = key("what it is played in")
    device: str = key("cpu, cuda or cuda:N")
    debug: bool = key("show tracebacks")
