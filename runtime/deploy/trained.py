"""The agent of a finished or running run: to be played by a command, or in a notebook."""

import math
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from agents.base import BaseAgent
from common.errors import ConfigError
from configs.automatic import NATIVE
from configs.files import read_run, require_run
from configs.resume import require_repeated
from configs.schema import MASKING, TrainConfig
from envs.envs import Envs
from envs.spaces import MASK, masks_in, require_same_spaces
from runtime.build import restore_agent, set_up_torch
from runtime.evaluation import Evaluator
from runtime.launch.door import with_revisions
from storage.checkpoint import load_newest


@dataclass
class Trained:
    """An agent as it was at a checkpoint, and environments to play in; close the evaluator."""

    path: Path
    config: TrainConfig
    agent: BaseAgent
    evaluator: Evaluator
    step: int
    warnings: list[str]  # one for each checkpoint that was passed over
    changed: dict[str, Any]  # arguments of the environment that differ from the run's


def open_trained(
    run: str,
    checkpoint: str = "latest",
    *,
    episodes: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
    env_id: str | None = None,
    render: str | None = None,
    guest: bool = False,
    max_length: int | Literal["auto"] | None = None,
    kwargs: dict[str, Any] | None = None,
) -> Trained:
    """Restores the agent from the newest valid checkpoint (or `best`, or a name).

    Args:
        episodes, seed: of the evaluator.
        env_id: has to repeat the environment's id where the run's names a module to import.
        render: a render_mode of Gymnasium's, "human" opens a window.
        guest: whether the process is somebody else's, in which torch is left as it is set.
        max_length: of an episode, in place of the run's.
        kwargs: arguments of the environment, beside the run's or in place of them.

    Raises:
        ConfigError: `run` is no run, or its environment was named wrongly, or not at all where it
            lies in a module, or has other spaces than when the run was made.
        StorageFault: no checkpoint in it is valid.
    """
    path = require_run("run", run)
    config = read_run(path)
    require_repeated(config.env, env_id)
    if env_id not in (None, config.env.id):
        raise ConfigError(f"env: {env_id} is not the run's, {config.env.id}; leave it out")
    step, state, passed_over = load_newest(path, checkpoint, config=config)
    if not guest:
        set_up_torch(int(config.threads))
    env, given = config.env, (kwargs or {}).items()
    own = env.kwargs
    changed = {key: value for key, value in given if key not in own or own[key] != value}
    if changed:
        env = replace(env, kwargs={**own, **changed})
        if env.vectorization == "native" and env.id in NATIVE:
            # whose arrays are exact with the usual arguments alone
            env = replace(env, vectorization="sync")
        config = replace(config, env=env)
    longest = config.eval.max_length if max_length is None else max_length
    with ExitStack() as undo:
        evaluator = Evaluator(env, episodes, seed, max_length=longest, render=render)
        undo.callback(evaluator.close)
        envs = evaluator.envs
        require_same_spaces(config.env.id, state.get("spaces"), envs.spaces)
        agent = restore_agent(config, envs.spec, state, torch.device(device))
        undo.pop_all()
    return Trained(path, config, agent, evaluator, step, passed_over, changed)


class TrainedPolicy:
    """obs -> action in the environment's own units, with the normaliser it was trained with.

    >>> policy = policies.load("runs/CartPole-v1/a2c/...")
    >>> env.step(policy(obs))
    """

    def __init__(self, agent: BaseAgent, envs: Envs) -> None:
        self.agent, self.to_env, self.obs_shape = agent, envs.to_env, envs.obs_shape
        self.to_vector = envs.to_vector
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, obs: Any, deterministic: bool = True) -> Any:
        """One observation or several, (N, ...); actions with or without the leading N.

        Of a space that is no Box: one as the environment gives it, or several as vectors.

        Raises:
            ValueError: the observations are of another shape, or do not belong to their space.
        """
        try:
            obs = np.asarray(self.to_vector(obs))
        except ValueError as error:
            if not self.agent.spec.mask or MASK not in str(error):
                raise
            used = f"the run has env.wrappers=[{MASKING}]"
            remedy = "give observations of the environment in envs.masks.ActionMask"
            raise ValueError(f"{error}, {used}; {remedy}") from error
        one = obs.shape == self.obs_shape
        if not one and obs.shape[1:] != self.obs_shape:
            raise ValueError(
                f"observations of shape {obs.shape}, and the policy was trained on one of "
                f"{self.obs_shape}; give one, or several as (N, ...)"
            )
        rows = obs.astype(np.float32).reshape(-1, math.prod(self.obs_shape))
        spec = self.agent.spec
        if spec.mask and not all(mask.any(-1).all() for mask in masks_in(spec, rows)):
            raise ValueError("action_mask permits no action; give 1 for those that are permitted")
        action, _ = self.agent.act(torch.from_numpy(rows), deterministic, self.generator)
        mapped = self.to_env(action.numpy())
        return mapped[0] if one else mapped


def load(
    run_dir: str | Path, checkpoint: str = "latest", env_id: str | None = None
) -> TrainedPolicy:
    """The policy of a run; arguments and errors are those of `open_trained`."""
    try:
        trained = open_trained(str(run_dir), checkpoint, env_id=env_id, guest=True)
    except ConfigError as error:
        raise with_revisions(error) from error
    for text in trained.warnings:
        warnings.warn(text, stacklevel=3)  # the line that calls `policies.load`
    trained.evaluator.close()
    return TrainedPolicy(trained.agent, trained.evaluator.envs)
