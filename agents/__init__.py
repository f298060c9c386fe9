"""Agents: from a batch to new weights."""

from agents.a2c import A2C
from agents.base import BaseAgent, Stream
from agents.ppo import PPO
from agents.sac import SAC
from agents.sac_discrete import SACDiscrete
from configs.agents import AgentConfig
from configs.validate import require_methods
from data import Spec

AGENTS: dict[str, type[BaseAgent]] = {
    "a2c": A2C,
    "ppo": PPO,
    "sac": SAC,
    "sac_discrete": SACDiscrete,
}


def make_agent(spec: Spec, settings: AgentConfig, stream: Stream, horizon: int) -> BaseAgent:
    """The agent of these settings; ValueError if it does not fit the actions or lacks a method."""
    require_served(settings.name, spec.kind)
    require_methods("agent", AGENTS[settings.name], BaseAgent, ("update", "step", "losses"))
    return AGENTS[settings.name](spec, settings, stream, horizon)


def require_served(name: str, kind: str) -> None:
    """Raises ValueError, with the agents that fit, if this one does not support the actions."""
    if name not in AGENTS:
        raise ValueError(f"agent: {name} has no class; add it to AGENTS in agents/__init__.py")
    if not AGENTS[name].fitting(kind):
        fitting = " or ".join(f"agent={other}" for other, a in AGENTS.items() if a.fitting(kind))
        raise ValueError(f"agent: {name} does not support {kind} actions; use {fitting}")
