"""One contestant in a process of its own: `python -m bench.contestant '{"kind": ...}' [SEED]`.

Builds, warms up, answers once, and then trains K more steps for every line `run K` on its input;
each answer is a line of JSON. Between two lines it waits and uses no processor time. A peer of kind
"race" or "learn" trains once, as `learn` describes.
"""

import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, TextIO

from bench.comparisons import Spec

PEERS = {"SB3": "stable_baselines3", "SBX": "sbx", "contrib": "sb3_contrib"}  # their modules
ONE_XLA_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
UNSEEN = 10_000  # added to the seed of environments that training does not see


# ours


class Loop:
    """The training loop with its logger, in a folder of its own; evaluates and saves nothing."""

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

        config = train_config(spec["overrides"])
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


class Around(Loop):
    """The same with a clock around the update; a run also returns the seconds of all the rest."""

    def __init__(self, spec: Spec, folder: Path) -> None:
        super().__init__(spec, folder)
        agent, self.updating = self.parts.agent, 0.0
        update = agent.update

        def clocked(batch: Any) -> Any:
            started = perf_counter()
            try:
                return update(batch)
            finally:
                self.updating += perf_counter() - started

        agent.update = clocked  # type: ignore[method-assign]

    def run(self, steps: int) -> dict[str, Any]:
        self.updating, started = 0.0, perf_counter()
        done = super().run(steps)
        return {**done, "around": perf_counter() - started - self.updating}


# peers


class Peer:
    """A peer that trains as many steps as asked for; it writes nothing."""

    def __init__(self, spec: Spec, folder: Path) -> None:
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
    kwargs = {"render_mode": None, **spec.get("kwargs", {})}
    wrapper = with_masks if spec["library"] == "contrib" else None
    envs = make_vec_env(spec["env"], count, seed=seed, env_kwargs=kwargs, wrapper_class=wrapper)
    if not spec.get("normalise"):
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


Curve = list[tuple[int, float, float]]  # (environment steps, seconds or time, mean return)


def solved(curve: Curve, at_least: float, hold: int) -> float | None:
    """Seconds to the first evaluation that reaches `at_least` as do the next `hold`, or None."""
    reached = [score >= at_least for _, _, score in curve]
    held = (n for n in range(len(curve) - hold) if all(reached[n : n + hold + 1]))
    return next((curve[index][1] for index in held), None)


def learn(spec: Spec, seed: int, answers: TextIO) -> None:
    """Trains a peer for its budget, and evaluates it on the way; prints a line for each evaluation.

    Each is [steps, time at which training alone had come so far, mean return]. A race ends once
    `at_least` is reached and held. With `final_episodes` a last line follows, {"returns": of every
    episode of a last evaluation, "seconds": that it took}.
    """
    model = make_model(spec, seed)
    contrib = spec["library"] == "contrib"
    name = "sb3_contrib.common.maskable" if contrib else "stable_baselines3.common"
    evaluate_policy = importlib.import_module(f"{name}.evaluation").evaluate_policy
    judge = make_envs(spec, spec["episodes"], UNSEEN + seed, training=False)
    curve: Curve = []
    paused = 0.0

    def play(episodes: int) -> list[float]:
        if spec.get("normalise"):
            judge.obs_rms = model.env.obs_rms
        returns, _ = evaluate_policy(model, judge, episodes, return_episode_rewards=True)
        return [float(value) for value in returns]

    def evaluate(*_: Any) -> bool:
        """Evaluates when training crosses the next multiple; False ends the training."""
        nonlocal paused
        step, before = model.num_timesteps, model.num_timesteps - spec["num_envs"]
        if step // spec["every"] == before // spec["every"]:
            return True
        now = time.time()
        returns = play(spec["episodes"])
        curve.append((step, now - paused, sum(returns) / len(returns)))
        print(json.dumps(curve[-1]), file=answers, flush=True)
        paused += time.time() - now
        return spec["kind"] == "learn" or solved(curve, spec["at_least"], spec["hold"]) is None

    model.learn(spec["budget"], callback=evaluate)
    if "final_episodes" in spec:
        started = perf_counter()
        last = {"returns": play(spec["final_episodes"]), "seconds": perf_counter() - started}
        print(json.dumps(last), file=answers)


# the process


def serve(spec: Spec, questions: TextIO, answers: TextIO, folder: Path) -> None:
    """Answers until the input ends."""

    def answer(values: dict[str, Any]) -> None:
        print(json.dumps(values), file=answers, flush=True)

    kinds: dict[str, type[Loop | Peer]] = {"peer": Peer, "loop": Loop, "around": Around}
    runner = kinds[spec["kind"]](spec, folder)
    try:
        rate = warm_up(runner, int(spec["warmup"]))
        answer({**runner.about, "steps_per_second": rate})
        cpu = process_time()
        for question in questions:
            idle = process_time() - cpu
            done, seconds, busy = timed(runner, int(question.removeprefix("run ")))
            answer({**done, "seconds": seconds, "cpu": busy, "idle_cpu": idle})
            cpu = process_time()
    finally:
        runner.close()


def warm_up(runner: Loop | Peer, steps: int) -> float:
    """Runs `steps` steps, in two halves; returns the steps per second of the second."""
    if not steps:
        return 0.0
    runner.run(steps - steps // 2)
    done, seconds, _ = timed(runner, steps // 2)
    return float(done["steps"] / seconds)


def timed(runner: Loop | Peer, steps: int) -> tuple[dict[str, Any], float, float]:
    """(what the run returned, its seconds, the processor's seconds over all threads)."""
    started, cpu = perf_counter(), process_time()
    done = runner.run(steps)
    return done, perf_counter() - started, process_time() - cpu


def main(arguments: list[str]) -> int:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    spec = json.loads(arguments[0])
    if spec["kind"] in ("race", "learn"):
        learn(spec, int(arguments[1]), answers)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        serve(spec, sys.stdin, answers, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
