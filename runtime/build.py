"""From a validated configuration to the parts of a run."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from agents import make_agent
from agents.base import BaseAgent
from data import Replay, Rollout, Spec
from runtime.checkpoint import digest
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

    def digest(self) -> str:
        """SHA-256 over every parameter, optimiser and generator state."""
        state = {"agent": self.agent.state_dict()}
        if isinstance(self.buffer, Replay):
            state["replay"] = {"generator": self.buffer.generator.get_state()}
        return digest(state)


def make_parts(config: "TrainConfig") -> Parts:
    """Environments, agent, buffer and evaluator; creates no file.

    Raises:
        ConfigError: parts that do not fit together, or a device that is not there.
        EnvironmentFault: the environment cannot be made.
    """
    device = make_device(config.device)
    torch.set_num_threads(int(config.threads))
    env = config.env
    with ExitStack() as undo:
        envs = Envs(env.id, int(env.num_envs), env.vectorization, env.kwargs, config.seed)
        undo.callback(envs.close)
        buffer, updates = make_buffer(config, envs.num_envs, device)
        if updates < 1:
            raise ConfigError(
                f"total_steps: {config.total_steps} ends before the first update; raise it above "
                "agent.learning_starts, or agent.n_steps times env.num_envs"
            )
        agent = fitting(
            make_agent,
            envs.spec,
            config.agent,
            partial(stream, config.seed, device=device),
            updates,
        )
        evaluator = make_evaluator(config, config.eval.episodes, derive(config.seed, "evaluation"))
        undo.pop_all()
    return Parts(agent, envs, buffer, evaluator)


def make_buffer(config: "TrainConfig", num_envs: int, device: torch.device) -> tuple[Any, int]:
    """The buffer of the agent's kind, and how many updates it will give in the whole run."""
    settings: Any = config.agent
    if settings.on_policy:
        updates = config.total_steps // (settings.n_steps * num_envs)
        return Rollout(settings.n_steps, device), updates
    replay = Replay(
        settings.buffer_size,
        settings.batch_size,
        settings.learning_starts,
        settings.updates_per_step,
        stream(config.seed, "replay", device),
    )
    learning = config.total_steps - settings.learning_starts + 1
    return replay, math.ceil(learning * settings.updates_per_step)


def fitting(make: Callable[..., BaseAgent], *arguments: Any) -> BaseAgent:
    """Calls `make`; a value that does not fit the environment is a matter of configuration."""
    try:
        return make(*arguments)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def restore_agent(
    config: "TrainConfig", spec: Spec, state: dict[str, Any], device: torch.device
) -> BaseAgent:
    """The agent of a run as it was at a checkpoint.

    Raises:
        StorageFault: the checkpoint is not of this configuration.
    """
    torch.set_num_threads(int(config.threads))
    seeds = partial(stream, config.seed, device=device)
    agent = fitting(make_agent, spec, config.agent, seeds, 1)
    try:
        agent.load_weights(state["agent"])
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
