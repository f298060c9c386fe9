"""Distributions of returns: the projection by its definition, and the unit that rewards are in."""

import numpy as np
import pytest
import torch

from agents.categorical_critic import LIMIT, CategoricalReturn
from data import Spec
from tests.helpers import agent, assert_repeats_and_resumes, batch, saved_and_read

SPEC = Spec(3, 2, discrete=False)
NEVER = torch.zeros((), dtype=torch.bool)


def update(returns, reward, terminated, skip=NEVER):
    """Takes one step of each copy into the unit."""
    rows = torch.stack([reward, terminated.float(), torch.zeros_like(reward)], -1)
    returns.update(rows, gather=lambda rows: rows, skip=skip)


def step(reward, terminated):
    """Transitions of which no more is asked."""
    return batch(len(reward), spec=SPEC)._replace(reward=reward, terminated=terminated)


def projected(probs, shift, factor, values):
    """Bellemare et al. 2017, algorithm 1, one atom after another: each gives to its neighbours."""
    width = values[1] - values[0]
    found = np.zeros_like(probs)
    for row in range(len(probs)):
        for atom, share in zip(values, probs[row], strict=True):
            moved = np.clip(shift[row] + factor[row] * atom, values[0], values[-1])
            place = (moved - values[0]) / width
            lower, upper = int(np.floor(place + 1e-9)), int(np.ceil(place - 1e-9))
            found[row, lower] += share * (1.0 if lower == upper else upper - place)
            found[row, upper] += 0.0 if lower == upper else share * (place - lower)
    return found


@pytest.mark.parametrize("atoms", [2, 3, 51])
def test_the_target_is_the_projection_of_the_least_member(atoms):
    generator = torch.Generator().manual_seed(0)
    returns = CategoricalReturn(atoms, 0.9)
    returns.values = torch.linspace(-LIMIT, LIMIT, atoms, dtype=torch.float64)  # not rounded
    said = 3.0 * torch.randn(3, 200, atoms, generator=generator, dtype=torch.float64)
    reward, bonus = 2.0 * torch.randn(2, 200, generator=generator, dtype=torch.float64)
    over = torch.arange(200) % 4 == 0
    discount = 0.9 * (~over).double()
    target = returns.target(said, step(reward, over), 0.9, bonus)
    values = np.linspace(-LIMIT, LIMIT, atoms)
    probs = said.softmax(-1).numpy()
    least = (probs * values).sum(-1).argmin(0)
    chosen = probs[least, np.arange(200)]
    expected = projected(chosen, (reward + discount * bonus).numpy(), discount.numpy(), values)
    np.testing.assert_allclose(target.numpy(), expected, atol=1e-9)
    np.testing.assert_allclose(target.sum(-1).numpy(), 1.0, atol=1e-9)


def test_the_mean_of_a_target_is_that_of_a_number_as_long_as_it_is_inside():
    """The projection keeps means; beyond the limit they are cut."""
    returns = CategoricalReturn(11, 0.9)
    generator = torch.Generator().manual_seed(0)
    said = torch.randn(2, 64, 11, generator=generator)
    reward, bonus = 0.1 * torch.randn(2, 64, generator=generator)
    going_on = torch.zeros(64, dtype=torch.bool)
    target = returns.target(said, step(reward, going_on), 0.9, bonus)
    number = reward + 0.9 * (returns.value(said).amin(0) + bonus)
    inside = 0.9 * LIMIT + (reward + 0.9 * bonus).abs() < LIMIT
    assert inside.all()
    torch.testing.assert_close(returns.expected(target), number)
    large = returns.target(said, step(reward + 100.0, going_on), 0.9, bonus)
    torch.testing.assert_close(returns.expected(large), torch.full((64,), LIMIT))


