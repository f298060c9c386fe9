"""Short learning runs whose right answer is known beforehand."""

import math

import numpy as np
import pytest
import torch

from data import Replay, Rollout, Spec, Transition
from runtime.envs import Envs
from tests.helpers import agent

GAMMA = 0.9


def run(learner, envs, buffer, steps):
    for _ in range(steps):
        act = learner.explore if buffer.warming_up else learner.act
        transition = envs.step(*act(envs.obs))
        learner.observe(transition)
        buffer.add(transition)
        for data in buffer.batches():
            learner.update(data)


@pytest.mark.parametrize(
    ("ends", "expected"), [("truncated", 1 / (1 - GAMMA)), ("terminated", None)]
)
def test_a2c_value_of_constant_reward_under_a_time_limit(ends, expected):
    """Reward 1 for ever, cut after 4 steps: V = 1/(1-gamma). If it truly ends, V falls to 1."""
    kwargs = {"length": 4, "ends": ends, "reward": 1.0, "show_episode": False}
    envs = Envs("tests.helpers:Counting-v0", 4, "sync", kwargs, seed=0)
    learner = agent("a2c", envs.spec, gamma=GAMMA, lr=1e-2, horizon=400)
    run(learner, envs, Rollout(8), 8 * 400)
    obs = torch.tensor([[0.0, float(t)] for t in range(4)])
    value = learner.critic(obs).tolist()
    if expected is not None:
        assert value == pytest.approx([expected] * 4, rel=0.03)
    else:
        exact = [sum(GAMMA**k for k in range(4 - t)) for t in range(4)]
        assert value == pytest.approx(exact, rel=0.05)
        assert max(value) < 0.5 / (1 - GAMMA)


@pytest.mark.parametrize("name", ["a2c", "sac"])
def test_one_step_bandit_finds_the_best_action(name):
    """Reward -(a - 0.5)^2 in policy units, where the environment's action is 4 a + 2."""
    import gymnasium
    import numpy as np

    class Bandit(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        action_space = gymnasium.spaces.Box(-2.0, 6.0, (1,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(1, np.float32), {}

        def step(self, action):
            reward = -(((float(action[0]) - 2.0) / 4.0 - 0.5) ** 2)
            return np.zeros(1, np.float32), reward, True, False, {}

    gymnasium.register("Bandit-v0", entry_point=Bandit)
    envs = Envs("Bandit-v0", 8, "sync", {}, seed=0)
    if name == "a2c":
        learner = agent("a2c", envs.spec, lr=2e-2, policy="tanh_gaussian", horizon=200)
        buffer, steps = Rollout(8), 1600
    else:
        learner = agent("sac", envs.spec, lr=5e-3, alpha=0.01)
        buffer, steps = Replay(10_000, 64, 64, 0.25, torch.Generator().manual_seed(0)), 400
    run(learner, envs, buffer, steps)
    action, _ = learner.act(torch.zeros(1, 1), deterministic=True)
    assert action.item() == pytest.approx(0.5, abs=0.06)


def nearest_to_boltzmann(alpha):
    """(mean action, entropy) of the squashed Gaussian with the largest E[a] + alpha H, in float64.

    By quadrature over u with 100 Gauss-Hermite nodes, on a grid of means and deviations.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    weights = torch.from_numpy(weights / weights.sum())
    mean = torch.linspace(-1, 3, 201, dtype=torch.float64)[:, None, None]
    log_std = torch.linspace(-2, 1, 151, dtype=torch.float64)[None, :, None]
    latent = mean + log_std.exp() * torch.from_numpy(nodes)
    normal = 0.5 * math.log(2 * math.pi * math.e) + log_std[..., 0]
    slope = 2 * (math.log(2) - latent - torch.nn.functional.softplus(-2 * latent))
    entropy = normal + (slope * weights).sum(-1)
    action = (latent.tanh() * weights).sum(-1)
    best = (action + alpha * entropy).argmax()
    return action.flatten()[best].item(), entropy.flatten()[best].item()


@pytest.mark.parametrize(("alpha", "atoms"), [(0.3, 0), (1.0, 0), (0.3, 51)])
def test_sac_on_a_one_step_bandit_comes_as_near_to_the_boltzmann_policy_as_it_can(alpha, atoms):
    """Reward a: the soft optimum is pi(a) ~ exp(a / alpha) on [-1, 1], known in closed form.

    A squashed Gaussian is not of that family: its soft value stays below alpha log of the integral,
    by alpha times the divergence, and SAC finds the member with the largest one.
    """
    learner = agent("sac", Spec(1, 1, discrete=False), alpha=alpha, lr=1e-2, gamma=0.0,
                    lr_schedule="linear", horizon=600, atoms=atoms)  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for _ in range(600):
        action = torch.rand(128, 1, generator=generator) * 2 - 1
        obs, ends = torch.zeros(128, 1), torch.ones(128, dtype=torch.bool)
        learner.update(Transition(obs, action, action[:, 0], obs, ends, ~ends))
    policy = learner.policy(torch.zeros(100_000, 1))
    action, log_pi = policy.rsample_with_log_prob(policy.noise(generator))
    mean, entropy = nearest_to_boltzmann(alpha)
    assert action.mean().item() == pytest.approx(mean, abs=0.02)
    assert -log_pi.mean().item() == pytest.approx(entropy, abs=0.02)
    a = torch.linspace(-1, 1, 20_001, dtype=torch.float64)
    best = alpha * torch.trapezoid(torch.exp(a / alpha), a).log().item()
    assert best - 0.02 < mean + alpha * entropy <= best


def test_sac_with_a_full_covariance_finds_the_correlation_of_its_reward():
    """Reward -x^T P x / 2: the soft optimum exp(r / alpha) is nearly a Gaussian with P's inverse.

    Its two actions correlate by 0.9; those of a diagonal policy cannot, which costs it reward.
    """
    matrix = torch.tensor([[1.0, 0.9], [0.9, 1.0]])

    def reward_of(action):
        return -2.0 * (action * torch.linalg.solve(matrix, action.T).T).sum(-1)

    found = {}
    for name in ("tanh_gaussian", "tanh_full_gaussian"):
        learner = agent("sac", Spec(1, 2, discrete=False), policy=name, alpha=0.1, lr=1e-2,
                        gamma=0.0, lr_schedule="linear", horizon=600)  # fmt: skip
        generator = torch.Generator().manual_seed(0)
        obs, ends = torch.zeros(128, 1), torch.ones(128, dtype=torch.bool)
        for _ in range(600):
            action = torch.rand(128, 2, generator=generator) * 2 - 1
            learner.update(Transition(obs, action, reward_of(action), obs, ends, ~ends))
        policy = learner.policy(torch.zeros(50_000, 1))
        action, log_pi = policy.rsample_with_log_prob(policy.noise(generator))
        objective = (reward_of(action) - 0.1 * log_pi).mean().item()
        found[name] = (action.T.corrcoef()[0, 1].item(), objective)
    assert found["tanh_full_gaussian"][0] > 0.6
    assert abs(found["tanh_gaussian"][0]) < 0.03
    assert found["tanh_full_gaussian"][1] > found["tanh_gaussian"][1] + 0.02
