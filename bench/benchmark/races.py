"""From nothing to a solved task: the wall-clock of whole processes."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.benchmark.contestants import Side, Spec
from bench.benchmark.measure import ROOT, Result, Say, last_line
from common.errors import LogpiError
from configs.compose import quoted

Curve = list[tuple[int, float, float]]  # (environment steps, seconds since the start, mean return)


def race(sides: tuple[Side, ...], seeds: int, say: Say) -> list[Result]:
    """Runs every seed of every side, in turn.

    Returns:
        For each side its name, the seconds to the solution of each seed (None: never), and curves.
    """
    curves: list[list[Curve]] = [[] for _ in sides]
    for seed in range(seeds):
        for side, taken in zip(sides, curves, strict=True):
            say(f"seed {seed} of {side.name}")
            run = ours if side.spec["kind"] == "train" else peer
            taken.append(run(side.spec, seed))
    return [
        {
            "name": side.name,
            "variant": side.variant,
            "values": [solved(curve, side.spec["at_least"], side.spec["hold"]) for curve in taken],
            "curves": taken,
        }
        for side, taken in zip(sides, curves, strict=True)
    ]


def solved(curve: Curve, at_least: float, hold: int) -> float | None:
    """Seconds to the first evaluation that reaches `at_least` as do the next `hold`, or None."""
    reached = [score >= at_least for _, _, score in curve]
    for index in range(len(curve) - hold):
        if all(reached[index : index + hold + 1]):
            return curve[index][1]
    return None


def ours(spec: Spec, seed: int) -> Curve:
    """The evaluations of one `train.py`, with the time at which its log has them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
        run_dir = Path(folder) / "run"
        started = time.time()
        own = [f"seed={seed}", f"run_dir={quoted(run_dir)}"]
        done = subprocess.run(
            [sys.executable, "train.py", *spec["overrides"], *own],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors,
        )  # fmt: skip
        if done.returncode:
            raise LogpiError(f"bench: train.py failed, {last_line(errors)}; mend it")
        events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
        events.Reload()
        return [
            (event.step, event.wall_time - started, event.value)
            for event in events.Scalars("eval/return_mean")
        ]


def peer(spec: Spec, seed: int) -> Curve:
    """The evaluations of one peer; the seconds that they took are left out."""
    started = time.time()
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "bench.benchmark.races", json.dumps(spec), str(seed)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        if done.returncode:
            raise LogpiError(f"bench: a peer failed, {last_line(errors)}; mend it")
    return [
        (step, at - started, score)
        for step, at, score in map(json.loads, done.stdout.strip().splitlines())
    ]


def run_peer(spec: Spec, seed: int) -> None:
    """Trains one peer until it has solved its task or spent its budget; prints the evaluations.

    Each is a line [steps, time at which training had come so far, mean return].
    """
    from bench.benchmark.peers import make_model

    answers, sys.stdout = sys.stdout, sys.stderr
    model = make_model(spec, seed)
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    judge = make_vec_env(spec["env"], spec["episodes"], seed=10_000 + seed)
    curve: Curve = []
    paused = 0.0

    def evaluate(*_: Any) -> bool:
        """Evaluates when training crosses the next multiple; ends it once the task is solved."""
        nonlocal paused
        step, before = model.num_timesteps, model.num_timesteps - spec["num_envs"]
        if step // spec["every"] == before // spec["every"]:
            return True
        now = time.time()
        score, _ = evaluate_policy(model, judge, spec["episodes"])
        curve.append((step, now - paused, float(score)))
        print(json.dumps(curve[-1]), file=answers, flush=True)
        paused += time.time() - now
        return solved(curve, spec["at_least"], spec["hold"]) is None

    model.learn(spec["budget"], callback=evaluate)


if __name__ == "__main__":
    run_peer(json.loads(sys.argv[1]), int(sys.argv[2]))
