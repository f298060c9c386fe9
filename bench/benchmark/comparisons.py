"""Who is measured against whom, with which settings and which targets."""

from dataclasses import replace

from bench.benchmark.contestants import (
    ACCELERATE,
    FOREVER,
    SAC_LOG_EVERY,
    Comparison,
    Side,
    Target,
    on_gpu,
    ours_sac,
    peer,
    peer_sac,
    race_peer,
    sac_overrides,
    with_threads,
)

STEPS_OF_MEMORY = 3000
SQUARE = 1024  # rows and columns of a product that reaches the machine's rate


def sac(width: int, sb3: Target, sbx: Target) -> Comparison:
    sides = (
        Side("ours", ours_sac(width)),
        *with_threads("SB3", *(peer_sac("SB3", width, threads) for threads in (1, 2))),
        *with_threads("SBX", *(peer_sac("SBX", width, threads) for threads in (1, 2))),
    )
    return Comparison(
        f"SAC on Pendulum, 2×{width} units", "rates", "steps/s", sides, {"SB3": sb3, "SBX": sbx},
        note="Environment steps per second of the whole loop after warm-up: one update per step, "
        "batch 256, no policy delay, a replay of 1,000,000, the same learning rates. Ours writes "
        f"TensorBoard events every {SAC_LOG_EVERY} steps, the peers write nothing.",
    )  # fmt: skip


def sac_on_gpu(width: int, batch: int) -> Comparison:
    sides = (
        Side("ours", on_gpu(ours_sac(width, batch=batch))),
        Side("ours, no graph", on_gpu(ours_sac(width, accelerate="none", batch=batch))),
        *with_threads("SB3", on_gpu(peer_sac("SB3", width, 1, batch))),
        *with_threads("SBX", on_gpu(peer_sac("SBX", width, 1, batch))),
    )
    return Comparison(
        f"SAC on Pendulum on a GPU, 2×{width} units, a batch of {batch:,}", "rates", "steps/s",
        sides, {"ours, no graph": Target(1, 2), "SB3": Target(2, 3), "SBX": Target(1, 2)},
        note="As `sac256`, with networks, replay and updates on the GPU.",
    )  # fmt: skip


def ppo_on_gpu() -> Comparison:
    same = ppo_same()
    ours, peer, *_ = same.sides
    sides = (Side("ours", on_gpu(ours.spec)), *with_threads("SB3", on_gpu(peer.spec)))
    return replace(
        same,
        title="PPO on CartPole on a GPU, the same 8 environments and settings",
        sides=sides,
        note="As `ppo-same`, with networks and updates on the GPU.",
    )


def floor(width: int) -> Comparison:
    shape = {"kind": "floor", "batch": 256, "hidden": [width, width], "obs_dim": 3, "action_dim": 1,
             "critics": 2, "warmup": 50}  # fmt: skip
    sides = (
        Side("ours", ours_sac(width, "update")),
        *with_threads("its products", *({**shape, "threads": threads} for threads in (1, 2))),
        *with_threads("matrix rate",
                      *({**shape, "threads": threads, "square": SQUARE} for threads in (1, 2))),
    )  # fmt: skip
    bound = Target(0.45, 0.65)
    return Comparison(
        f"SAC update, 2×{width} units, against its matrix products alone", "rates", "updates/s",
        sides, {"its products": bound, "matrix rate": bound},
        note="\"Its products\" runs every matrix product of one update, forward and backward, and "
        "nothing else: with torch.mm and torch.bmm, in the same shapes, into memory that is there. "
        "(What is compiled chooses other products where those are faster, so this is no strict "
        f"floor.) \"Matrix rate\" multiplies {SQUARE:,}×{SQUARE:,} matrices, by MKL "
        "or, on AMD's AVX-512, oneDNN, counted as updates with as many operations.",
    )  # fmt: skip


