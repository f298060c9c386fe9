"""A trained policy for a notebook."""

import math
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

    def __init__(self, agent: Any, envs: Any) -> None:
        self.agent, self.to_env, self.obs_shape = agent, envs.to_env, envs.obs_shape
        self.to_vector = envs.to_vector
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, obs: Any, deterministic: bool = True) -> Any:
        """One observation or several, (N, ...); actions with or without the leading N.

        Of a space that is no Box: one as the environment gives it, or several as vectors.

        Raises:
            ValueError: the observations are of another shape, or do not belong to their space.
        """
        obs = np.asarray(self.to_vector(obs))
        one = obs.shape == self.obs_shape
        if not one and obs.shape[1:] != self.obs_shape:
            raise ValueError(
                f"observations of shape {obs.shape}, and the policy was trained on one of "
                f"{self.obs_shape}; give one, or several as (N, ...)"
            )
        obs = obs.astype(np.float32)
        several = torch.from_numpy(obs.reshape(-1, math.prod(self.obs_shape)))
        action, _ = self.agent.act(several, deterministic, self.generator)
        mapped = self.to_env(action.numpy())
        return mapped[0] if one else mapped


def load(
    run_dir: str | Path, checkpoint: str = "latest", env_id: str | None = None
) -> TrainedPolicy:
    """The policy of a run, from its newest valid checkpoint (or `best`, or a name).

    Args:
        run_dir, checkpoint: which.
        env_id: has to repeat the environment's id where the run's names a module to import.

    Raises:
        ConfigError: `run_dir` is no run, or its environment's module was not named, or that has
            other spaces now than when the run was made.
        StorageFault: no checkpoint in it is valid.
    """
    from common.errors import ConfigError
    from runtime.deploy.trained import open_trained
    from runtime.launch.door import with_revisions

    try:
        trained = open_trained(str(run_dir), checkpoint, env_id=env_id, guest=True)
    except ConfigError as error:
        raise with_revisions(error) from error
    for text in trained.warnings:
        warnings.warn(text, stacklevel=2)
    trained.evaluator.close()
    return TrainedPolicy(trained.agent, trained.evaluator.envs)
