"""`agent.reward_scale`: VecNormalize's rule from plain numpy, and what no update may change."""

import numpy as np
import pytest
import torch
from gymnasium.wrappers.utils import RunningMeanStd

from common.errors import ConfigError
from data import Spec, Transition
from networks.normalizer import ReturnScale
from tests.helpers import agent, assert_repeats_and_resumes, batch, saved_and_read, settings

GAMMA = 0.8
SPECS = {
    "a2c": Spec(3, 2, discrete=False),
    "ppo": Spec(3, 4, discrete=True),
    "sac": Spec(3, 2, discrete=False),
    "sac_discrete": Spec(3, 4, discrete=True),
}


def made(name, **changes):
    own = {"a2c": {"normalise_advantage": False}, "ppo": {"epochs": 2, "batch_size": 10}}
    common = {"reward_scale": "auto", "gamma": GAMMA}
    return agent(name, SPECS[name], **{**common, **own.get(name, {}), **changes})


def rollout(name, seed, unit=1.0):
    """Ten steps of three copies, (T, N, ·), of which some end an episode in each way."""
    steps = batch(10, 3, spec=SPECS[name], seed=seed)
    return steps._replace(reward=unit * (2.0 + 3.0 * steps.reward))


def learn(learner, steps):
    """What the loop does with these steps, one after the other."""
    for row in zip(*steps, strict=True):
        learner.observe(Transition(*row))
    if learner.settings.on_policy:
        return learner.update(steps)
    return learner.update(Transition(*(field.flatten(0, 1) for field in steps)))


def vec_normalize(rollouts, gamma):
    """The deviation by which Stable-Baselines3's VecNormalize divides: its `_update_reward`."""
    returns, seen = np.zeros(3), RunningMeanStd(epsilon=0.0)
    for steps in rollouts:
        ends = (steps.terminated | steps.truncated).numpy()
        for reward, done in zip(steps.reward.double().numpy(), ends, strict=True):
            returns = returns * gamma + reward
            seen.update(returns)
            returns[done] = 0.0
    return np.sqrt(seen.var)


@pytest.mark.parametrize("name", SPECS)
def test_the_unit_is_the_deviation_of_vec_normalize_and_goes_on_to_the_bit(name):
    learner, other = made(name), made(name, seed=1)
    rollouts = [rollout(name, seed) for seed in range(4)]
    for number, steps in enumerate(rollouts):
        if number == 2:
            other.load_state_dict(saved_and_read(learner.state_dict()))
        raw = steps.reward.clone()
        for one in (learner, other)[: 1 + (number >= 2)]:
            learn(one, steps)
            assert torch.equal(steps.reward, raw)
        expected = vec_normalize(rollouts[: number + 1], GAMMA)
        assert learner.returns.unit.item() == pytest.approx(expected, rel=1e-6)
    assert torch.equal(learner.returns.running, other.returns.running)
    fresh = saved_and_read(learner.state_dict())
    last = rollouts[0] if learner.settings.on_policy else batch(8, spec=SPECS[name])
    assert_repeats_and_resumes(learner, other, fresh, last)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("unit", [2.0**-60, 2.0**50], ids=["small", "large"])
def test_what_is_learned_does_not_depend_on_the_unit_of_rewards(name, unit):
    learners = [made(name) for _ in range(2)]
    for seed in range(3):
        losses = [
            learn(learner, rollout(name, seed, factor))["loss/critic"]
            for learner, factor in zip(learners, (1.0, unit), strict=True)
        ]
        assert torch.equal(*losses)
    assert learners[1].returns.unit == unit * learners[0].returns.unit
    pairs = zip(*(learner.critic.parameters() for learner in learners), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", SPECS)
def test_a_number_multiplies_rewards(name):
    steps = rollout(name, 0)
    found = [
        learn(made(name, reward_scale=scale), steps._replace(reward=reward))["loss/critic"]
        for scale, reward in ((4.0, steps.reward), (1.0, 4.0 * steps.reward), (1.0, steps.reward))
    ]
    assert torch.equal(*found[:2])
    assert not torch.equal(*found[1:])


@pytest.mark.parametrize(
    ("reward", "gamma", "unit"),
    [(1.1, 0.0, 1.0), (0.0, 0.9, 1.0), (3e38, 0.999, torch.finfo(torch.float32).max)],
    ids=["equal", "zero", "enormous"],
)
def test_constant_and_enormous_returns_have_a_unit(reward, gamma, unit):
    scale, rows = ReturnScale(gamma), torch.tensor([reward, 0.0, 0.0]).expand(7, 1, 3)
    for _ in range(100):
        scale.update(rows, gather=lambda rows: rows, skip=torch.tensor(False))
    assert scale.unit.item() == pytest.approx(unit)


def test_a_distribution_of_returns_has_a_scale_of_its_own():
    for scale in ("auto", 0.1):
        with pytest.raises(ConfigError, match=r"reward_scale: agent\.atoms has a scale of its own"):
            settings("sac", atoms=51, reward_scale=scale).check()