def a2c_same() -> Comparison:
    settings = {"n_steps": 5, "learning_rate": 7e-4, "gamma": 0.99, "gae_lambda": 1.0,
                "ent_coef": 0.0, "vf_coef": 0.5, "max_grad_norm": 0.5,
                "policy_kwargs": {"net_arch": [64, 64]}}  # fmt: skip
    overrides = [
        *("env=cartpole", "agent=a2c", "env.num_envs=8", "agent.n_steps=5", "agent.hidden=[64,64]"),
        *("agent.activation=tanh", "agent.lr=7e-4", "agent.lr_schedule=constant"),
        *("agent.gae_lambda=1.0", "agent.normalise_advantage=false", "agent.normalise_obs=false"),
        *("agent.reward_scale=1.0", "agent.ent_coef=0.0", "agent.value_coef=1.0"),
        *("agent.max_grad_norm=0.5", FOREVER, f"accelerate={ACCELERATE}", "log.every=4000"),
    ]
    return Comparison(
        "A2C on CartPole, the same 8 environments and settings", "rates", "steps/s",
        (
            Side("ours", {"kind": "loop", "overrides": overrides, "warmup": 20_000}),
            *with_threads(
                "SB3", *(peer("SB3", "A2C", "CartPole-v1", 8, n, settings) for n in (1, 2))
            ),
        ),
        {"SB3": Target(4, 6)},
        note="Environment steps per second over all copies; the peer steps them in its DummyVecEnv "
        "and descends with RMSprop, its default, ours with Adam. (Its value loss has no factor of "
        "one half, so our coefficient is twice as large.) It collects its metrics every "
        "4,000 steps, and so does ours, into TensorBoard.",
    )  # fmt: skip


def a2c_default() -> Comparison:
    # What the 500,000 steps of the default run choose: no compiling, a log every 1 %.
    overrides = [FOREVER, "accelerate=none", "log.every=5000"]
    return Comparison(
        "A2C on CartPole, our default against SB3's", "rates", "steps/s",
        (
            Side("ours", {"kind": "loop", "overrides": overrides, "warmup": 100_000}),
            *with_threads("SB3", *(peer("SB3", "A2C", "CartPole-v1", 8, n, {}) for n in (1, 2))),
        ),
        {"SB3": Target(12, 25)},
        note="Environment steps per second over all copies: `python train.py` as it is, against "
        "A2C with its defaults in 8 environments.",
    )  # fmt: skip


def ppo_same() -> Comparison:
    settings = {"n_steps": 256, "batch_size": 64, "n_epochs": 10, "learning_rate": 3e-4,
                "gamma": 0.99, "gae_lambda": 0.95, "clip_range": 0.2, "ent_coef": 0.0,
                "vf_coef": 0.5, "max_grad_norm": 0.5,
                "policy_kwargs": {"net_arch": [64, 64]}}  # fmt: skip
    overrides = [
        *("env.id=CartPole-v1", "agent=ppo", "env.num_envs=8", "agent.n_steps=256"),
        *("agent.batch_size=64", "agent.epochs=10", "agent.hidden=[64,64]", "agent.lr=3e-4"),
        *("agent.activation=tanh", "agent.gamma=0.99", "agent.gae_lambda=0.95"),
        *("agent.clip_range=0.2", "agent.ent_coef=0.0", "agent.value_coef=1.0"),
        *("agent.max_grad_norm=0.5", FOREVER, f"accelerate={ACCELERATE}", "log.every=4000"),
    ]
    return Comparison(
        "PPO on CartPole, the same 8 environments and settings", "rates", "steps/s",
        (
            Side("ours", {"kind": "loop", "overrides": overrides, "warmup": 10_000}),
            *with_threads(
                "SB3", *(peer("SB3", "PPO", "CartPole-v1", 8, n, settings) for n in (1, 2))
            ),
        ),
        {"SB3": Target(3, 5)},
        note="Environment steps per second over all copies. The settings are the peer's defaults, "
        "with the 2,048 steps of a rollout taken in 8 environments: 10 passes in minibatches of "
        "64. (Its value loss has no factor of one half, so our coefficient is twice as large.)",
    )  # fmt: skip


def solve_cartpole() -> Comparison:
    ppo = {"n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20,
           "ent_coef": 0.0, "learning_rate": "lin_0.001", "clip_range": "lin_0.2"}  # fmt: skip
    race = {"at_least": 475.0, "hold": 2, "every": 2500, "episodes": 20}
    return Comparison(
        "From nothing to a solved CartPole", "race", "s",
        (
            Side("ours", {"kind": "train", "overrides": [], **race}),
            Side("SB3 A2C", race_peer(peer("SB3", "A2C", "CartPole-v1", 8, 1, {"ent_coef": 0.0}),
                                      **race, budget=500_000)),
            Side("SB3 PPO", race_peer(peer("SB3", "PPO", "CartPole-v1", 8, 1, ppo),
                                      **race, budget=100_000)),
        ),
        {"SB3 A2C": Target(1, 3), "SB3 PPO": Target(1, 3)}, True,
        note="Seconds from the start of the process, imports and all, to the first evaluation (20 "
        "deterministic episodes) with a mean return of at least 475 that the next two hold. Ours "
        "is `python train.py` as it is, which evaluates every 50,000 steps; the peers, many "
        "times slower, are evaluated every 2,500, which is about as often by the clock. (At every "
        "50,000 they would wait for seconds to be looked at.) All run on one thread. What ours "
        "spends on evaluating, logging and saving is counted; what the peers spend on evaluating "
        "is not. Peers run with the settings and the number of steps that RL Zoo tuned; a run that "
        "does not get there within them counts as never.",
    )  # fmt: skip


