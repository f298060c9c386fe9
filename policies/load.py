"""A trained policy for a notebook."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch


class TrainedPolicy:
    """obs -> action in the environment's own units, with the normaliser it was trained with.

    >>> policy = policies.load("runs/CartPole-v1/a2c/...")
    >>> env.step(policy(obs))
    """

    def __init__(self, agent: Any, to_env: Any, obs_dim: int) -> None:
        self.agent, self.to_env, self.obs_dim = agent, to_env, obs_dim
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, obs: np.ndarray, deterministic: bool = True) -> Any:
        """One observation (O,) or several (N, O); actions with or without the leading N."""
        several = np.asarray(obs, np.float32).reshape(-1, self.obs_dim)
        action, _ = self.agent.act(torch.from_numpy(several), deterministic, self.generator)
        mapped = self.to_env(action.numpy())
        return mapped if np.ndim(obs) > 1 else mapped[0]


def load(run_dir: str | Path, checkpoint: str = "latest") -> TrainedPolicy:
    """The policy of a run, from its newest valid checkpoint (or `best`, or a name).

    Raises:
        ConfigError: `run_dir` is no run.
        StorageFault: no checkpoint in it is valid.
    """
    from configs.compose import read_run
    from runtime import rundir
    from runtime.build import make_evaluator, restore_agent
    from runtime.checkpoint import load_newest

    path = rundir.require(str(run_dir))
    config = read_run(path)
    _, state, damaged = load_newest(path, checkpoint)
    for text in damaged:
        warnings.warn(text, stacklevel=2)
    evaluator = make_evaluator(config, episodes=1, seed=0)
    agent = restore_agent(config, evaluator.envs.spec, state, torch.device("cpu"))
    policy = TrainedPolicy(agent, evaluator.envs.to_env, evaluator.envs.spec.obs_dim)
    evaluator.close()
    return policy
