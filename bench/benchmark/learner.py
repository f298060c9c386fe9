"""Stable-Baselines3 learning one task: `python -m bench.benchmark.learner '{...}' SEED`.

Prints a line [steps, mean return] for every evaluation, and at the end
{"returns": of every last episode, "seconds": that these took}.
"""

import json
import sys
import time
from typing import Any

EVALUATIONS, EPISODES = 20, 20
UNSEEN = 10_000  # added to the seed of environments that training does not see


def run(spec: dict[str, Any], seed: int) -> None:
    """Trains, and evaluates twenty times on the way."""
    answers, sys.stdout = sys.stdout, sys.stderr
    import torch
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize

    from bench.benchmark.peers import schedule

    torch.set_num_threads(spec["threads"])
    import stable_baselines3

    # The peer's default, "rgb_array", lets LunarLander collect the sparks of its engines for
    # pictures that nobody takes: a step then costs many times as much.
    kwargs = {"render_mode": None, **spec["kwargs"]}

    def make(count: int, first: int, training: bool) -> Any:
        envs = make_vec_env(spec["env"], count, seed=first, env_kwargs=kwargs)
        if not spec["normalise"]:
            return envs
        gamma = spec["settings"].get("gamma", 0.99)
        return VecNormalize(envs, training=training, norm_reward=training, gamma=gamma)

    settings = {name: schedule(value) for name, value in spec["settings"].items()}
    envs, judge = make(spec["num_envs"], seed, True), make(EPISODES, UNSEEN + seed, False)
    algorithm = getattr(stable_baselines3, spec["algorithm"])
    model = algorithm("MlpPolicy", envs, device="cpu", seed=seed, **settings)
    every = spec["steps"] // EVALUATIONS

    def play(episodes: int) -> list[float]:
        if spec["normalise"]:
            judge.obs_rms = envs.obs_rms
        returns, _ = evaluate_policy(model, judge, episodes, return_episode_rewards=True)
        return [float(value) for value in returns]

    def evaluate(*_: Any) -> bool:
        step, before = model.num_timesteps, model.num_timesteps - spec["num_envs"]
        if step // every > before // every:
            returns = play(EPISODES)
            print(json.dumps([step, sum(returns) / len(returns)]), file=answers, flush=True)
        return True

    model.learn(spec["steps"], callback=evaluate)
    started = time.perf_counter()
    returns = play(spec["episodes"])
    print(json.dumps({"returns": returns, "seconds": time.perf_counter() - started}), file=answers)


if __name__ == "__main__":
    run(json.loads(sys.argv[1]), int(sys.argv[2]))