def solve_pendulum() -> Comparison:
    race = {"at_least": -160.0, "hold": 0, "every": 300, "episodes": 20}
    settings = {"learning_rate": 1e-3}
    return Comparison(
        "From nothing to the first −160 on Pendulum", "race", "s",
        (
            Side("ours", {"kind": "train", "overrides": ["env=pendulum", "agent=sac"], **race}),
            *(
                Side(library, race_peer(peer(library, "SAC", "Pendulum-v1", 1, 2, settings),
                                        **race, budget=20_000))
                for library in ("SB3", "SBX")
            ),
        ),
        {"SB3": Target(1, 3), "SBX": Target(1, 3)}, True,
        note="Seconds from the start of the process, imports and all, to the first evaluation (20 "
        "deterministic episodes, every 300 steps on all sides) with a mean return of at least "
        "−160. What ours spends on evaluating, logging and saving is counted; what the peers spend "
        "on evaluating is not. Ours is the tuned pair, 2×64 units on one thread; peers run with "
        "the settings that RL Zoo tuned (a learning rate of 1e-3, else their defaults, 2×256 "
        "units), on two, for at most 20,000 steps. No later evaluation has to hold it, on any "
        "side.",
    )  # fmt: skip


def memory() -> Comparison:
    run = [*sac_overrides(256), f"total_steps={STEPS_OF_MEMORY}", "accelerate=none", "threads=1"]
    return Comparison(
        f"Peak memory of a SAC run of {STEPS_OF_MEMORY:,} steps, 2×256 units", "costs", "MiB",
        (
            Side("ours", {"kind": "train", "overrides": run, "cost": "memory"}),
            Side("SB3", {**peer_sac("SB3", 256, 1), "cost": "memory", "warmup": 0,
                         "steps": STEPS_OF_MEMORY}),
        ),
        {"SB3": Target(1.0, 0.8)}, True,
        note="Peak resident memory of the process, as the system counts it for the finished child. "
        "Both keep a replay of 1,000,000 transitions, of which the run fills 3,000. Ours is "
        "`train.py` with its evaluations, audit, checkpoints and TensorBoard; the peer only "
        "trains.",
    )  # fmt: skip


def startup() -> Comparison:
    return Comparison(
        "Start-up: `python train.py --help` against `import stable_baselines3`", "costs", "s",
        (
            Side("ours", {"command": ["train.py", "--help"], "cost": "seconds"}),
            Side("SB3", {"command": ["-c", "import stable_baselines3"], "cost": "seconds"}),
        ),
        {"SB3": Target(0.5, 0.25)}, True,
        note="Seconds of the whole process.",
    )  # fmt: skip


COMPARISONS: dict[str, Comparison] = {
    "sac256": sac(256, Target(2.0, 3.0), Target(1.5, 2.0)),
    "sac64": sac(64, Target(4.0, 6.0), Target(1.7, 2.5)),
    "sac256-floor": floor(256),
    "a2c-same": a2c_same(),
    "a2c-default": a2c_default(),
    "ppo-same": ppo_same(),
    "memory": memory(),
    "startup": startup(),
    "solve-cartpole": solve_cartpole(),
    "solve-pendulum": solve_pendulum(),
    "sac256-gpu": sac_on_gpu(256, 256),
    "sac1024-gpu": sac_on_gpu(1024, 1024),
    "ppo-gpu": ppo_on_gpu(),
}
ON_GPU = ("sac256-gpu", "sac1024-gpu", "ppo-gpu")  # measured only where they are named
STUDIES = ("profile", "rule", "choices", "scaling")  # of ours alone
NAMES = (*COMPARISONS, *STUDIES)
