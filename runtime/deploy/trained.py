"""The agent of a finished or running run, for whoever only wants to watch it act."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from agents.base import BaseAgent
from common.errors import ConfigError
from envs.spaces import require_same_spaces
from runtime.build import make_evaluator, restore_agent, set_up_torch
from runtime.evaluation import Evaluator
from storage.checkpoint import load_newest

if TYPE_CHECKING:
    from configs.schema import TrainConfig


@dataclass
class Trained:
    """An agent as it was at a checkpoint, and environments to play in; close the evaluator."""

    path: Path
    config: "TrainConfig"
    agent: BaseAgent
    evaluator: Evaluator
    step: int
    spaces: dict[str, str]  # see `Envs.spaces`
    warnings: list[str]  # one for each checkpoint that was passed over


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
) -> Trained:
    """Restores the agent from the newest valid checkpoint (or `best`, or a name).

    Args:
        run: run directory.
        checkpoint: which.
        episodes, seed: of the evaluator.
        device: where the agent acts.
        env_id: has to repeat the environment's id where the run's names a module to import.
        render: a render_mode of Gymnasium's, "human" opens a window.
        guest: whether the process is somebody else's, in which torch is left as it is set.
        max_length: of an episode, in place of the run's.

    Raises:
        ConfigError: `run` is no run, or its environment was named wrongly, or not at all where it
            lies in a module, or has other spaces than when the run was made.
        StorageFault: no checkpoint in it is valid.
    """
    from configs.files import read_run, require_run
    from configs.resume import require_repeated

    path = require_run("run", run)
    config = read_run(path)
    require_repeated(config.env.id, env_id)
    if env_id not in (None, config.env.id):
        raise ConfigError(f"env: {env_id} is not the run's, {config.env.id}; leave it out")
    step, state, _, warnings = load_newest(path, checkpoint, config=config)
    if not guest:
        set_up_torch(int(config.threads))
    if max_length is not None:
        config = replace(config, eval=replace(config.eval, max_length=max_length))
    evaluator = make_evaluator(config, episodes, seed, render)
    try:
        require_same_spaces(config.env.id, state.get("spaces"), evaluator.envs.spaces)
        agent = restore_agent(config, evaluator.envs.spec, state, torch.device(device))
    except BaseException:
        evaluator.close()
        raise
    spaces = evaluator.envs.spaces
    return Trained(path, config, agent, evaluator, step, spaces, warnings)
