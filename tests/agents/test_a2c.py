"""A2C's losses by hand, its options, and what it must never do."""

import pytest
import torch

from agents.on_policy import standardise
from agents.optimizer import Peers
from data import Spec, gae
from policies import Categorical, FullGaussian, Gaussian, TanhFullGaussian, TanhGaussian
from tests.helpers import agent, batch

DISCRETE = Spec(3, 4, discrete=True)
CONTINUOUS = Spec(3, 2, discrete=False)


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS])
def test_losses_equal_their_formulas(spec):
    learner = agent("a2c", spec, ent_coef=0.03, value_coef=0.7, reward_scale=2.0,
                    normalise_advantage=False)  # fmt: skip
    rollout = batch(5, 4, spec=spec)
    losses, metrics = learner.losses(rollout)
    value, next_value = learner.critic(rollout.obs), learner.critic(rollout.next_obs)
    advantage, target = gae(2 * rollout.reward, value, next_value, rollout.terminated,
                            rollout.truncated, 0.99, 0.95)  # fmt: skip
    parameters = learner.actor(rollout.obs)
    policy = (Categorical if spec.discrete else Gaussian)(*parameters)
    actor = -(advantage.detach() * policy.log_prob(rollout.action, rollout.latent)).mean()
    critic = 0.5 * (target.detach() - value).square().mean()
    total = actor + 0.7 * critic - 0.03 * policy.entropy().mean()
    assert losses["actor"].item() == pytest.approx(total.item(), rel=1e-5)
    assert metrics["loss/critic"].item() == pytest.approx(critic.item(), rel=1e-5)
    assert metrics["policy/entropy"].item() == pytest.approx(policy.entropy().mean().item())


@pytest.mark.parametrize(("given", "epsilon"), [({}, 1e-5), ({"adam_eps": 1e-4}, 1e-4)])
def test_the_first_step_is_that_of_adam_with_its_epsilon(given, epsilon):
    """lr g / (|g| + epsilon), of gradients as small as that; 1e-5 is the published one."""
    learner = agent("a2c", CONTINUOUS, value_coef=1e-5, max_grad_norm=None, lr=0.01, **given)
    rollout = batch(5, 4, spec=CONTINUOUS)
    weights = list(learner.critic.parameters())
    losses, _ = learner.losses(rollout)
    slopes = torch.autograd.grad(losses["critic"], weights)
    assert all(slope.abs().max() < 1e-4 for slope in slopes)
    expected = [
        weight.detach() - 0.01 * slope / (slope.abs() + epsilon)
        for weight, slope in zip(weights, slopes, strict=True)
    ]
    learner.update(rollout)
    for weight, wanted in zip(weights, expected, strict=True):
        assert torch.allclose(weight, wanted, atol=1e-6)


def test_advantages_and_targets_carry_no_gradient():
    learner = agent("a2c", CONTINUOUS, value_coef=0.0, ent_coef=0.0)
    losses, _ = learner.losses(batch(5, 4, spec=CONTINUOUS))
    gradients = torch.autograd.grad(
        losses["actor"], list(learner.critic.parameters()), allow_unused=True
    )
    assert all(g is None or not g.any() for g in gradients)


@pytest.mark.parametrize("plain_name", ["gaussian", "full_gaussian"])
def test_the_squashing_changes_the_entropy_term_alone(plain_name):
    """Given u, the Jacobian does not depend on the parameters: same score, other entropy."""
    rollout = batch(5, 4, spec=CONTINUOUS)
    gradients = []
    for name, action in ((plain_name, rollout.latent), (f"tanh_{plain_name}", rollout.action)):
        learner = agent("a2c", CONTINUOUS, policy=name, ent_coef=0.0)
        losses, metrics = learner.losses(rollout._replace(action=action))
        parameters = list(learner.actor.parameters())
        gradients.append((torch.autograd.grad(losses["actor"], parameters), metrics))
    (plain, plain_metrics), (squashed, squashed_metrics) = gradients
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, squashed, strict=True))
    assert squashed_metrics["policy/entropy"] < plain_metrics["policy/entropy"]


@pytest.mark.parametrize("detach", [True, False])
def test_shared_torso_gets_the_critics_gradient_only_if_not_detached(detach):
    learner = agent("a2c", DISCRETE, shared_torso=True, detach_critic=detach)
    policy, value = learner.evaluate(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))
    assert isinstance(policy, Categorical)
    gradient = torch.autograd.grad(
        value.sum(), list(learner.actor.torso.parameters()), allow_unused=True
    )
    assert all(g is None for g in gradient) == detach
    names = {id(p) for group in learner.optimizer.groups.values() for p in group}
    assert len(names) == sum(len(g) for g in learner.optimizer.groups.values())


