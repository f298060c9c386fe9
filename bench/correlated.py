"""Correlated actions with a known optimum: `python bench/correlated.py` trains SAC with both kinds.

`Correlated-v0` (env.id=bench.correlated:Correlated-v0) has episodes of one step, one observation,
and the reward -x^T P x / 2, x = (a - target) / width, where P is the inverse of a correlation
matrix R. An action with mean `target` and covariance S is worth -tr(P S) / (2 width^2). Which S is
best at a given entropy H = log((2 pi e)^A |S|) / 2, that is at a given v = |S|^(1/A)?

* Full: by the inequality of the means for the eigenvalues of P S, tr(P S) >= A |P S|^(1/A), with
  equality where P S is a multiple of 1. So S = v |P|^(1/A) R, worth -A v |P|^(1/A) / (2 width^2).
* Diagonal: tr(P S) = sum_i P_ii S_ii, and the same inequality for its terms gives S_ii as a
  multiple of 1 / P_ii, worth -A v (prod_i P_ii)^(1/A) / (2 width^2).

Their ratio is (prod_i P_ii / |P|)^(1/A) >= 1 (Hadamard); at A = 2 both P_ii are 1 / (1 - rho^2),
which is |P| too, and the diagonal's loss is larger by 1 / sqrt(1 - rho^2). The width keeps actions
within about 0.3, where tanh is the identity to a few per cent and its entropy near the Gaussian's.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.benchmark.calls import FOLDER, NUMBER, SEEDS, door, options, seeds  # noqa: E402
from configs.compose import quoted  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from storage.rundir import make_by_time  # noqa: E402

USAGE = """\
usage: python bench/correlated.py [seeds=FIRST-LAST] [steps=N] [out=FOLDER]
       python bench/correlated.py speed=true
SAC with and without correlated actions, where the reward asks for them; speed=true: what they cost
an update"""
POLICIES = ("tanh_gaussian", "tanh_full_gaussian")
DIMENSIONS, CORRELATION, WIDTH, TARGET = 2, 0.95, 0.25, 0.1
ENTROPY = -4.0  # nats


def precision_matrix(dimensions: int, correlation: float) -> np.ndarray:
    """P: the inverse of the matrix with 1 on its diagonal and `correlation` elsewhere, (A, A)."""
    equal = np.full((dimensions, dimensions), correlation)
    return np.linalg.inv(equal + (1.0 - correlation) * np.eye(dimensions))


def optimum(entropy: float, full: bool) -> float:
    """The best mean reward of a Gaussian of that entropy (nats), with or without correlations."""
    precision = precision_matrix(DIMENSIONS, CORRELATION)
    log_volume = 2.0 * entropy / DIMENSIONS - np.log(2.0 * np.pi * np.e)
    log_scale = (
        np.linalg.slogdet(precision)[1] / DIMENSIONS if full else np.log(np.diag(precision)).mean()
    )
    return float(-0.5 * DIMENSIONS * np.exp(log_volume + log_scale) / WIDTH**2)


class Correlated(gymnasium.Env[np.ndarray, np.ndarray]):
    """One step per episode; the reward falls off quadratically, slowest along (1, ..., 1)."""

    def __init__(
        self,
        dimensions: int = DIMENSIONS,
        correlation: float = CORRELATION,
        width: float = WIDTH,
        target: float = TARGET,
    ) -> None:
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (dimensions,), np.float32)
        self.precision = precision_matrix(dimensions, correlation)
        self.width, self.target = width, target
        self.obs = np.ones(1, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self.obs, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        x = (action.astype(np.float64) - self.target) / self.width
        return self.obs, float(-0.5 * x @ self.precision @ x), True, False, {}


gymnasium.register("Correlated-v0", entry_point="bench.correlated:Correlated")


def main(arguments: list[str]) -> int:
    """Compares what is reached, or with speed=true what it costs; returns the exit code."""
    return tool(USAGE, compare, arguments, bare=True)


def compare(arguments: list[str]) -> int:
    """Prints a line for each policy and seed."""
    given = options(arguments, {"speed": "true|false", "steps": NUMBER, "seeds": SEEDS,
                                "out": FOLDER})  # fmt: skip
    if given.get("speed") == "true":
        return speed()
    out = make_by_time(Path(given.get("out", "runs/correlated")))
    print("| policy | seed | mean reward | s.e. | optimum at the target entropy | entropy | "
          "optimum at this entropy |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for policy in POLICIES:
        for seed in seeds(given.get("seeds", "0")):
            row(policy, seed, given.get("steps", "8000"), out / f"{policy}-s{seed}")
    return 0


def row(policy: str, seed: int, steps: str, run_dir: Path) -> None:
    """Trains one seed, evaluates sampled actions, prints a line of the table."""
    import torch

    import policies

    run, full = quoted(run_dir.absolute()), policy == "tanh_full_gaussian"
    door("train.py", "env.id=bench.correlated:Correlated-v0", "agent=sac", f"seed={seed}",
         f"agent.policy={policy}", f"agent.target_entropy={ENTROPY}", f"total_steps={steps}",
         "agent.hidden=[64,64]", "agent.lr=0.003", "agent.lr_schedule=linear",
         "agent.learning_starts=1000", "agent.alpha_init=0.1", "eval.episodes=1",
         f"run_dir={run}")  # fmt: skip
    door("evaluate.py", f"run={run}", "episodes=8000", "deterministic=false", "seed=1")
    measured = json.loads((run_dir / "evaluation.json").read_text())
    with torch.no_grad():
        entropy = float(policies.load(run_dir).agent.policy(torch.ones(1, 1)).entropy())
    print(f"| {policy} | {seed} | {measured['return_mean']:.4f} | {measured['return_sem']:.4f} | "
          f"{optimum(ENTROPY, full):.4f} | {entropy:.3f} | {optimum(entropy, full):.4f} |",
          flush=True)  # fmt: skip


def speed(updates: int = 200) -> int:
    """SAC's updates/s at 6 action dimensions, batch 256: medians over alternating updates."""
    import torch

    from agents import make_agent
    from common.seeding import stream
    from configs.compose import train_config
    from data import Spec, Transition

    generator = torch.Generator().manual_seed(0)
    obs, next_obs = torch.randn(2, 256, 17, generator=generator)
    action = torch.tanh(torch.randn(256, 6, generator=generator))
    ends = torch.zeros(256, dtype=torch.bool)
    batch = Transition(obs, action, action[:, 0], next_obs, ends, ends)
    print(f"| hidden | threads | {' | '.join(POLICIES)} | time |\n|---|---|---|---|---|")
    for hidden in ("[256,256]", "[64,64]"):
        learners = []
        for policy in POLICIES:
            config = train_config(["agent=sac", "env.id=Any-v0", f"agent.hidden={hidden}",
                                   f"agent.policy={policy}"])  # fmt: skip
            torch.set_num_threads(int(config.threads))
            spec = Spec(17, 6, discrete=False)
            learners.append(make_agent(spec, config.agent, lambda name: stream(0, name), 1))
        seconds: list[list[float]] = [[], []]
        for turn in range(updates + 20):
            for learner, taken in zip(learners, seconds, strict=True):
                started = time.perf_counter()
                learner.update(batch)
                if turn >= 20:  # before that it warms up
                    taken.append(time.perf_counter() - started)
        diagonal, full = map(statistics.median, seconds)
        print(f"| {hidden} | {torch.get_num_threads()} | {1 / diagonal:.0f}/s | {1 / full:.0f}/s | "
              f"{full / diagonal - 1:+.1%} |", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
