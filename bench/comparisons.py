"""Who is measured against whom, with which settings and which targets; nothing is run here."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Spec = dict[str, Any]  # what a process builds: the kind of contestant, and its settings
ACCELERATE = "accelerate=auto"  # ours, wherever a comparison does not name another
FOREVER = "total_steps=1000000000000"  # no evaluation, checkpoint, audit within what is measured
SAC_LOG_EVERY = 800  # steps; the peers collect theirs every fourth episode of 200 steps
SAC_WARMUP = 400  # steps, the first hundred of them without updates
STEPS_OF_MEMORY = 3000


@dataclass(frozen=True)
class Side:
    """One contestant.

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
    """Sides that are measured in turn."""

    title: str
    measure: str  # "rates", "costs" or "race": how a side becomes numbers
    unit: str  # of these
    sides: tuple[Side, ...]
    targets: Mapping[str, Target]  # peer -> what the ratio against it has to reach
    note: str = ""

    @property
    def lower_is_better(self) -> bool:
        """Of the numbers; the ratio of a race is turned around: how many times faster ours is."""
        return self.measure != "rates"

    @property
    def at_most(self) -> bool:
        """Whether the target is an upper bound."""
        return self.measure == "costs"


def threads_text(count: int) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"


def loop(overrides: list[str], warmup: int) -> Spec:
    """Our training loop, without an end."""
    return {"kind": "loop", "overrides": [*overrides, FOREVER], "warmup": warmup}


def peer(
    library: str, algorithm: str, env: str, num_envs: int, threads: int, settings: dict[str, Any]
) -> Spec:
    return {
        "kind": "peer",
        "library": library,
        "algorithm": algorithm,
        "env": env,
        "num_envs": num_envs,
        "threads": threads,
        "device": "cpu",
        "settings": settings,
        "warmup": SAC_WARMUP if algorithm == "SAC" else 800,
    }


def peers(name: str, *specs: Spec) -> tuple[Side, ...]:
    return tuple(Side(name, spec, threads_text(spec["threads"])) for spec in specs)


def on_gpu(spec: Spec) -> Spec:
    """The same, ours or a peer, where it learns on a GPU."""
    if "overrides" in spec:
        return {**spec, "overrides": [*spec["overrides"], "device=cuda"]}
    return {**spec, "device": "cuda"}


# SAC


def sac_overrides(width: int, batch: int = 256) -> list[str]:
    """Ours with the settings that the peers have, too."""
    return (
        f"env=pendulum agent=sac env.num_envs=1 agent.hidden=[{width},{width}] "
        f"agent.batch_size={batch} "
        "agent.updates_per_step=1 agent.policy_delay=1 agent.lr=3e-4 agent.tau=0.005 "
        "agent.buffer_size=1000000 agent.learning_starts=100"
    ).split()


def ours_sac(width: int, batch: int = 256, accelerate: str = ACCELERATE) -> Spec:
    overrides = [*sac_overrides(width, batch), accelerate, f"log.every={SAC_LOG_EVERY}"]
    return loop(overrides, SAC_WARMUP)


def peer_sac(library: str, width: int, threads: int, batch: int = 256) -> Spec:
    settings = {
        "policy_kwargs": {"net_arch": [width, width]},
        "batch_size": batch,
        "train_freq": 1,
        "gradient_steps": 1,
        "learning_rate": 3e-4,
        "tau": 0.005,
        "gamma": 0.99,
        "buffer_size": 1_000_000,
        "learning_starts": 100,
        "ent_coef": "auto",
    }
    if library == "SBX":
        settings["policy_delay"] = 1
    return peer(library, "SAC", "Pendulum-v1", 1, threads, settings)


def sac(width: int, sb3: Target, sbx: Target) -> Comparison:
    return Comparison(
        f"SAC on Pendulum, 2×{width} units",
        "rates",
        "steps/s",
        (
            Side("ours", ours_sac(width)),
            *peers("SB3", *(peer_sac("SB3", width, threads) for threads in (1, 2))),
            *peers("SBX", *(peer_sac("SBX", width, threads) for threads in (1, 2))),
        ),
        {"SB3": sb3, "SBX": sbx},
        note="Environment steps per second of the whole loop after warm-up: one update per step, "
        "batch 256, no policy delay, a replay of 1,000,000, the same learning rates. Ours writes "
        f"TensorBoard events every {SAC_LOG_EVERY} steps; the peers write nothing.",
    )