def test_standardise_is_safe_with_one_sample_and_with_equal_ones():
    assert standardise(torch.tensor([[7.0]]), Peers()).tolist() == [[0.0]]
    for value in (7.0, 100.1, 0.1):
        assert standardise(torch.full((16, 8), value), Peers()).abs().max() == 0
    draws = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    assert standardise(100 + 1e-5 * draws, Peers()).abs().max() == 0  # of rounding alone
    many = standardise(draws * 5 + 3, Peers())
    assert many.mean().abs() < 1e-5
    assert many.std(correction=0).item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("unit", [2.0**-20, 2.0**20])
def test_the_unit_of_the_rewards_does_not_matter_to_the_policy(unit):
    """Where the value is 0, and so as small as they are."""
    losses = []
    for scale in (1.0, unit):
        learner = agent("a2c", CONTINUOUS, value_coef=0.0)
        torch.nn.init.zeros_(learner.critic.head.weight)
        rollout = batch(5, 4, spec=CONTINUOUS)
        losses.append(learner.losses(rollout._replace(reward=scale * rollout.reward))[0]["actor"])
    assert torch.equal(*losses)


def test_an_update_with_one_sample_is_finite():
    learner = agent("a2c", CONTINUOUS, normalise_obs=True)
    metrics = learner.update(batch(1, 1, spec=CONTINUOUS))
    assert not learner.optimizer.diverged
    assert metrics.pop("value/explained_variance").isnan()  # nothing to explain: no tag
    assert all(value.isfinite().all() for value in metrics.values())
    assert not any(value.requires_grad for value in metrics.values())


def test_statistics_change_only_after_the_update():
    learner = agent("a2c", CONTINUOUS, normalise_obs=True)
    rollout = batch(4, 2, spec=CONTINUOUS)
    for t in range(4):
        learner.observe(type(rollout)(*(field[t] for field in rollout)))
        assert torch.equal(learner.normalizer(rollout.obs), rollout.obs)
    _, metrics = learner.losses(rollout)
    assert torch.equal(learner.update(rollout)["loss/actor"], metrics["loss/actor"])
    assert not torch.equal(learner.normalizer(rollout.obs), rollout.obs)
    assert learner.normalizer.seen_count.item() == 8


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("auto", Gaussian),
        ("tanh_gaussian", TanhGaussian),
        ("full_gaussian", FullGaussian),
        ("tanh_full_gaussian", TanhFullGaussian),
    ],
)
@pytest.mark.parametrize("changes", [{}, {"log_std": "state"}, {"shared_torso": True}])
def test_policies_of_continuous_actions_are_a_choice(name, kind, changes):
    learner = agent("a2c", CONTINUOUS, policy=name, **changes)
    action, latent = learner.act(torch.zeros(3, 3))
    assert torch.equal(action, torch.tanh(latent) if name.startswith("tanh") else latent)
    assert type(learner.policy(torch.zeros(3, 3))) is kind
    before = [p.clone() for p in learner.actor.parameters()]
    metrics = learner.update(batch(5, 4, spec=CONTINUOUS))
    assert not learner.optimizer.diverged
    assert metrics["policy/log_std_mean"].isfinite()
    after = list(learner.actor.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["gaussian", "full_gaussian", "tanh_full_gaussian"])
def test_the_bound_of_the_mean_is_for_unsquashed_policies(name):
    learner = agent("a2c", CONTINUOUS, policy=name, bounded_mean=True)
    torch.nn.init.constant_(learner.actor.mean.bias, -7.0)
    inside = bool((learner.actor(torch.zeros(1, 3))[0].abs() <= 1).all())
    assert inside == (not name.startswith("tanh"))


def test_state_continues_to_the_bit():
    first = agent("a2c", CONTINUOUS, normalise_obs=True, seed=0)
    rollouts = [batch(4, 2, spec=CONTINUOUS, seed=s) for s in range(4)]
    for rollout in rollouts[:2]:
        first.update(rollout)
    second = agent("a2c", CONTINUOUS, normalise_obs=True, seed=1)
    second.load_state_dict(first.state_dict())
    for rollout in rollouts[2:]:
        first.update(rollout)
        second.update(rollout)
    obs = torch.ones(3, 3)
    assert all(torch.equal(a, b) for a, b in zip(first.act(obs), second.act(obs), strict=True))
