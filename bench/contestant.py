"""One contestant in a process of its own: `python -m bench.contestant SPEC`, which is JSON.

Answers with a line of JSON: a peer with a `budget` what `learn` returns, any other what `trained`
does.
"""

import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import fmean, stdev
from time import perf_counter, process_time
from typing import Any

Spec = dict[str, Any]  # what a process is given
PEERS = {"SB3": "stable_baselines3", "SBX": "sbx", "contrib": "sb3_contrib"}  # their modules
USUAL = {"library": "SB3", "device": "cpu", "num_envs": 1, "kwargs": {}, "normalise": False}
ONE_XLA_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
FOREVER = "total_steps=1000000000000"  # no evaluation, checkpoint, audit within what is measured
UNSEEN = 10_000  # added to the seed of environments that training does not see


def threads_text(count: Any) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


class Loop:
    """Our training loop with its logger, in a folder of its own; evaluates and saves nothing."""

    def __init__(self, spec: Spec, folder: Path) -> None:
        from configs.compose import train_config
        from runtime.build import make_parts
        from runtime.console import Progress
        from runtime.launch.signals import Stop
        from runtime.logger import Logger
        from runtime.saver import Saver
        from runtime.schedule import Schedule

        config = train_config([*spec["overrides"], FOREVER])
        self.parts = make_parts(config)
        settings = f"{threads_text(config.threads)}, accelerate={config.accelerate}"
        self.about = {"variant": settings}
        self.schedule = Schedule(
            Saver(folder, config, self.parts, started=0.0),
            Logger(folder, device=self.parts.agent.device),
            Progress(config.total_steps),
            Stop(),
        )
        self.step = 0

    def run(self, steps: int) -> int:
        """Trains at least `steps` more steps; returns how many."""
        from runtime.loop import advance

        parts, first = self.parts, self.step
        while self.step < first + steps:
            self.step = advance(parts.agent, parts.envs, parts.buffer, self.schedule, self.step)
        return self.step - first

    def close(self) -> None:
        self.schedule.logger.close()
        self.parts.close()


class Peer:
    """A peer that trains as many steps as asked for; it writes nothing."""

    def __init__(self, spec: Spec) -> None:
        self.model = make_model(spec, 0)
        self.about: dict[str, str] = {}
        # Collecting the metrics: every fourth episode (SAC), every hundredth rollout (A2C, whose
        # own `learn` has that default).
        self.interval = 4 if spec["algorithm"] == "SAC" else 100

    def run(self, steps: int) -> int:
        first = self.model.num_timesteps
        self.model.learn(steps, log_interval=self.interval, reset_num_timesteps=False)
        return int(self.model.num_timesteps - first)

    def close(self) -> None:
        self.model.env.close()


def make_model(spec: Spec, seed: int) -> Any:
    """The peer's algorithm on its environments, on the device and with the threads it is given."""
    if spec["library"] == "SBX":  # read when JAX is imported
        os.environ["JAX_PLATFORMS"] = spec["device"]
        if spec["threads"] == 1:
            os.environ["XLA_FLAGS"] = ONE_XLA_THREAD
    import torch

    torch.set_num_threads(spec["threads"])
    algorithm = getattr(importlib.import_module(PEERS[spec["library"]]), spec["algorithm"])
    settings = {name: schedule(value) for name, value in spec["settings"].items()}
    envs = make_envs(spec, spec["num_envs"], seed, training=True)
    return algorithm("MlpPolicy", envs, device=spec["device"], verbose=0, seed=seed, **settings)


def make_envs(spec: Spec, count: int, seed: int, training: bool) -> Any:
    """The peer's environments; with `normalise` their observations and rewards are scaled."""
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    # The peer's default, "rgb_array", lets LunarLander collect the sparks of its engines for
    # pictures that nobody takes: a step then costs many times as much.
    kwargs = {"render_mode": None, **spec["kwargs"]}
    wrapper = with_masks if spec["library"] == "contrib" else None
    envs = make_vec_env(spec["env"], count, seed=seed, env_kwargs=kwargs, wrapper_class=wrapper)
    if not spec["normalise"]:
        return envs
    gamma = spec["settings"].get("gamma", 0.99)
    return VecNormalize(envs, training=training, norm_reward=training, gamma=gamma)


def with_masks(env: Any) -> Any:
    """The environment with a method `action_masks`, which sb3-contrib asks for the mask."""
    from sb3_contrib.common.wrappers import ActionMasker

    if env.has_wrapper_attr("action_masks"):
        return env
    return ActionMasker(env, lambda env: env.unwrapped.action_mask(env.unwrapped.s))  # Taxi's


def schedule(value: Any) -> Any:
    """`lin_X`, as RL Zoo writes it: X times the share of the run that remains."""
    if not isinstance(value, str) or not value.startswith("lin_"):
        return value
    first = float(value.removeprefix("lin_"))
    return lambda remaining: max(remaining, 0.0) * first  # the last rollout may pass the end


def learn(spec: Spec) -> dict[str, Any]:
    """Trains a peer for its budget, and evaluates it on the way and at the end.

    Returns the curve, (step, mean return) each; the mean return of the last episodes,
    `final_episodes` of them, with its standard error; and the seconds that these took.
    """
    model = make_model(spec, spec["seed"])
    contrib = spec["library"] == "contrib"
    name = "sb3_contrib.common.maskable" if contrib else "stable_baselines3.common"
    evaluate_policy = importlib.import_module(f"{name}.evaluation").evaluate_policy
    judge = make_envs(spec, spec["episodes"], UNSEEN + spec["seed"], training=False)
    curve: list[tuple[int, float]] = []

    def play(episodes: int) -> list[float]:
        if spec["normalise"]:
            judge.obs_rms = model.env.obs_rms
        returns, _ = evaluate_policy(model, judge, episodes, return_episode_rewards=True)
        return [float(value) for value in returns]

    def evaluate(*_: Any) -> bool:
        """Where training crosses the next multiple of `every`; False would end the training."""
        step, before = model.num_timesteps, model.num_timesteps - spec["num_envs"]
        if step // spec["every"] > before // spec["every"]:
            curve.append((step, fmean(play(spec["episodes"]))))
        return True

    model.learn(spec["budget"], callback=evaluate)
    started = perf_counter()
    returns = play(spec["final_episodes"])
    return {
        "return_mean": fmean(returns),
        "return_sem": stdev(returns) / len(returns) ** 0.5,
        "seconds": perf_counter() - started,
        "curve": curve,
    }


def trained(spec: Spec, folder: Path) -> dict[str, Any]:
    """Trains `warmup` steps, and then for about `seconds`; returns steps per second, and cores."""
    runner = Loop(spec, folder) if "overrides" in spec else Peer(spec)
    try:
        half = spec["warmup"] // 2
        runner.run(spec["warmup"] - half)
        rate, _ = timed(runner, half)
        rate, cores = timed(runner, max(1, round(rate * spec.get("seconds", 0.0))))
        return {**runner.about, "rates": rate, "cores": cores}
    finally:
        runner.close()


def timed(runner: Loop | Peer, steps: int) -> tuple[float, float]:
    """(steps per second, seconds of the processor per second, over all threads)."""
    started, cpu = perf_counter(), process_time()
    done = runner.run(steps)
    seconds = perf_counter() - started
    return done / seconds, (process_time() - cpu) / seconds


def main(arguments: list[str]) -> int:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    spec = USUAL | json.loads(arguments[0])
    with tempfile.TemporaryDirectory() as folder:
        answer = learn(spec) if "budget" in spec else trained(spec, Path(folder))
    print(json.dumps(answer), file=answers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
