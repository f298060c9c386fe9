"""What is learned beside Stable-Baselines3: the same steps, seeds and evaluation on both sides."""

from dataclasses import dataclass
from typing import Any

from bench.benchmark.contestants import Spec, peer

MUJOCO = 100_000  # steps
CLASSIC, OTHER = 1000, 100  # episodes of the last evaluation


@dataclass(frozen=True)
class Task:
    """One row of the table.

    Attributes:
        overrides: ours, as on the command line of `train.py`.
        steps: of both sides; with PPO a whole number of rollouts.
        at_least: the return asked of the last policy; None:
            more than the peer's median.
        seeds_that_reach: of `seeds`.
        peer: the peer's settings, those of RL Zoo (its `ppo.yml`, `sac.yml`), else its defaults.
    """

    overrides: tuple[str, ...]
    steps: int
    at_least: float | None
    peer: Spec | None
    seeds: int = 10
    seeds_that_reach: int = 10
    episodes: int = CLASSIC
    normalise: bool = False  # the peer's observations and rewards


def zoo(algorithm: str, env: str, num_envs: int, settings: dict[str, Any], **kwargs: Any) -> Spec:
    return {**peer("SB3", algorithm, env, num_envs, 1, settings), "kwargs": kwargs}


LUNAR = {"n_steps": 1024, "batch_size": 64, "gae_lambda": 0.98, "gamma": 0.999, "n_epochs": 4,
         "ent_coef": 0.01}  # fmt: skip
TASKS = {
    "cartpole-ppo": Task(
        ("env=cartpole", "agent=ppo"), 50_176, 475.0,
        zoo("PPO", "CartPole-v1", 8, {"n_steps": 32, "batch_size": 256, "gae_lambda": 0.8,
            "gamma": 0.98, "n_epochs": 20, "learning_rate": "lin_0.001",
            "clip_range": "lin_0.2"}),
    ),
    "cartpole-sac_discrete": Task(
        ("env=cartpole", "agent=sac_discrete"), 20_000, 475.0,
        zoo("DQN", "CartPole-v1", 1, {"learning_rate": 2.3e-3, "batch_size": 64,
            "buffer_size": 100_000, "learning_starts": 1000, "gamma": 0.99,
            "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128,
            "exploration_fraction": 0.16, "exploration_final_eps": 0.04,
            "policy_kwargs": {"net_arch": [256, 256]}}),
    ),
    "pendulum-ppo": Task(
        ("env=pendulum", "agent=ppo"), 49_152, -170.0,
        zoo("PPO", "Pendulum-v1", 4, {"n_steps": 1024, "gae_lambda": 0.95, "gamma": 0.9,
            "n_epochs": 10, "learning_rate": 1e-3, "clip_range": 0.2, "use_sde": True,
            "sde_sample_freq": 4}),
    ),
    "acrobot-ppo": Task(
        ("env=acrobot", "agent=ppo"), 999_424, -80.0,
        zoo("PPO", "Acrobot-v1", 16, {"n_steps": 256, "gae_lambda": 0.94, "gamma": 0.99,
            "n_epochs": 4}),
        5, 5, normalise=True,
    ),
    "mountain_car-ppo": Task(
        ("env=mountain_car", "agent=ppo"), 999_936, None,
        zoo("PPO", "MountainCar-v0", 16, {"n_steps": 16, "gae_lambda": 0.98, "gamma": 0.99,
            "n_epochs": 4}),
        5, 5, normalise=True,
    ),
    "lunar_lander-ppo": Task(
        ("env=lunar_lander", "agent=ppo"), 999_424, 245.0,
        zoo("PPO", "LunarLander-v3", 16, LUNAR), 5, 5, OTHER,
    ),
    "lunar_lander_continuous-ppo": Task(
        ("env=lunar_lander_continuous", "agent=ppo"), 999_424, 275.0,
        zoo("PPO", "LunarLander-v3", 16, LUNAR, continuous=True), 5, 5, OTHER,
    ),
    "pendulum-sac": Task(
        ("env=pendulum", "agent=sac", "agent.updates_per_step=4", "agent.tau=0.005",
         "agent.actor_tau=0.001", "agent.hidden=[128,128]", "agent.batch_size=512"), 4000, -150.0,
        zoo("SAC", "Pendulum-v1", 1, {"learning_rate": 1e-3}), 10, 9,
    ),
    "mountain_car_continuous-sac": Task(
        ("env=mountain_car_continuous", "agent=sac"), 50_000, 93.0,
        zoo("SAC", "MountainCarContinuous-v0", 1, {"learning_rate": 3e-4, "buffer_size": 50_000,
            "batch_size": 512, "ent_coef": 0.1, "train_freq": 32, "gradient_steps": 32,
            "gamma": 0.9999, "tau": 0.01, "learning_starts": 0, "use_sde": True,
            "policy_kwargs": {"log_std_init": -3.67, "net_arch": [64, 64]}}),
        5, 5,
    ),
    **{
        f"{name}-sac": Task(
            (f"env={name}", "agent=sac"), MUJOCO, None,
            zoo("SAC", env, 1, {"learning_starts": 10_000}), 3, 3, OTHER,
        )
        for name, env in (
            ("half_cheetah", "HalfCheetah-v5"), ("hopper", "Hopper-v5"), ("walker2d", "Walker2d-v5")
        )
    },
}  # fmt: skip