def sac_on_gpu(width: int, batch: int) -> Comparison:
    return Comparison(
        f"SAC on Pendulum on a GPU, 2×{width} units, a batch of {batch:,}",
        "rates",
        "steps/s",
        (
            Side("ours", on_gpu(ours_sac(width, batch))),
            Side("ours, no graph", on_gpu(ours_sac(width, batch, "accelerate=none"))),
            *peers("SB3", on_gpu(peer_sac("SB3", width, 1, batch))),
            *peers("SBX", on_gpu(peer_sac("SBX", width, 1, batch))),
        ),
        {"ours, no graph": Target(1, 2), "SB3": Target(2, 3), "SBX": Target(1, 2)},
        note="As `sac256`, with networks, replay and updates on the GPU.",
    )


def memory() -> Comparison:
    run = [*sac_overrides(256), f"total_steps={STEPS_OF_MEMORY}", "accelerate=none", "threads=1"]
    sb3 = {**peer_sac("SB3", 256, 1), "cost": "memory", "warmup": 0, "steps": STEPS_OF_MEMORY}
    return Comparison(
        f"Peak memory of a SAC run of {STEPS_OF_MEMORY:,} steps, 2×256 units",
        "costs",
        "MiB",
        (Side("ours", {"kind": "train", "overrides": run, "cost": "memory"}), Side("SB3", sb3)),
        {"SB3": Target(1.0, 0.8)},
        note="Peak resident memory, as the system reports it for the finished process. "
        "Both keep a replay of 1,000,000 transitions, of which the run fills 3,000. Ours is "
        "`train.py` with its evaluations, audit, checkpoints and TensorBoard; the peer only "
        "trains.",
    )


# A2C and PPO


def on_cartpole(
    title: str, algorithm: str, ours: Spec, settings: dict[str, Any], target: Target, note: str
) -> Comparison:
    """Ours against Stable-Baselines3's, 8 environments on both sides."""
    theirs = (peer("SB3", algorithm, "CartPole-v1", 8, n, settings) for n in (1, 2))
    sides = (Side("ours", ours), *peers("SB3", *theirs))
    return Comparison(title, "rates", "steps/s", sides, {"SB3": target}, note=note)


