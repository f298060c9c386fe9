"""Discrete SAC's losses by hand, and problems whose soft optimum is known in closed form."""

import math

import pytest
import torch

from data import Spec, Transition
from tests.helpers import agent, batch

SPEC = Spec(3, 4, discrete=True)


def learn(learner, transitions, updates):
    """Updates on all of these transitions at once."""
    for _ in range(updates):
        learner.update(transitions)


def one_hot(states, count):
    return torch.nn.functional.one_hot(torch.as_tensor(states), count).float()


def test_losses_equal_their_formulas():
    learner = agent("sac_discrete", SPEC, alpha_init=0.3, target_entropy=0.5)
    data = batch(6, spec=SPEC)
    with torch.no_grad():
        for parameter in learner.critic_target.parameters():  # it begins as the critic itself
            parameter.add_(0.05)
    losses, metrics = learner.losses(data, torch.ones(6, 4), True)
    (log_probs,), (next_log_probs,) = learner.actor(data.obs), learner.actor(data.next_obs)
    values, next_values = learner.critic(data.obs), learner.critic_target(data.next_obs)
    critic = actor = entropy = 0.0
    for i in range(6):
        soft = sum(
            next_log_probs[i, k].exp() * (next_values[:, i, k].min() - 0.3 * next_log_probs[i, k])
            for k in range(4)
        )
        target = data.reward[i] + 0.99 * (0.0 if data.terminated[i] else soft)
        critic += sum(0.5 * (values[e, i, data.action[i]] - target) ** 2 for e in range(2)) / 6
        for k in range(4):
            prob = log_probs[i, k].exp()
            actor += prob * (0.3 * log_probs[i, k] - values[:, i, k].min()) / 6
            entropy -= prob * log_probs[i, k] / 6
    assert losses["critic"].item() == pytest.approx(critic.item(), rel=1e-5)
    assert losses["actor"].item() == pytest.approx(actor.item(), rel=1e-5)
    assert losses["alpha"].item() == pytest.approx(math.log(0.3) * (entropy.item() - 0.5), rel=1e-5)
    assert metrics["policy/entropy"].item() == pytest.approx(entropy.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["sac", "sac_discrete"])
def test_targets_begin_as_the_critics_they_follow(name):
    learner = agent(name, SPEC if name == "sac_discrete" else None, actor_tau=0.1)
    for _, live, target in learner.averages:
        assert len(live) == len(target) > 0
        for one, other in zip(live, target, strict=True):
            assert torch.equal(one, other)
            assert one is not other