def test_a_literal_projection():
    """On -5, 0, 5: all at 0, moved by 2, is 0.6 at 0 and 0.4 at 5; an end has its reward alone."""
    returns = CategoricalReturn(3, 0.9)
    said = torch.tensor([[[-50.0, 50.0, -50.0]] * 2])
    ends = step(torch.tensor([2.0, -1.0]), torch.tensor([False, True]))
    target = returns.target(said, ends, 0.9, torch.tensor([0.0, 7.0]))
    torch.testing.assert_close(target, torch.tensor([[0.0, 0.6, 0.4], [0.2, 0.8, 0.0]]))


def test_the_loss_is_least_where_critics_say_the_target():
    returns = CategoricalReturn(5, 0.9)
    target = torch.tensor([[0.1, 0.2, 0.3, 0.3, 0.1]])
    said = target.log().expand(2, 1, 5).clone().requires_grad_()
    loss = returns.loss(said, target)
    entropy = -(target * target.log()).sum()
    assert loss.item() == pytest.approx(2 * entropy.item())
    (slope,) = torch.autograd.grad(loss, said)
    assert slope.abs().max() < 1e-6
    other = torch.randn(2, 1, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (slope,) = torch.autograd.grad(returns.loss(other, target), other)
    torch.testing.assert_close(slope, (other.softmax(-1) - target).detach())


def test_the_unit_is_the_larger_of_deviation_and_a_share_of_the_largest_return():
    """Against returns that are kept, by hand: each environment's runs on until it terminates."""
    returns, rng = CategoricalReturn(3, 0.9), np.random.default_rng(0)
    kept, now = [], np.zeros(2)
    for step in range(300):
        reward = rng.normal(0.5, 1.0, 2) + (40.0 if step == 200 else 0.0)
        terminated = rng.random(2) < 0.1
        now = 0.9 * now + reward
        kept.append(now.copy())
        now[terminated] = 0.0
        update(returns, torch.from_numpy(reward).float(), torch.from_numpy(terminated))
        expected = max(np.std(kept), np.abs(kept).max() / LIMIT) if step else 1.0
        if step > 2:
            assert returns.unit.item() == pytest.approx(expected, rel=1e-4)
    assert returns.unit.item() == pytest.approx(np.abs(kept).max() / LIMIT, rel=1e-4)  # not before


def test_the_unit_runs_on_where_an_episode_is_cut():
    """Reward 1 for ever is worth 10, also where no episode has more than four steps."""
    learner = agent("sac", SPEC, gamma=0.9, atoms=7)
    for count in range(200):
        cut = torch.tensor([count % 4 == 3])
        learner.observe(step(torch.ones(1), cut & ~cut)._replace(truncated=cut))
    assert learner.returns.unit.item() == pytest.approx(10 / LIMIT, rel=1e-4)


@pytest.mark.parametrize("changes", [{}, {"atoms": 3}])
def test_the_values_of_what_follows_an_end_count_for_nothing(changes):
    learner = agent("sac", SPEC, **changes)
    for parameter in learner.critic_target.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    ends = step(torch.tensor([1.5]), torch.tensor([True]))
    target = learner.soft_target(ends, ends.next_obs, torch.zeros(1, 2), torch.tensor(torch.inf))
    reward = learner.returns.expected(target) if changes else target
    assert reward.item() == pytest.approx(1.5)


def test_a_step_that_is_to_be_skipped_leaves_no_trace():
    returns = CategoricalReturn(3, 0.9)
    update(returns, torch.tensor([1.0, 2.0]), torch.tensor([False, True]))
    before = saved_and_read(returns.state_dict())
    update(returns, torch.tensor([1e3, 1e3]), torch.tensor([True, False]), ~NEVER)
    after = returns.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in after)


def test_a_large_temperature_beside_scaled_returns_is_warned_of():
    assert agent("sac", SPEC, atoms=7).caution.startswith("agent.alpha_init: 1 is large compared")
    assert agent("sac", SPEC, atoms=7, alpha=0.3).caution.startswith("agent.alpha: 0.3 is large")
    assert agent("sac", SPEC, atoms=7, alpha_init=0.01).caution is None
    assert agent("sac", SPEC).caution is None