A2C_OVERRIDES = (
    "env=cartpole agent=a2c env.num_envs=8 agent.n_steps=5 agent.hidden=[64,64] "
    "agent.activation=tanh agent.lr=7e-4 agent.lr_schedule=constant agent.gae_lambda=1.0 "
    "agent.normalise_advantage=false agent.normalise_obs=false agent.reward_scale=1.0 "
    f"agent.ent_coef=0.0 agent.value_coef=1.0 agent.max_grad_norm=0.5 {ACCELERATE} log.every=4000"
).split()
ON_POLICY = {
    "gamma": 0.99,
    "ent_coef": 0.0,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
    "policy_kwargs": {"net_arch": [64, 64]},
}
A2C_SETTINGS = {"n_steps": 5, "learning_rate": 7e-4, "gae_lambda": 1.0, **ON_POLICY}
A2C_SAME = on_cartpole(
    "A2C on CartPole, the same 8 environments and settings",
    "A2C",
    loop(A2C_OVERRIDES, 20_000),
    A2C_SETTINGS,
    Target(4, 6),
    "Environment steps per second over all copies. The peer uses its DummyVecEnv and RMSprop, "
    "its defaults; ours uses Adam. (Its value loss has no factor of one half, so our "
    "coefficient is twice as large.) Both collect metrics every 4,000 steps, ours into "
    "TensorBoard.",
)
A2C_DEFAULT = on_cartpole(
    "A2C on CartPole, our default against SB3's",
    "A2C",
    # What the 500,000 steps of the default run choose: no compiling, a log every 1 %.
    loop(["accelerate=none", "log.every=5000"], 100_000),
    {},
    Target(12, 25),
    "Environment steps per second over all copies: `python train.py` with its defaults, "
    "against A2C with its defaults in 8 environments.",
)
PPO_OVERRIDES = (
    "env.id=CartPole-v1 agent=ppo env.num_envs=8 agent.n_steps=256 agent.batch_size=64 "
    "agent.epochs=10 agent.hidden=[64,64] agent.lr=3e-4 agent.activation=tanh agent.gamma=0.99 "
    "agent.gae_lambda=0.95 agent.clip_range=0.2 agent.ent_coef=0.0 agent.value_coef=1.0 "
    f"agent.max_grad_norm=0.5 {ACCELERATE} log.every=4000"
).split()
PPO_SETTINGS = {
    **{"n_steps": 256, "batch_size": 64, "n_epochs": 10, "learning_rate": 3e-4},
    **{"gae_lambda": 0.95, "clip_range": 0.2, **ON_POLICY},
}
PPO_SAME = on_cartpole(
    "PPO on CartPole, the same 8 environments and settings",
    "PPO",
    loop(PPO_OVERRIDES, 10_000),
    PPO_SETTINGS,
    Target(3, 5),
    "Environment steps per second over all copies. The settings are the peer's defaults, "
    "with the 2,048 steps of a rollout taken in 8 environments: 10 passes in minibatches of "
    "64. (Its value loss has no factor of one half, so our coefficient is twice as large.)",
)
PPO_ON_GPU = replace(
    PPO_SAME,
    title="PPO on CartPole on a GPU, the same 8 environments and settings",
    sides=tuple(replace(side, spec=on_gpu(side.spec)) for side in PPO_SAME.sides[:2]),
    note="As `ppo-same`, with networks and updates on the GPU.",
)


def on_pendulum(algorithm: str, copies: int, warmup: int, settings: dict[str, Any]) -> Comparison:
    """Ours with its tuned settings, also with its copies one by one, and the peer with the same."""
    run = ["env=pendulum", f"agent={algorithm.lower()}", "accelerate=none", "log.every=4000"]
    sides = (
        Side("ours", loop(run, warmup)),
        Side("ours, copy by copy", loop([*run, "env.vectorization=sync"], warmup)),
        *peers("SB3", peer("SB3", algorithm, "Pendulum-v1", copies, 1, settings)),
    )
    return Comparison(
        f"{algorithm} on Pendulum, {copies} environments, the tuned settings on both sides",
        "rates",
        "steps/s",
        sides,
        {"ours, copy by copy": Target(1, 1.5), "SB3": Target(3, 5)},
        note="Environment steps per second over all copies, not compiled, as in a run of the tuned "
        "length. Ours steps all copies as one array, or, for comparison, one by one; the peer has "
        "its DummyVecEnv.",
    )


TUNED_A2C = {"n_steps": 16, "learning_rate": 5e-3, "gae_lambda": 0.95, "use_rms_prop": False}
TUNED_PPO = {"n_steps": 256, "batch_size": 64, "n_epochs": 10, "learning_rate": 1e-3}
A2C_PENDULUM = {**ON_POLICY, **TUNED_A2C, "gamma": 0.95, "ent_coef": 0.03, "vf_coef": 0.25}
PPO_PENDULUM = {**ON_POLICY, **TUNED_PPO, "gamma": 0.97, "gae_lambda": 0.95, "vf_coef": 0.25}

# Start-up, and races to a solved task

STARTUP = Comparison(
    "Start-up: `python train.py --help` against `import stable_baselines3`",
    "costs",
    "s",
    (
        Side("ours", {"command": ["train.py", "--help"], "cost": "seconds"}),
        Side("SB3", {"command": ["-c", "import stable_baselines3"], "cost": "seconds"}),
    ),
    {"SB3": Target(0.5, 0.25)},
    note="Seconds of the whole process.",
)


