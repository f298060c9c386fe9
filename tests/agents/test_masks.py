"""Masked actions in every agent: what is permitted is as without a mask, the rest is nothing."""

import math
from itertools import product

import pytest
import torch

from data import Spec
from networks.normalizer import RunningNorm
from tests.helpers import agent, masked

ONE = Spec(3 + 4, 4, discrete=True, mask=4)
SEVERAL = Spec(3 + 5, 3, discrete=True, choices=(2, 3), mask=5)


def tables(spec, mask):
    """The permitted actions of each choice, of one mask (M,)."""
    return [
        part.nonzero().flatten().tolist() for part in mask.split(spec.choices or (spec.action_dim,))
    ]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("spec", [ONE, SEVERAL])
def test_a_policy_is_the_softmax_of_what_is_permitted(spec, shared):
    learner, data = agent("ppo", spec, shared_torso=shared), masked(20, spec=spec)
    policy, _ = learner.evaluate(data.obs)
    log_prob, entropy = policy.log_prob(data.action), policy.entropy()
    logits = learner.actor.head(learner.actor.torso(data.obs)).detach().double()
    logits = logits.view(20, max(1, len(spec.choices)), -1).requires_grad_()
    expected = []
    for i, obs in enumerate(data.obs):
        chosen = data.action[i].reshape(-1).tolist()
        score, spread = 0.0, 0.0
        for d, permitted in enumerate(tables(spec, obs[-spec.mask :])):
            rows = torch.log_softmax(logits[i, d, permitted], -1)
            score += rows[permitted.index(chosen[d])]
            spread -= (rows.exp() * rows).sum()
        expected.append((score, spread))
    exact = [torch.stack(column) for column in zip(*expected, strict=True)]
    assert torch.allclose(log_prob.double(), exact[0], atol=1e-6)
    assert torch.allclose(entropy.double(), exact[1], atol=1e-6)
    head = learner.actor.head
    for ours, theirs in zip((log_prob, entropy), exact, strict=True):
        (slopes,) = torch.autograd.grad(theirs.sum(), logits, retain_graph=True)
        (bias,) = torch.autograd.grad(ours.sum(), head.bias, retain_graph=True)
        assert torch.allclose(bias.double(), slopes.sum(0).flatten(), atol=1e-5)
    action, _ = learner.act(data.obs)
    for chosen in (action, learner.act(data.obs, deterministic=True)[0]):
        assert learner.policy(data.obs).log_prob(chosen).isfinite().all()
    policy = learner.policy(data.obs)
    every = [torch.tensor(one) for one in product(*map(range, spec.choices or (spec.action_dim,)))]
    every = [one.expand(20, -1) if spec.choices else one.expand(20) for one in every]
    table = torch.stack([policy.log_prob(one) for one in every], -1)
    counts = [math.prod(map(len, tables(spec, obs[-spec.mask :]))) for obs in data.obs]
    assert (table > -torch.inf).sum(-1).tolist() == counts
    assert torch.allclose(table.exp().sum(-1), torch.ones(20), atol=1e-6)


@pytest.mark.parametrize(("name", "changes"), [
    ("a2c", {}), ("ppo", {"shared_torso": True, "normalise_obs": True}),
    ("ppo", {"unit_obs": True}), ("sac_discrete", {"normalise_obs": True})])  # fmt: skip
def test_networks_do_not_see_the_mask(name, changes):
    learner, data = agent(name, ONE, **changes), masked(40, spec=ONE)
    learner.learn_statistics(data.obs)
    free = data.obs.clone()
    free[:, -4:] = 1.0
    seen, open_ = learner.normalizer(data.obs), learner.normalizer(free)
    assert torch.equal(seen[:, -4:], data.obs[:, -4:])
    gap = learner.actor(seen)[0] - learner.actor(open_)[0]
    for row, mask in zip(gap, data.obs[:, -4:].bool(), strict=True):  # one constant, or -inf
        assert (row[mask] - row[mask][0]).abs().max() < 1e-5
        assert (row[~mask] == -torch.inf).all()
    assert torch.equal(learner.critic(seen), learner.critic(open_))


def test_statistics_leave_the_last_components_alone():
    plain, norm = RunningNorm(3), RunningNorm(5, mask=2)
    obs = 5 + torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    plain.update(obs[:, :3])
    norm.update(obs)
    few = obs.clamp(-9, 9)
    assert torch.equal(norm(few)[:, :3], plain(few[:, :3]))
    assert torch.equal(norm(few)[:, 3:], few[:, 3:])


