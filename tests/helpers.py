"""Small agents, batches and environments that several tests share."""

import json
from dataclasses import replace

import gymnasium
import numpy as np
import torch

from agents import make_agent
from configs.compose import train_config
from data import Spec, Transition
from runtime import tree
from runtime.seeding import stream


def settings(name, **changes):
    """The default hyperparameters of an agent, with changes."""
    config = train_config([f"agent={name}", "env.id=Any-v0"])  # no tuned pair
    return replace(config.agent, hidden=[16, 16], **changes)


def agent(name, spec=None, seed=0, horizon=1000, **changes):
    spec = spec or Spec(3, 2, discrete=False)
    return make_agent(spec, settings(name, **changes), lambda key: stream(seed, key), horizon)


def batch(*leading, spec=None, seed=0, discrete=False):
    """Random transitions with the leading dimensions given."""
    generator = torch.Generator().manual_seed(seed)
    spec = spec or Spec(3, 2, discrete=discrete)

    def normal(*shape):
        return torch.randn(*leading, *shape, generator=generator)

    if spec.discrete:
        action = torch.randint(spec.action_dim, leading, generator=generator)
        latent = action
    else:
        latent = normal(spec.action_dim)
        action = torch.tanh(latent)
    return Transition(
        normal(spec.obs_dim), action, normal(), normal(spec.obs_dim),
        normal() > 1, normal() > 1, latent,
    )  # fmt: skip


class Counting(gymnasium.Env):
    """Observation: (episode number, step within it). Ends by `length`, in one way or the other."""

    def __init__(self, length=3, ends="terminated", reward=None, show_episode=True, choices=None):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-2.0, 6.0, (1,), np.float32)
        if choices:
            self.action_space = gymnasium.spaces.MultiDiscrete(choices)
        self.length, self.ends, self.fixed = length, ends, reward
        self.show_episode, self.episode, self.count = show_episode, -1, 0
        self.obs = np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action):
        self.count += 1
        done = self.count >= self.length
        reward = float(action[0]) if self.fixed is None else self.fixed
        return self.observe(), reward, done and self.ends == "terminated", (
            done and self.ends == "truncated"
        ), {}  # fmt: skip

    def observe(self):
        self.obs[:] = (
            self.episode * self.show_episode,
            self.count,
        )  # one array, changed in place: must be copied
        return self.obs


gymnasium.register("Counting-v0", entry_point=Counting)


def saved_and_read(state):
    """A state after the way through a checkpoint's JSON and tensors."""
    values, tensors = tree.split(state)
    return tree.join(json.loads(json.dumps(values, allow_nan=False)), tensors)
