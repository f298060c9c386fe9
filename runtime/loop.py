"""The one loop of every algorithm."""

from typing import Any, Protocol

from agents.base import BaseAgent
from data import Transition
from envs.envs import Envs
from runtime.evaluation import Evaluation
from runtime.schedule import Schedule


class Buffer(Protocol):
    """Where transitions wait for the update."""

    @property
    def warming_up(self) -> bool:
        """Whether actions are still to be uniform."""

    def add(self, transition: Transition) -> None: ...

    def batches(self) -> Any:
        """Iterates over the batches that are due now."""


def train(
    agent: BaseAgent, envs: Envs, buffer: Buffer, schedule: Schedule, step: int = 0
) -> Evaluation | None:
    """Runs from `step` to the last step of the schedule; returns the evaluation at the end."""
    if step:
        schedule.due(step, step - schedule.stride)  # what was due when the run was stopped
    while step < schedule.total_steps:
        step = advance(agent, envs, buffer, schedule, step)
    return schedule.finish(step)


def advance(agent: BaseAgent, envs: Envs, buffer: Buffer, schedule: Schedule, step: int) -> int:
    """One step of all environments, the updates it allows, and what is due; the new step.

    All ranks make it at once, each with its own environments.
    """
    act = agent.explore if buffer.warming_up else agent.act
    action, latent = act(envs.obs)
    transition = envs.step(action, latent)
    agent.observe(transition)
    buffer.add(transition)
    for batch in buffer.batches():
        schedule.updated(step + schedule.stride, agent.update(batch), batch)
    step += schedule.stride
    schedule.due(step, step - schedule.stride)
    return step
