"""Short learning runs whose right answer is known beforehand."""

import math

import gymnasium
import numpy as np
import pytest
import torch

from data import Replay, Rollout, Spec, Transition
from envs.envs import Envs
from tests.helpers import agent

WEIGHT = 0.1  # of SAC's entropy in the bandit


def run(learner, envs, buffer, steps):
    for _ in range(steps):
        act = learner.explore if buffer.warming_up else learner.act
        transition = envs.step(*act(envs.obs))
        learner.observe(transition)
        buffer.add(transition)
        for data in buffer.batches():
            learner.update(data)


class Bandit(gymnasium.Env):
    """Reward -(a - 0.5)^2 in policy units, where the environment's action is 4 a + 2."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-2.0, 6.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        reward = -(((float(action[0]) - 2.0) / 4.0 - 0.5) ** 2)
        return np.zeros(1, np.float32), reward, True, False, {}


gymnasium.register("Bandit-v0", entry_point=Bandit)


def best_action(name, seed=0):
    """The deterministic action that an agent has learned there."""
    envs = Envs("Bandit-v0", 8, "sync", {}, seed=seed)
    if name == "a2c":
        learner = agent("a2c", envs.spec, seed=seed, lr=2e-2, policy="tanh_gaussian", horizon=200)
        buffer, steps = Rollout(8), 1600
    else:
        learner = agent("sac", envs.spec, seed=seed, lr=5e-3, alpha=WEIGHT, lr_schedule="linear",
                        horizon=1344)  # fmt: skip
        buffer, steps = Replay(10_000, 64, 512, 0.5, torch.Generator().manual_seed(seed)), 400
    run(learner, envs, buffer, steps)
    action, _ = learner.act(torch.zeros(1, 1), deterministic=True)
    return action.item()


def nearest_to_boltzmann(alpha, reward=lambda action: action):
    """The squashed Gaussian with the largest E[reward] + alpha H, in float64.

    By quadrature over u with 100 Gauss-Hermite nodes, on ever finer grids of means and deviations.

    Returns:
        tanh of its mean, its mean action, its entropy.
    """
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(100))
    weights = weights / weights.sum()
    best, reach = (0.0, -0.5), 3.0
    for _ in range(5):
        grid = reach * torch.linspace(-1, 1, 61, dtype=torch.float64)
        mean, log_std = best[0] + grid[:, None, None], best[1] + grid[None, :, None]
        latent = mean + log_std.exp() * nodes
        normal = 0.5 * math.log(2 * math.pi * math.e) + log_std[..., 0]
        slope = 2 * (math.log(2) - latent - torch.nn.functional.softplus(-2 * latent))
        entropy = normal + (slope * weights).sum(-1)
        action = latent.tanh()
        soft = (reward(action) * weights).sum(-1) + alpha * entropy
        row, column = divmod(soft.argmax().item(), 61)
        best, reach = (mean[row].item(), log_std[0, column].item()), reach / 15
    place = (row, column)
    return math.tanh(best[0]), (action * weights).sum(-1)[place].item(), entropy[place].item()


def test_one_step_bandit_finds_the_best_action():
    """Over seeds 0 to 7 the standard error is 0.020, mostly to one side."""
    assert best_action("a2c") == pytest.approx(0.5, abs=3 * 0.02)


@pytest.mark.slow
def test_sac_finds_the_best_action_of_the_one_step_bandit():
    """Over seeds 0 to 7 the standard error is 0.0105, mostly to one side."""
    best, _, _ = nearest_to_boltzmann(WEIGHT, lambda action: -((action - 0.5) ** 2))
    assert best == pytest.approx(0.512, abs=1e-3)  # a squashed Gaussian is skewed
    assert best_action("sac") == pytest.approx(best, abs=3 * 0.0105)


def soft_bandit(seed=0, **choices):
    """(mean action, entropy, log alpha) that SAC has learned where the reward is the action."""
    learner = agent("sac", Spec(1, 1, discrete=False), seed=seed, lr=1e-2, gamma=0.0,
                    lr_schedule="linear", horizon=600, **choices)  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for _ in range(600):
        action = torch.rand(128, 1, generator=generator) * 2 - 1
        obs, ends = torch.zeros(128, 1), torch.ones(128, dtype=torch.bool)
        learner.update(Transition(obs, action, action[:, 0], obs, ends, ~ends))
    policy = learner.policy(torch.zeros(100_000, 1))
    action, log_pi = policy.rsample_with_log_prob(policy.noise(generator))
    return action.mean().item(), -log_pi.mean().item(), learner.temperature.log_alpha.item()


@pytest.mark.parametrize(
    ("alpha", "atoms"),
    [(0.3, 0), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1.0, 0), (0.3, 51)))],
)
def test_sac_on_a_one_step_bandit_comes_as_near_to_the_boltzmann_policy_as_it_can(alpha, atoms):
    """Reward a: the soft optimum is pi(a) ~ exp(a / alpha) on [-1, 1], known in closed form.

    A squashed Gaussian is not of that family: its soft value stays below alpha log of the integral,
    by alpha times the divergence, and SAC finds the member with the largest one.
    """
    found = soft_bandit(alpha=alpha, atoms=atoms)[:2]
    _, mean, entropy = nearest_to_boltzmann(alpha)
    assert found == pytest.approx((mean, entropy), abs=2.3 * 0.0085)  # standard error, seeds 0 to 7
    a = torch.linspace(-1, 1, 20_001, dtype=torch.float64)
    best = alpha * torch.trapezoid(torch.exp(a / alpha), a).log().item()
    assert best - 0.02 < mean + alpha * entropy <= best


@pytest.mark.parametrize(
    ("target_entropy", "alpha"),
    [(-0.5, 0.224083), pytest.param(0.3, 0.578286, marks=pytest.mark.slow)],
)
def test_sac_learns_the_temperature_at_which_the_best_policy_has_the_target_entropy(
    target_entropy, alpha
):
    """Over seeds 0 to 7 the standard errors are 0.018 (entropy) and 0.025 (log alpha)."""
    _, _, best = nearest_to_boltzmann(alpha)
    assert best == pytest.approx(target_entropy, abs=1e-4)
    _, entropy, log_alpha = soft_bandit(alpha="auto", target_entropy=target_entropy)
    assert entropy == pytest.approx(target_entropy, abs=3 * 0.018)
    assert log_alpha == pytest.approx(math.log(alpha), abs=3 * 0.025)


@pytest.mark.slow
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
