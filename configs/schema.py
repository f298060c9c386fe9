"""Every key of the configuration: its type, its range, and what it means.

Defaults live in the YAML files beside this module; what is written here once is checked everywhere.
Configuration is data: a name resolves through a registry, nothing is imported or executed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from common.errors import ConfigError
from configs.agents import AGENT_GROUPS, AgentConfig, OffPolicyConfig
from configs.validate import Auto, Group, check_plain, key, show

WRAPPERS = (
    "around each copy, the innermost first: a name of gymnasium.wrappers or module:Class, or with "
    "arguments {name: NAME, ARGUMENT: VALUE}; last ActionMask: only permitted actions are taken"
)
MASKING = "ActionMask"  # of this project, see envs/masks.py
KEPT = {  # a wrapper that keeps statistics, which no copy of it would have -> what to use
    "NormalizeObservation": "agent.normalise_obs=true",
    "NormalizeReward": "agent.reward_scale=auto",
}
Acceleration = Literal["auto", "none", "compile", "cudagraph"]


Wrapper = str | dict[str, Any]
Wrappers = Sequence[Wrapper]


def named(wrapper: Wrapper) -> tuple[str, dict[str, Any]]:
    """(name, arguments) of one of `env.wrappers`."""
    if isinstance(wrapper, str):
        return wrapper, {}
    return str(wrapper.get("name", "")), {key: wrapper[key] for key in wrapper if key != "name"}


def check_wrappers(env: "EnvConfig | PlayedConfig") -> None:
    """Raises ConfigError where a wrapper has no name, or keeps statistics."""
    for wrapper in env.wrappers:
        name, arguments = named(wrapper)
        module, _, last = name.rpartition(":")
        whole = all(part.isidentifier() for part in [*filter(None, module.split(".")), last])
        remedy = "give NAME, module:Class, or {name: NAME, ARGUMENT: VALUE}"
        env.require(whole, "wrappers", f"{show(wrapper)} has no name", remedy)
        check_plain(arguments, f"wrappers.{name}")
        if last in KEPT:
            why = f"{last} keeps statistics that an evaluation, a copy or a file would not have"
            raise ConfigError(f"wrappers: {why}; use {KEPT[last]} in its place")
        if name == MASKING and wrapper is not env.wrappers[-1]:
            why = f"a wrapper around {MASKING} would take the mask for an observation"
            raise ConfigError(f"wrappers: {why}; name it last")


@dataclass(frozen=True)
class EnvConfig(Group):
    id: str = key("Gymnasium id; a module to import may stand before a colon, module:Id-v0")
    num_envs: int | Auto = key("copies at once; auto: 8 on-policy, 1 off-policy", ge=1, le=65536)
    vectorization: Literal["auto", "native", "sync", "async"] = key(
        "auto: native for CartPole-v1 and Pendulum-v1, else sync; async: one process a copy"
    )
    kwargs: dict[str, Any] = key("arguments of the environment")
    wrappers: list[Wrapper] = key(WRAPPERS, before=())
    timeout: float = key("seconds for async copies to step or reset", gt=0, le=1_000_000)

    def check(self) -> None:
        check_wrappers(self)
        if self.vectorization == "native" and self.wrappers not in ([], [MASKING]):
            raise ConfigError("vectorization: native copies take no wrappers; use sync or async")


@dataclass(frozen=True)
class LogConfig(Group):
    every: int | Auto = key(
        "environment steps between lines; auto: 1 % of the run, at least 50", ge=1
    )


@dataclass(frozen=True)
class EvalConfig(Group):
    every: int | Auto = key("environment steps between evaluations; auto: 10 % of the run", ge=1)
    episodes: int = key("episodes per evaluation; 0: no evaluations", ge=0, le=1_000_000)
    max_length: int | Auto = key(
        "an episode is cut here; auto: max_episode_steps or 10,000", ge=1, le=10**9, before=30_000
    )
    stop_at: float | None = key(
        "the run is saved and ends when an evaluation reaches this return; null: never", before=None
    )
    stop_after: int = key("evaluations in a row that reach eval.stop_at", ge=1, before=1)
    patience: int | None = key(
        "the run is saved and ends after so many evaluations without a new best", ge=1, before=None
    )

    def check(self) -> None:
        for name in ("stop_at", "patience"):
            evaluated = self.episodes > 0 or getattr(self, name) is None
            remedy = "leave it out, or raise eval.episodes"
            self.require(evaluated, name, "with eval.episodes=0 nothing is evaluated", remedy)


@dataclass(frozen=True)
class CheckpointConfig(Group):
    every: int | Auto = key("environment steps between checkpoints; auto: 10 % of the run", ge=1)
    keep: int = key("newest checkpoints kept, beside the best", ge=1, le=1_000_000)


@dataclass(frozen=True)
class AuditConfig(Group):
    every: int | Auto = key(
        "steps between audits; auto: 25 % of the run, at least 10,000 updates", ge=1
    )


@dataclass(frozen=True)
class TrainConfig(Group):
    """What `train.py` runs."""

    seed: int = key("source of all randomness", ge=0, lt=2**63)
    device: str = key("cpu, cuda or cuda:N")
    total_steps: int = key("environment steps, counted over all environments", ge=1, le=10**12)
    run_dir: str | None = key("null: runs/<env>/<agent>/<date-time>-s<seed>")
    resume: str | None = key("run directory to continue; auto: the run in run_dir, or a new one")
    init: str | None = key("a run whose weights and normaliser a new run begins with", before=None)
    init_checkpoint: str = key("of init: latest, best, or step-<12 digits>", before="latest")
    threads: int | Auto = key(
        "auto: 1 while batch (A2C: 256) x width^2 < 4e6, else cores up to 4", ge=1, le=1024
    )
    accelerate: Acceleration = key(
        "updates as one compiled graph, or one CUDA graph; auto: cudagraph on a GPU, compile from "
        "20,000 updates on (40,000 with agent.policy_delay above 1), else none"
    )
    debug: bool = key("show tracebacks")
    env: EnvConfig = key("the environment")
    agent: AgentConfig = key("the agent")
    log: LogConfig = key("scalars and histograms")
    eval: EvalConfig = key("evaluation on separate environments")
    checkpoint: CheckpointConfig = key("states that can be evaluated and resumed")
    audit: AuditConfig = key("verification of the density")

    VARIANTS: ClassVar[dict[str, dict[str, Any]]] = {"agent": AGENT_GROUPS}

    def check(self) -> None:
        replay = self.agent.buffer_size if isinstance(self.agent, OffPolicyConfig) else math.inf
        if self.env.num_envs != "auto" and self.env.num_envs > replay:
            why = f"is more than agent.buffer_size={replay}"
            raise ConfigError(f"env.num_envs: {why}; enlarge the buffer")
        for name in ("resume", "run_dir", "init"):
            value = getattr(self, name)
            if value is not None and (not value.strip() or set(value) & set("\n\r\0")):
                raise ConfigError(f"{name}: {value!r} is empty or more than a line; name a folder")


@dataclass(frozen=True)
class PlayedConfig(Group):
    id: str | None = key(
        "environment of `policy`; with `run` its id once more, if that names a module"
    )
    kwargs: dict[str, Any] = key("arguments of the environment; with `run`, those to change")
    wrappers: list[Wrapper] = key("wrappers of the environment of `policy`")

    def check(self) -> None:
        check_wrappers(self)


@dataclass(frozen=True)
class EvaluateConfig(Group):
    """What `evaluate.py` runs."""

    run: str | None = key("run directory")
    policy: str | None = key("file of tools/export.py to play in place of a run; needs env=NAME")
    out: str | None = key("folder for evaluation.json and the film; null: that of the run or file")
    episodes: int = key("episodes to play", ge=1, le=10_000_000)
    seed: int = key("of the evaluation, independent of training", ge=0, lt=2**63)
    deterministic: bool = key("take the deterministic action of the policy; false: sample")
    max_length: int | Auto | None = key(
        "an episode is cut here; auto: as eval.max_length; null: as the run has it", ge=1, le=10**9
    )
    checkpoint: str = key("latest, best, or step-<12 digits>")
    video: bool = key("film an episode: an mp4 in the folder `video`, and TensorBoard")
    render: Literal["human"] | None = key("human: play the episodes in a window")
    env: PlayedConfig = key("the environment of `policy`")
    device: str = key("cpu, cuda or cuda:N")
    debug: bool = key("show tracebacks")

    def check(self) -> None:
        if (self.run is None) == (self.policy is None):
            why = "is missing" if self.run is None else "cannot be played together with policy"
            raise ConfigError(f"run: {why}; give run=RUN_DIR, or policy=FILE and env=NAME")
        if self.video and self.render:
            raise ConfigError("video: cannot be filmed with render=human; leave one out")
        for name in ("run", "policy", "out"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise ConfigError(f"{name}: is empty; name a file or folder")
        if self.policy is not None and self.env.id is None:
            raise ConfigError("env: is missing; give env=NAME or env.id=ID")
        if self.run is not None and self.env.wrappers:
            raise ConfigError("env.wrappers: are the run's; leave them out")
        of_runs = {"checkpoint": "latest", "deterministic": True}
        for name, left_out in of_runs.items():
            if self.policy is not None and getattr(self, name) != left_out:
                raise ConfigError(f"{name}: can be chosen for a run, not for a file; leave it out")