def test_losses_of_discrete_sac_equal_their_formulas():
    learner = agent("sac_discrete", ONE, alpha_init=0.3, target_entropy=0.5)
    data = masked(6, spec=ONE)
    with torch.no_grad():
        for parameter in learner.critic_target.parameters():  # it begins as the critic itself
            parameter.add_(0.05)
        learner.actor.head.bias.add_(torch.arange(4.0))
    losses, metrics = learner.losses(data, torch.ones(6, 4), True)
    actions, next_actions = (
        [tables(ONE, row[-4:])[0] for row in obs] for obs in (data.obs, data.next_obs)
    )
    logits, next_logits = (
        learner.actor.head(learner.actor.torso(obs)) for obs in (data.obs, data.next_obs)
    )
    values, next_values = learner.critic(data.obs), learner.critic_target(data.next_obs)
    critic = actor = entropy = share = 0.0
    for i in range(6):
        after = torch.log_softmax(next_logits[i, next_actions[i]], -1)
        soft = sum(
            log_p.exp() * (next_values[:, i, k].min() - 0.3 * log_p)
            for k, log_p in zip(next_actions[i], after, strict=True)
        )
        target = data.reward[i] + 0.99 * (0.0 if data.terminated[i] else soft)
        critic += sum(0.5 * (values[e, i, data.action[i]] - target) ** 2 for e in range(2)) / 6
        share += math.log(len(actions[i])) / math.log(4) / 6
        log_probs = torch.log_softmax(logits[i, actions[i]], -1)
        for k, log_p in zip(actions[i], log_probs, strict=True):
            actor += log_p.exp() * (0.3 * log_p - values[:, i, k].min().detach()) / 6
            entropy -= log_p.exp() * log_p / 6
    assert losses["critic"].item() == pytest.approx(critic.item(), rel=1e-5)
    assert losses["actor"].item() == pytest.approx(actor.item(), rel=1e-5)
    assert 0 < share < 1
    wanted = math.log(0.3) * (entropy.item() - 0.5 * share)
    assert losses["alpha"].item() == pytest.approx(wanted, rel=1e-5)
    assert metrics["policy/target_entropy"].item() == pytest.approx(0.5 * share, rel=1e-5)
    for name, exact in (("actor", actor), ("critic", critic)):
        parameters = list(learner.optimizer.groups[name])
        ours, theirs = (
            torch.autograd.grad(one, parameters, retain_graph=True) for one in (losses[name], exact)
        )
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one, other, atol=1e-6)


def test_random_actions_are_uniform_among_what_is_permitted():
    learner = agent("sac_discrete", ONE, explore_hold=1)
    mask = torch.tensor([1.0, 0.0, 1.0, 1.0])
    obs = torch.cat([torch.randn(3000, 3), mask.expand(3000, -1)], -1)
    counts = torch.bincount(learner.explore(obs)[0], minlength=4)
    assert counts[1] == 0
    assert (counts[[0, 2, 3]] - 1000).abs().max() < 6 * math.sqrt(3000 * 2 / 9)


def test_a_held_action_is_held_until_it_is_forbidden():
    learner = agent("sac_discrete", ONE, explore_hold=4)

    def explore(mask):
        obs = torch.cat([torch.zeros(50, 3), torch.tensor(mask).expand(50, -1)], -1)
        return learner.explore(obs)[0]

    first = explore([1.0, 1.0, 1.0, 1.0])
    assert torch.equal(explore([1.0, 1.0, 1.0, 1.0]), first)
    third = explore([0.0, 1.0, 1.0, 1.0])
    assert torch.equal(third[first > 0], first[first > 0])
    assert (third > 0).all()
    assert torch.equal(explore([0.0, 1.0, 1.0, 1.0]), third)
    assert not torch.equal(explore([1.0, 1.0, 1.0, 1.0]), third)


@pytest.mark.parametrize(("name", "spec"), [
    ("a2c", ONE), ("ppo", SEVERAL), ("sac_discrete", ONE)])  # fmt: skip
def test_updates_stay_finite_whatever_is_forbidden(name, spec):
    learner = agent(name, spec, **({"ent_coef": 0.1} if name != "sac_discrete" else {}))
    leading = (32,) if name == "sac_discrete" else (32, 8)
    for seed in range(3):
        learner.update(masked(*leading, spec=spec, seed=seed))
    assert not learner.optimizer.diverged
    for module in learner.modules.values():
        assert all(p.isfinite().all() for p in module.parameters())
