"""One contestant in a process of its own: `python -m bench.contestant SPEC`, which is JSON.

Builds, warms up, answers once, and then trains K more steps for every line `run K` on its input;
each answer is a line of JSON. Between two lines it waits and uses no processor time. A peer with a
`budget` trains once, as `learn` describes, and answers once.
"""

import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from time import perf_counter, process_time
from typing import Any, TextIO

Spec = dict[str, Any]
PEERS = {"SB3": "stable_baselines3", "SBX": "sbx", "contrib": "sb3_contrib"}  # their modules
USUAL = {"library": "SB3", "device": "cpu", "num_envs": 1, "kwargs": {}, "normalise": False}
ONE_XLA_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
FOREVER = "total_steps=1000000000000"  # no evaluation, checkpoint, audit within what is measured
UNSEEN = 10_000  # added to the seed of environments that training does not see


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

        class Unsaved(Schedule):
            """Without audits and checkpoints."""

            def audit(self, step: int) -> None: ...

            def checkpoint(self, step: int, final: bool = False) -> None: ...

        config = train_config([*spec["overrides"], FOREVER])
        self.parts = make_parts(config)
        self.about = {"threads": int(config.threads), "accelerate": str(config.accelerate)}
        self.schedule = Unsaved(
            Saver(folder, config, self.parts, started=0.0),
            Logger(folder, device=self.parts.agent.device),
            Progress(config.total_steps),
            Stop(),
        )
        self.step = 0

    def run(self, steps: int) -> dict[str, Any]:
        """Trains at least `steps` more steps; returns how many, and the updates among them."""
        from runtime.loop import advance

        parts, schedule = self.parts, self.schedule
        first, updates = self.step, schedule.record.updates
        while self.step < first + steps:
            self.step = advance(parts.agent, parts.envs, parts.buffer, schedule, self.step)
        return {"steps": self.step - first, "updates": schedule.record.updates - updates}

    def close(self) -> None:
        self.schedule.logger.close()
        self.parts.close()


class Peer:
    """A peer that trains as many steps as asked for; it writes nothing."""

    def __init__(self, spec: Spec) -> None:
        self.model = make_model(spec, 0)
        self.about = {"threads": spec["threads"]}
        # Collecting the metrics: every fourth episode (SAC), every hundredth rollout (A2C, whose
        # own `learn` has that default).
        self.interval = 4 if spec["algorithm"] == "SAC" else 100

    def run(self, steps: int) -> dict[str, Any]:
        model = self.model
        first, updates = model.num_timesteps, model._n_updates
        model.learn(steps, log_interval=self.interval, reset_num_timesteps=False)
        return {"steps": model.num_timesteps - first, "updates": model._n_updates - updates}

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

    Returns the curve, (step, mean return) each; the returns of the last episodes, `final_episodes`
    of them; and the seconds that these took.
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
    return {"curve": curve, "returns": returns, "seconds": perf_counter() - started}


def serve(spec: Spec, questions: TextIO, answers: TextIO, folder: Path) -> None:
    """Answers until the input ends."""

    def answer(values: dict[str, Any]) -> None:
        print(json.dumps(values), file=answers, flush=True)

    runner = Loop(spec, folder) if "overrides" in spec else Peer(spec)
    try:
        half = spec["warmup"] // 2
        runner.run(spec["warmup"] - half)
        done, seconds, _ = timed(runner, half)
        answer({**runner.about, "steps_per_second": done["steps"] / seconds})
        cpu = process_time()
        for question in questions:
            idle = process_time() - cpu
            done, seconds, busy = timed(runner, int(question.removeprefix("run ")))
            answer({**done, "seconds": seconds, "cpu": busy, "idle_cpu": idle})
            cpu = process_time()
    finally:
        runner.close()


def timed(runner: Loop | Peer, steps: int) -> tuple[dict[str, Any], float, float]:
    """(what the run returned, its seconds, the processor's seconds over all threads)."""
    started, cpu = perf_counter(), process_time()
    done = runner.run(steps)
    return done, perf_counter() - started, process_time() - cpu


def main(arguments: list[str]) -> int:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    spec = USUAL | json.loads(arguments[0])
    if "budget" in spec:
        print(json.dumps(learn(spec)), file=answers)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        serve(spec, sys.stdin, answers, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
