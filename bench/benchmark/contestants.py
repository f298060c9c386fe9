"""What a contestant is, and what its process is told to build; nothing is run here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ACCELERATE = "auto"  # what ours is run with wherever a comparison does not say otherwise
FOREVER = "total_steps=1000000000000"  # no evaluation, checkpoint, audit within what is measured
SAC_LOG_EVERY = 800  # steps; the peers collect theirs every fourth episode of 200 steps
SAC_WARMUP = 400  # steps, the first hundred of them without updates
Spec = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """One contestant: what its process is told to build.

    Of several sides with one name, such as a peer with one and with two threads, the better one
    counts.
    """

    name: str
    spec: Spec
    variant: str = ""


@dataclass(frozen=True)
class Target:
    """What the ratio against one peer has to reach."""

    asked: float
    aim: float


@dataclass(frozen=True)
class Comparison:
    """Sides that are measured in turn.

    Attributes:
        measure: "rates", "costs" or "race", how a side becomes numbers.
        unit: of these numbers.
        lower_is_better: of the numbers, which a race turns around for its ratio: it says how many
            times faster ours is.
        targets: peer -> what the ratio against it has to reach.
    """

    title: str
    measure: str
    unit: str
    sides: tuple[Side, ...]
    targets: Mapping[str, Target]
    lower_is_better: bool = False
    note: str = ""

    @property
    def at_most(self) -> bool:
        """Whether the target is an upper bound."""
        return self.measure == "costs"


def sac_overrides(width: int, batch: int = 256) -> list[str]:
    """Ours with the settings that the peers have, too."""
    return [
        *("env=pendulum", "agent=sac", f"agent.hidden=[{width},{width}]"),
        f"agent.batch_size={batch}",
        *("agent.updates_per_step=1", "agent.policy_delay=1", "agent.lr=3e-4", "agent.tau=0.005"),
        *("agent.buffer_size=1000000", "agent.learning_starts=100"),
    ]


def ours_sac(
    width: int, kind: str = "loop", accelerate: str = ACCELERATE, batch: int = 256
) -> Spec:
    overrides = [
        *sac_overrides(width, batch),
        FOREVER,
        f"accelerate={accelerate}",
        f"log.every={SAC_LOG_EVERY}",
    ]
    return {"kind": kind, "overrides": overrides, "warmup": SAC_WARMUP}


def on_gpu(spec: Spec) -> Spec:
    """The same, ours or a peer, where it learns on a GPU."""
    if "overrides" in spec:
        return {**spec, "overrides": [*spec["overrides"], "device=cuda"]}
    return {**spec, "device": "cuda"}


def peer_sac(library: str, width: int, threads: int, batch: int = 256) -> Spec:
    settings = {"policy_kwargs": {"net_arch": [width, width]}, "batch_size": batch, "train_freq": 1,
                "gradient_steps": 1, "learning_rate": 3e-4, "tau": 0.005, "gamma": 0.99,
                "buffer_size": 1_000_000, "learning_starts": 100, "ent_coef": "auto"}  # fmt: skip
    if library == "SBX":
        settings["policy_delay"] = 1
    return peer(library, "SAC", "Pendulum-v1", 1, threads, settings)


def peer(
    library: str, algorithm: str, env: str, num_envs: int, threads: int, settings: dict[str, Any]
) -> Spec:
    return {"kind": "peer", "library": library, "algorithm": algorithm, "env": env,
            "num_envs": num_envs, "threads": threads, "device": "cpu", "settings": settings,
            "warmup": SAC_WARMUP if algorithm == "SAC" else 800}  # fmt: skip


def with_threads(name: str, *specs: Spec) -> tuple[Side, ...]:
    return tuple(Side(name, spec, threads_text(spec["threads"])) for spec in specs)


def threads_text(count: int) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"


def race_peer(spec: Spec, **race: Any) -> Spec:
    return {**spec, "kind": "race", **race}
