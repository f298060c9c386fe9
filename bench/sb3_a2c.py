"""usage: python bench/sb3_a2c.py [seed=0] [steps=100000] [every=10000]

Stable-Baselines3's A2C on CartPole with its tuned settings, for comparison; needs `.[bench]`.
Prints one line of JSON: its deterministic evaluations
and the seconds of training (evaluations left out) until it first reached 475, and until it stayed.
"""

import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.benchmark.calls import NUMBER, options  # noqa: E402
from common.errors import ConfigError  # noqa: E402
from runtime.launch.door import tool  # noqa: E402


def main(arguments: list[str]) -> int:
    """Trains one seed; returns the exit code."""
    return tool(str(__doc__), learn, arguments, bare=True)


def learn(arguments: list[str]) -> int:
    """Prints what came of it."""
    given = options(arguments, {"seed": r"\d+", "steps": NUMBER, "every": NUMBER})
    usual = {"seed": 0, "steps": 100_000, "every": 10_000}
    seed, steps, every = (int(given.get(name, value)) for name, value in usual.items())
    try:
        import torch
        from stable_baselines3 import A2C
        from stable_baselines3.common.env_util import make_vec_env
        from stable_baselines3.common.evaluation import evaluate_policy
    except ImportError:
        raise ConfigError('stable_baselines3: is not installed; pip install ".[bench]"') from None
    torch.set_num_threads(1)
    model = A2C("MlpPolicy", make_vec_env("CartPole-v1", 8, seed=seed), ent_coef=0.0, seed=seed)
    judge = make_vec_env("CartPole-v1", 20, seed=10_000 + seed)
    curve, seconds, first, stayed = [], 0.0, None, None
    for _ in range(every, steps + 1, every):
        started = time.perf_counter()
        model.learn(every, reset_num_timesteps=False)
        seconds += time.perf_counter() - started
        score = float(evaluate_policy(model, judge, 20)[0])
        curve.append(round(score, 1))
        first = seconds if first is None and score >= 475 else first
        stayed = (seconds if stayed is None else stayed) if score >= 475 else None
    print(
        json.dumps(
            {"seed": seed, "steps": steps, "seconds": seconds, "first_475_seconds": first,
             "stayed_475_seconds": stayed, "evaluations": curve}
        )
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
