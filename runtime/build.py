"""From a validated configuration to the parts of a run."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from agents import make_agent
from agents.base import BaseAgent
from data import Replay, Rollout, Spec
from runtime.envs import Envs
from runtime.errors import ConfigError, StorageFault
from runtime.evaluation import Evaluator
from runtime.seeding import derive, stream

if TYPE_CHECKING:
    from configs.schema import TrainConfig


@dataclass
class Parts:
    """Everything stateful of a run."""

    agent: BaseAgent
    envs: Envs
    buffer: Any
    evaluator: Evaluator

    def close(self) -> None:
        self.envs.close()
        self.evaluator.close()


def make_parts(config: "TrainConfig") -> Parts:
    """Environments, agent, buffer and evaluator; creates no file.

    Raises:
        ConfigError: parts that do not fit together, or a device that is not there.
        EnvironmentFault: the environment cannot be made.
    """
    device = make_device(config.device)
    torch.set_num_threads(int(config.threads))
    env = config.env
    envs = Envs(env.id, int(env.num_envs), env.vectorization, env.kwargs, config.seed)
    settings: Any = config.agent
    total, count = config.total_steps, envs.num_envs
    if settings.name == "a2c":
        buffer: Any = Rollout(settings.n_steps, device)
        horizon = math.ceil(total / (settings.n_steps * count))
    else:
        buffer = Replay(
            settings.buffer_size,
            settings.batch_size,
            settings.learning_starts,
            settings.updates_per_step,
            stream(config.seed, "replay", device),
        )
        horizon = math.ceil((total - settings.learning_starts + 1) * settings.updates_per_step)
    try:
        agent = make_agent(
            envs.spec, settings, lambda name: stream(config.seed, name, device), max(1, horizon)
        )
    except ValueError as error:
        envs.close()
        raise ConfigError(str(error)) from error
    evaluator = make_evaluator(config, config.eval.episodes, derive(config.seed, "evaluation"))
    return Parts(agent, envs, buffer, evaluator)


def restore_agent(
    config: "TrainConfig", spec: Spec, state: dict[str, Any], device: torch.device
) -> BaseAgent:
    """The agent of a run as it was at a checkpoint.

    Raises:
        StorageFault: the checkpoint is not of this configuration.
    """
    agent = make_agent(spec, config.agent, lambda name: stream(config.seed, name, device), 1)
    try:
        agent.load_state_dict(state["agent"])
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise StorageFault(
            f"checkpoint: does not fit config.yaml, {str(error).splitlines()[0]}; restore the run"
        ) from error
    return agent


def make_evaluator(config: "TrainConfig", episodes: int, seed: int) -> Evaluator:
    """Evaluation never needs workers: native where training is, else sync."""
    env = config.env
    mode = "native" if env.vectorization == "native" else "sync"
    return Evaluator(env.id, mode, env.kwargs, episodes, seed)


def make_device(name: str) -> torch.device:
    """The torch device; ConfigError where it is not there."""
    try:
        if name.partition(":")[0] not in ("cpu", "cuda"):
            raise RuntimeError("no such kind")
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device: {name} is not there; use cpu") from error
    return device