def solve_cartpole() -> Comparison:
    ppo = {
        "n_steps": 32,
        "batch_size": 256,
        "gae_lambda": 0.8,
        "gamma": 0.98,
        "n_epochs": 20,
        "ent_coef": 0.0,
        "learning_rate": "lin_0.001",
        "clip_range": "lin_0.2",
    }
    race = {"at_least": 475.0, "hold": 2, "every": 2500, "episodes": 20}
    sb3_a2c = peer("SB3", "A2C", "CartPole-v1", 8, 1, {"ent_coef": 0.0})
    sb3_ppo = peer("SB3", "PPO", "CartPole-v1", 8, 1, ppo)
    return Comparison(
        "From nothing to a solved CartPole",
        "race",
        "s",
        (
            Side("ours", {"kind": "train", "overrides": [], **race}),
            Side("SB3 A2C", {**sb3_a2c, "kind": "race", **race, "budget": 500_000}),
            Side("SB3 PPO", {**sb3_ppo, "kind": "race", **race, "budget": 100_000}),
        ),
        {"SB3 A2C": Target(1, 3), "SB3 PPO": Target(1, 3)},
        note="Seconds from the start of the process, including imports, to the first evaluation "
        "(20 deterministic episodes) with a mean return of at least 475 that is kept in the next "
        "two. Ours is `python train.py` with its defaults, which evaluates every 50,000 steps. The "
        "peers, many times slower, are evaluated every 2,500, which is about the same interval of "
        "time. (With 50,000 steps they would be evaluated seconds late.) All run on one thread. "
        "Our time includes evaluating, logging and saving; that of the peers does not include "
        "evaluating. Peers use the settings and the number of steps tuned by RL Zoo; a run that "
        "does not reach the return within them counts as never.",
    )


def solve_pendulum() -> Comparison:
    race = {"at_least": -160.0, "hold": 0, "every": 300, "episodes": 20}
    sides = [Side("ours", {"kind": "train", "overrides": ["env=pendulum", "agent=sac"], **race})]
    for library in ("SB3", "SBX"):
        spec = peer(library, "SAC", "Pendulum-v1", 1, 2, {"learning_rate": 1e-3})
        sides.append(Side(library, {**spec, "kind": "race", **race, "budget": 20_000}))
    return Comparison(
        "From nothing to the first −160 on Pendulum",
        "race",
        "s",
        tuple(sides),
        {"SB3": Target(1, 3), "SBX": Target(1, 3)},
        note="Seconds from the start of the process, including imports, to the first evaluation "
        "(20 deterministic episodes, every 300 steps on all sides) with a mean return of at least "
        "−160. Our time includes evaluating, logging and saving; that of the peers does not "
        "include evaluating. Ours is the tuned pair, 2×64 units on one thread. Peers use the "
        "settings tuned by RL Zoo (a learning rate of 1e-3, otherwise their defaults, 2×256 "
        "units), on two threads, for at most 20,000 steps. On no side does a later evaluation "
        "have to keep the return.",
    )


COMPARISONS: dict[str, Comparison] = {
    "sac256": sac(256, Target(2.0, 3.0), Target(1.5, 2.0)),
    "sac64": sac(64, Target(4.0, 6.0), Target(1.7, 2.5)),
    "a2c-same": A2C_SAME,
    "a2c-default": A2C_DEFAULT,
    "ppo-same": PPO_SAME,
    "a2c-pendulum": on_pendulum("A2C", 32, 20_000, A2C_PENDULUM),
    "ppo-pendulum": on_pendulum("PPO", 4, 2_048, PPO_PENDULUM),
    "memory": memory(),
    "startup": STARTUP,
    "solve-cartpole": solve_cartpole(),
    "solve-pendulum": solve_pendulum(),
    "sac256-gpu": sac_on_gpu(256, 256),
    "sac1024-gpu": sac_on_gpu(1024, 1024),
    "ppo-gpu": PPO_ON_GPU,
}
ON_GPU = ("sac256-gpu", "sac1024-gpu", "ppo-gpu")  # measured only where they are named
NAMES = (*COMPARISONS, "around")  # the latter of ours alone
