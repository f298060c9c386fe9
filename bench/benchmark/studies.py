"""Ours alone: where the time of a step goes, and how cost grows with sizes."""

import statistics
import tempfile
from collections.abc import Iterator

from bench.benchmark.contestants import ACCELERATE, FOREVER, Spec, ours_sac
from bench.benchmark.measure import Result, Say, Worker

PROFILED_STEPS = 800  # of a block, with one log in it
PROFILED_BLOCKS = 5
PROFILED_WIDTHS = (256, 64)
ORDER = ("act", "step: Gymnasium", "step: checks and copies", "observe", "add", "sample", "update",
         "metrics", "log, once per interval", "the loop itself")  # fmt: skip
BATCHES = (32, 64, 128, 256, 512, 1024)
WIDTHS = (32, 64, 128, 256, 512)
ACTIONS = (1, 2, 4, 8, 16, 32)
RULED = ((64, 1), (64, 2), (256, 1), (256, 2))  # (width, threads)
ENVIRONMENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
OBS, ACTIONS_OF = 17, 6  # HalfCheetah's sizes
CHOICES = {  # what may be added to SAC, beside which each is measured
    "layer-normalised critics": ("agent.normalise_critic=true",),
    "running observation statistics": ("agent.normalise_obs=true",),
    "actor every second update": ("agent.policy_delay=2",),
    "an average of the actor": ("agent.actor_tau=0.001",),
    "full covariance": ("agent.policy=tanh_full_gaussian",),
    "a critic of 51 returns": ("agent.atoms=51",),
    "a critic of 101 returns": ("agent.atoms=101",),
    "the tuned pair of HalfCheetah": ("agent.normalise_critic=true", "agent.normalise_obs=true",
                                      "agent.atoms=51"),
    "discrete SAC, as many actions": ("agent=sac_discrete", "env.kwargs.discrete=true"),
}  # fmt: skip
TITLES = {
    "batch": "SAC update, 2×256 units, one action dimension: batch size",
    "width": "SAC update, batch 256, one action dimension: units per layer",
    "actions": "SAC update, batch 256, 2×256 units: action dimensions",
    "environments": "A2C on CartPole, default settings but compiled: environments",
}


def profile(say: Say) -> Result:
    """Microseconds per step in each part of the loop, SAC on Pendulum, {width: {part: ...}}.

    And {width: microseconds} of all around the update, with no other clock; both are medians.
    """
    parts, around = {}, {}
    for width in PROFILED_WIDTHS:
        say(f"profile of 2×{width} units")
        with (
            Worker(ours_sac(width, "profile")) as clocked,
            Worker(ours_sac(width, "around")) as bare,
        ):
            blocks = [(per_step(clocked), per_step(bare)) for _ in range(PROFILED_BLOCKS)]
        parts[str(width)] = {
            name: statistics.median(block.get(name, 0.0) for block, _ in blocks) for name in ORDER
        }
        around[str(width)] = statistics.median(block["the loop itself"] for _, block in blocks)
    return {"steps": PROFILED_BLOCKS * PROFILED_STEPS, "parts": parts, "around": around}


def per_step(worker: Worker) -> dict[str, float]:
    """Microseconds in each part, of one block."""
    done = worker.run(PROFILED_STEPS)
    return {name: 1e6 * spent / done["steps"] for name, spent in done["parts"].items()}


def rule(blocks: int, seconds: float, say: Say) -> Result:
    """What compiling costs and saves: a row of numbers for each width and number of threads.

    Each is [width, threads, eager and compiled updates per second, seconds of a process to its
    first updates: eager, compiled for the first time, compiled before].
    """
    rows = []
    for width, threads in RULED:
        say(f"2×{width} units, {threads} threads")
        rates: dict[str, float] = {}
        starts: list[float] = []
        with tempfile.TemporaryDirectory() as cache:
            for mode in ("none", "compile", "compile"):
                spec = update_spec(width=width, accelerate=mode, threads=threads)
                with Worker(spec, {"TORCHINDUCTOR_CACHE_DIR": cache}) as worker:
                    count = max(1, round(worker.about["steps_per_second"] * seconds))
                    taken = [worker.run(count) for _ in range(blocks)]
                    starts.append(worker.about["warmup"])
                rates[mode] = statistics.median(b["steps"] / b["seconds"] for b in taken)
        rows.append([width, threads, rates["none"], rates["compile"], *starts])
    return {"rows": rows}


def choices(blocks: int, seconds: float, say: Say) -> Result:
    """[name, updates per second, those of plain SAC beside it, median ratio of costs], by choice.

    Rates are medians over blocks that are taken in turn.
    """
    rows = []
    sizes = (f"env.kwargs.obs_dim={OBS}",)
    for name, more in CHOICES.items():
        say(name)
        with (
            Worker(update_spec(actions=ACTIONS_OF, more=sizes)) as plain,
            Worker(update_spec(actions=ACTIONS_OF, more=(*sizes, *more))) as chosen,
        ):
            pairs = []
            for _ in range(blocks):
                pair = []
                for worker in (plain, chosen):
                    count = max(1, round(worker.about["steps_per_second"] * seconds))
                    done = worker.run(count)
                    pair.append(done["steps"] / done["seconds"])
                pairs.append(pair)
        rows.append([
            name,
            statistics.median(rate for _, rate in pairs),
            statistics.median(rate for rate, _ in pairs),
            statistics.median(plain_rate / rate for plain_rate, rate in pairs),
        ])  # fmt: skip
    return {"rows": rows}


def scaling(blocks: int, seconds: float, say: Say) -> Result:
    """{what grows: [[size, median per second, cost in microseconds], ...]}.

    Per second and cost are those of an update, or with `environments` those of one environment's
    step, the updates included.
    """
    grown: dict[str, list[list[float]]] = {name: [] for name in TITLES}
    for name, size, spec in specs():
        say(f"{name} {size}")
        with Worker(spec) as worker:
            count = max(1, round(worker.about["steps_per_second"] * seconds))
            taken = [worker.run(count) for _ in range(blocks)]
        rate = statistics.median(block["steps"] / block["seconds"] for block in taken)
        grown[name].append([size, rate, 1e6 / rate])
    return {"grown": grown}


def specs() -> Iterator[tuple[str, int, Spec]]:
    """(what grows, its size, the contestant)."""
    for batch in BATCHES:
        yield "batch", batch, update_spec(batch=batch)
    for width in WIDTHS:
        yield "width", width, update_spec(width=width)
    for actions in ACTIONS:
        yield "actions", actions, update_spec(actions=actions)
    for count in ENVIRONMENTS:
        overrides = [FOREVER, f"accelerate={ACCELERATE}", f"env.num_envs={count}", "log.every=5000"]
        yield "environments", count, {"kind": "loop", "overrides": overrides, "warmup": 200 * count}


def update_spec(
    batch: int = 256,
    width: int = 256,
    actions: int = 1,
    accelerate: str = ACCELERATE,
    threads: int | str = "auto",
    more: tuple[str, ...] = (),
) -> Spec:
    """SAC's update on an environment that costs nothing."""
    overrides = [
        *("env.id=bench.benchmark.space:Space-v0", f"env.kwargs.action_dim={actions}"),
        *(() if any(key.startswith("agent=") for key in more) else ("agent=sac",)),
        *(f"agent.hidden=[{width},{width}]", f"agent.batch_size={batch}", FOREVER),
        *("agent.learning_starts=100", f"accelerate={accelerate}", "log.every=1000"),
        *(f"threads={threads}", *more),
    ]
    return {"kind": "update", "overrides": overrides, "warmup": 130}
