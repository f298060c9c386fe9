"""The task with correlated actions: its reward, and the optima that its docstring derives."""

import math

import numpy as np
import pytest
import torch

from bench import correlated
from envs.envs import Envs


def worth(covariance):
    """Mean reward of an action with that covariance, by its definition."""
    precision = correlated.precision_matrix(2, correlated.CORRELATION)
    return -0.5 * np.trace(precision @ covariance) / correlated.WIDTH**2


def of_entropy(shape, entropy):
    """`shape`, scaled to the covariance of a two-dimensional Gaussian of that entropy."""
    volume = math.exp(entropy) / (2 * math.pi * math.e)
    return shape * volume / math.sqrt(np.linalg.det(shape))


@pytest.mark.parametrize("entropy", [-4.0, -2.5])
def test_no_covariance_of_that_entropy_is_worth_more(entropy):
    angles, ratios = np.linspace(0, np.pi, 61), np.exp(np.linspace(-4, 4, 81))
    turns = [np.array([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]]) for t in angles]
    every = [worth(of_entropy(turn @ np.diag([r, 1]) @ turn.T, entropy)) for turn in turns
             for r in ratios]  # fmt: skip
    diagonal = [worth(of_entropy(np.diag([r, 1]), entropy)) for r in ratios]
    for found, full in ((every, True), (diagonal, False)):
        best = correlated.optimum(entropy, full)
        assert max(found) <= best + 1e-12
        assert max(found) == pytest.approx(best, rel=1e-2)


def test_the_diagonal_loses_by_the_factor_of_the_docstring():
    ratio = correlated.optimum(-4.0, full=False) / correlated.optimum(-4.0, full=True)
    assert ratio == pytest.approx(1 / math.sqrt(1 - correlated.CORRELATION**2))


def test_every_episode_is_one_step_and_its_reward_the_quadratic_form():
    kwargs = {"dimensions": 3, "correlation": 0.5, "width": 0.5, "target": 0.2}
    envs = Envs("bench.correlated:Correlated-v0", 4, "sync", kwargs, seed=0)
    generator = torch.Generator().manual_seed(0)
    action = torch.rand(4, 3, generator=generator) * 2 - 1
    transition = envs.step(action, action)
    x = (action.double() - 0.2) / 0.5
    matrix = torch.full((3, 3), 0.5, dtype=torch.float64).fill_diagonal_(1.0)
    expected = -0.5 * (x * torch.linalg.solve(matrix, x.T).T).sum(-1)
    assert transition.terminated.all()
    assert transition.reward.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert torch.equal(envs.obs, torch.ones(4, 1))