def test_losses_equal_their_formulas():
    learner = agent("sac", SPEC, alpha_init=0.3, atoms=7)
    learner.returns.unit.fill_(2.5)
    with torch.no_grad():  # let target and live critic differ
        for parameter in learner.critic_target.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
    data, noise = batch(8, spec=SPEC), torch.randn(2, 8, 2)
    losses, metrics = learner.losses(data, noise, train_actor=True)
    values = learner.returns.values
    next_action, next_log_pi = learner.policy(data.next_obs).rsample_with_log_prob(noise[0])
    next_probs = learner.critic_target(data.next_obs, next_action).softmax(-1)
    least = (next_probs * values).sum(-1).argmin(0)
    chosen = next_probs[least, torch.arange(8)]
    discount = 0.99 * (1 - data.terminated.float())
    shift = data.reward / 2.5 - discount * 0.3 * next_log_pi
    exact = [x.detach().double().numpy() for x in (chosen, shift, discount)]
    target = torch.from_numpy(projected(*exact, np.linspace(-LIMIT, LIMIT, 7)))
    said = learner.critic(data.obs, data.action)
    critic = -(target * said.log_softmax(-1)).sum(-1).mean(1).sum()
    action, log_pi = learner.policy(data.obs).rsample_with_log_prob(noise[1])
    value = (learner.critic(data.obs, action).softmax(-1) * values).sum(-1)
    actor = (0.3 * log_pi - value.min(0).values).mean()
    assert losses["critic"].item() == pytest.approx(critic.item(), rel=1e-4)
    assert losses["actor"].item() == pytest.approx(actor.item(), rel=1e-4)
    told = 2.5 * (target * values).sum(-1).mean()  # in rewards
    assert metrics["value/target_mean"].item() == pytest.approx(told.item(), rel=1e-4)


def test_what_was_observed_goes_on_to_the_bit():
    learner, other = agent("sac", SPEC, atoms=7), agent("sac", SPEC, seed=1, atoms=7)
    for seed in range(5):
        learner.observe(batch(3, spec=SPEC, seed=seed))
    other.load_state_dict(saved_and_read(learner.state_dict()))
    for seed in range(5, 10):
        for one in (learner, other):
            one.observe(batch(3, spec=SPEC, seed=seed))
    assert learner.returns.unit != 1.0
    state, copy = learner.returns.state_dict(), other.returns.state_dict()
    assert all(torch.equal(state[name], copy[name]) for name in state)
    fresh = saved_and_read(learner.state_dict())
    assert_repeats_and_resumes(learner, other, fresh, batch(8, spec=SPEC))


@pytest.mark.parametrize("unit", [2.0**-30, 2.0**20])
def test_the_unit_of_the_rewards_does_not_matter(unit):
    """What is learned is the same to the last bit, while all are equal, too."""
    learners = [agent("sac", SPEC, atoms=7) for _ in range(2)]
    for seed in range(-3, 6):
        for scale, learner in zip((1.0, unit), learners, strict=True):
            data = batch(8, spec=SPEC, seed=max(0, seed))
            reward = data.reward if seed >= 0 else torch.full((8,), seed + 2.0)
            data = data._replace(reward=reward * scale)
            learner.observe(data)
            learner.update(data)
    plain, scaled = (learner.returns.unit.item() for learner in learners)
    assert scaled == plain * unit
    for name in ("actor", "critic", "critic_target", "temperature"):
        pairs = zip(*(learner.modules[name].parameters() for learner in learners), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), name


def test_the_unit_is_one_until_a_return_is_not_zero():
    returns = CategoricalReturn(3, 0.9)
    units = []
    for reward in (0.0, 0.0, 1e-6):
        update(returns, torch.tensor([reward]), torch.tensor([False]))
        units.append(returns.unit.item())
    assert units == pytest.approx([1.0, 1.0, np.std([0, 0, 1e-6])])
