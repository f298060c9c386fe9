"""The first gradient of A2C and PPO is the exact policy gradient of a small decision process.

Every trajectory is in the rollout as often as the policy would take it: nothing is left to chance,
and the equality is one of numbers, not of expectations.
"""

import itertools
import math

import pytest
import torch

from data import Spec, Transition
from tests.helpers import agent

SPEC = Spec(3, 2, discrete=True)
FIRST = (0.3, -0.2)  # reward of each action in state 0, which leads to state 1 or 2
SECOND = ((1.0, -0.5), (0.2, 2.0))  # of each action there, which ends the episode
WEIGHTS = (3, 1)  # the policy takes action 0 three times out of four


def rollout(terminated=True):
    """(2, 16, ·): the four trajectories, 9, 3, 3 and 1 times."""
    paths = [
        path
        for path in itertools.product((0, 1), repeat=2)
        for _ in range(WEIGHTS[path[0]] * WEIGHTS[path[1]])
    ]
    action = torch.tensor(paths).T  # (2, 16)
    eye = torch.eye(3)
    obs = torch.stack([eye[torch.zeros(16, dtype=torch.int64)], eye[1 + action[0]]])
    reward = torch.tensor(
        [[FIRST[a] for a, _ in paths], [SECOND[a][b] for a, b in paths]], dtype=torch.float32
    )
    ends = torch.zeros(2, 16, dtype=torch.bool)
    ends[1] = True
    next_obs = torch.stack([obs[1], eye[torch.zeros(16, dtype=torch.int64)]])
    flags = (ends, torch.zeros_like(ends)) if terminated else (torch.zeros_like(ends), ends)
    return Transition(obs, action, reward, next_obs, *flags, action)


def learner(name):
    """With that policy in every state, and a value that is wrong: a baseline does not matter."""
    made = agent(name, SPEC, gamma=1.0, gae_lambda=1.0, normalise_advantage=False,
                 value_coef=0.0, ent_coef=0.0)  # fmt: skip
    with torch.no_grad():
        made.actor.head.weight.zero_()
        made.actor.head.bias.copy_(torch.tensor([math.log(weight) for weight in WEIGHTS]))
    return made


def exact(made):
    """Gradient of the expected return, by differentiating the sum over all trajectories."""
    probs = made.actor(torch.eye(3))[0].exp()
    expected = sum(
        probs[0, a] * probs[1 + a, b] * (FIRST[a] + SECOND[a][b])
        for a, b in itertools.product((0, 1), repeat=2)
    )
    return torch.autograd.grad(expected, list(made.actor.parameters()))


def first_gradient(name, data):
    made = learner(name)
    if name == "a2c":
        losses, _ = made.losses(data)
    else:
        rows = (data.obs, data.action, data.latent, *made.evaluate_rollout(data))
        losses, _ = made.losses(*(row.flatten(0, 1) for row in rows))
    return made, torch.autograd.grad(losses["actor"], list(made.actor.parameters()))


@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_it_equals_the_exact_policy_gradient(name):
    made, found = first_gradient(name, rollout())
    for ours, theirs in zip(found, exact(made), strict=True):
        assert torch.allclose(-2 * ours, theirs, atol=1e-6)  # a mean over two steps, descended
    assert max(g.abs().max() for g in found) > 0.01


@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_it_would_not_if_the_end_of_an_episode_were_bootstrapped(name):
    """Negative control: the value of what comes after, which differs by action, is added."""
    for terminated in (True, False):
        data = rollout(terminated)
        after = data.next_obs.clone()
        after[1] += data.action[1].unsqueeze(-1)
        made, found = first_gradient(name, data._replace(next_obs=after))
        equal = all(
            torch.allclose(-2 * ours, theirs, atol=1e-6)
            for ours, theirs in zip(found, exact(made), strict=True)
        )
        assert equal == terminated