def test_no_loss_depends_on_the_noise():
    learner, data = agent("sac_discrete", SPEC), batch(6, spec=SPEC)
    (one, first), (two, second) = (
        learner.losses(data, torch.empty(6, 4).exponential_(), True) for _ in range(2)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(first["policy/entropy"], second["policy/entropy"])


def test_the_target_follows_and_actor_and_temperature_wait_for_their_turn():
    learner, data = agent("sac_discrete", SPEC, policy_delay=2, tau=0.25), batch(6, spec=SPEC)
    ((_, live, targets),) = learner.averages
    for delayed in (False, True):
        before = [[p.clone() for p in group] for group in learner.optimizer.groups.values()]
        target = [p.clone() for p in targets]
        learner.update(data)
        moved = [
            not all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
            for old, new in zip(before, learner.optimizer.groups.values(), strict=True)
        ]
        assert moved == [True, not delayed, not delayed]
        for old, new, critic in zip(target, targets, live, strict=True):
            assert torch.allclose(new, 0.75 * old + 0.25 * critic)


@pytest.mark.parametrize("alpha", [0.2, pytest.param(1.0, marks=pytest.mark.slow)])
def test_a_bandit_ends_in_the_boltzmann_policy_of_its_temperature(alpha):
    """pi(k) = exp(r_k / alpha) / sum, V = alpha log sum exp(r / alpha)."""
    reward = torch.tensor([0.0, 0.5, 1.0, -1.0])
    learner = agent("sac_discrete", Spec(1, 4, discrete=True), alpha=alpha, lr=1e-2, gamma=0.0,
                    lr_schedule="linear", horizon=800)  # fmt: skip
    obs, ends = torch.ones(4, 1), torch.ones(4, dtype=torch.bool)
    learn(learner, Transition(obs, torch.arange(4), reward, obs, ends, ~ends), 800)
    expected = (reward / alpha).softmax(-1)
    assert torch.allclose(learner.actor(obs[:1])[0][0].exp(), expected, atol=5e-3)
    assert torch.allclose(learner.critic(obs[:1])[:, 0], reward.expand(2, -1), atol=5e-3)


def test_a_learned_temperature_ends_at_the_entropy_it_aims_for():
    """Of two actions with rewards 0 and 1, alpha solves H(sigmoid(1 / alpha)) = target."""
    target = 0.4
    learner = agent("sac_discrete", Spec(1, 2, discrete=True), target_entropy=target, lr=2e-2,
                    gamma=0.0, lr_schedule="linear", horizon=600)  # fmt: skip
    obs, ends = torch.ones(2, 1), torch.ones(2, dtype=torch.bool)
    learn(learner, Transition(obs, torch.arange(2), torch.tensor([0.0, 1.0]), obs, ends, ~ends),
          600)  # fmt: skip

    def entropy(alpha):
        p = 1 / (1 + math.exp(-1 / alpha))
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    low, high = 0.01, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if entropy(middle) < target else (low, middle)
    assert learner.temperature.log_alpha.exp().item() == pytest.approx(low, rel=0.03)
    policy = learner.policy(obs[:1])
    assert policy.entropy().item() == pytest.approx(target, abs=5e-3)


def test_a_small_mdp_ends_in_soft_value_iteration():
    """Three states in a row, two actions; the last state's second action ends the episode."""
    gamma, alpha = 0.9, 0.5
    states, actions = torch.arange(3).repeat_interleave(2), torch.arange(2).repeat(3)
    successor = torch.tensor([0, 1, 0, 2, 1, 2])
    reward = torch.tensor([0.1, 0.0, 0.0, -0.3, 0.2, 1.0])
    terminated = torch.tensor([False] * 5 + [True])
    value = torch.zeros(3, 2, dtype=torch.float64)
    for _ in range(1000):
        soft = alpha * torch.logsumexp(value / alpha, -1)
        value = (reward + gamma * (~terminated) * soft[successor]).view(3, 2)
    learner = agent("sac_discrete", Spec(3, 2, discrete=True), alpha=alpha, gamma=gamma, lr=1e-2,
                    tau=0.1, lr_schedule="linear", horizon=800)  # fmt: skip
    never = torch.zeros(6, dtype=torch.bool)
    rows = Transition(one_hot(states, 3), actions, reward, one_hot(successor, 3), terminated, never)
    learn(learner, rows, 800)
    obs = one_hot([0, 1, 2], 3)
    found = learner.critic(obs).double()
    assert torch.allclose(found, value.expand(2, -1, -1), atol=0.02)
    policy = learner.actor(obs)[0].exp().double()
    assert torch.allclose(policy, (value / alpha).softmax(-1), atol=0.02)
    # Negative control: without the entropy in the target it would be another fixed point.
    hard = torch.zeros(3, 2, dtype=torch.float64)
    for _ in range(1000):
        expected = ((value / alpha).softmax(-1) * hard).sum(-1)
        hard = (reward + gamma * (~terminated) * expected[successor]).view(3, 2)
    assert (hard - value).abs().max() > 0.3


def test_a_target_entropy_that_no_policy_has_is_refused():
    agent("sac_discrete", SPEC, target_entropy=math.log(4))
    with pytest.raises(ValueError, match=r"1\.4 cannot be .* 4 actions .* log 4 = 1\.386;"):
        agent("sac_discrete", SPEC, target_entropy=1.4)
    with pytest.raises(ValueError, match=r"-1 cannot be reached; .* not less than 0$"):
        agent("sac_discrete", SPEC, target_entropy=-1.0)
    agent("sac_discrete", SPEC, target_entropy=1.4, alpha=0.1)  # then it is not used


def test_a_target_entropy_near_the_most_is_warned_of():
    assert agent("sac_discrete", SPEC).caution is None
    assert agent("sac_discrete", SPEC, target_entropy=0.89 * math.log(4)).caution is None
    risky = agent("sac_discrete", SPEC, target_entropy=0.91 * math.log(4))
    assert "agent.target_entropy: 1.26" in risky.caution
    assert "give at most 1.247" in risky.caution


@pytest.mark.parametrize("actions", [2, 18])
def test_the_automatic_target_can_be_reached(actions):
    learner = agent("sac_discrete", Spec(3, actions, discrete=True))
    assert learner.target_entropy == pytest.approx(0.3 * math.log(actions))


def test_state_continues_to_the_bit():
    first, second = (agent("sac_discrete", SPEC, seed=seed, normalise_obs=True) for seed in (0, 1))
    batches = [batch(8, spec=SPEC, seed=s) for s in range(4)]
    for data in batches[:2]:
        first.update(data)
    second.load_state_dict(first.state_dict())
    for data in batches[2:]:
        one, two = first.update(data), second.update(data)
        assert all(torch.equal(one[name], two[name]) for name in one)
