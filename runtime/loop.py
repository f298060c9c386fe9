"""The one loop of every algorithm."""

from agents.base import BaseAgent
from data import Replay, Rollout
from envs.envs import Envs
from runtime.evaluation import Evaluation
from runtime.schedule import Schedule

Buffer = Replay | Rollout


def train(
    agent: BaseAgent, envs: Envs, buffer: Buffer, schedule: Schedule, step: int = 0
) -> Evaluation | None:
    """Runs from `step` to the last step of the run; returns the evaluation at the end."""
    if step:
        schedule.due(step)  # what was due when the run was stopped
    while not schedule.over(step):
        step = advance(agent, envs, buffer, schedule, step)
    return schedule.record.evaluation(step)


def advance(agent: BaseAgent, envs: Envs, buffer: Buffer, schedule: Schedule, step: int) -> int:
    """One step of all environments, the updates it allows, and what is due; the new step.

    All ranks take this step together, each in its own environments.
    """
    act = agent.explore if buffer.warming_up else agent.act
    action, latent = act(envs.obs)
    transition = envs.step(action, latent)
    agent.observe(transition)
    buffer.add(transition)
    step += schedule.stride
    for batch in buffer.batches():
        schedule.updated(step, agent.update(batch), batch)
    schedule.due(step)
    return step
