"""PPO's losses by hand, its passes, and where they stop."""

import math

import pytest
import torch

from agents.on_policy import standardise
from agents.optimizer import Peers
from common.metrics import Metrics, Packed, packing
from common.tree import digest
from data import Spec, gae
from policies import Categorical, Gaussian, TanhGaussian
from runtime.divergence import Recorded
from tests.helpers import agent, batch

DISCRETE = Spec(3, 4, discrete=True)
CONTINUOUS = Spec(3, 2, discrete=False)


def ppo(spec=CONTINUOUS, **changes):
    return agent("ppo", spec, **{"epochs": 3, "batch_size": 10, **changes})


def rows(learner, rollout):
    """The whole rollout as one minibatch, in its own order."""
    fields = (rollout.obs, rollout.action, rollout.latent, *learner.evaluate_rollout(rollout))
    return [field.flatten(0, 1) for field in fields]


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS])
def test_losses_equal_their_formulas(spec):
    learner = ppo(spec, ent_coef=0.03, value_coef=0.7, reward_scale=2.0, clip_range=0.1)
    rollout = batch(5, 4, spec=spec)
    obs, action, latent, advantage, target, log_prob = rows(learner, rollout)
    value, next_value = learner.critic(rollout.obs), learner.critic(rollout.next_obs)
    expected = gae(2 * rollout.reward, value, next_value, rollout.terminated, rollout.truncated,
                   0.99, 0.95)  # fmt: skip
    assert torch.allclose(advantage, expected[0].flatten())
    assert torch.allclose(target, expected[1].flatten())
    old = log_prob + 0.3 * torch.randn(20, generator=torch.Generator().manual_seed(1))
    losses, metrics = learner.losses(obs, action, latent, advantage, target, old)
    parameters = learner.actor(obs)
    policy = (Categorical if spec.discrete else Gaussian)(*parameters)
    ratio = (policy.log_prob(action, latent) - old).exp().tolist()
    surrogate = [
        min(r * a, max(0.9, min(1.1, r)) * a)
        for r, a in zip(ratio, standardise(advantage, Peers()).tolist(), strict=True)
    ]
    actor = -sum(surrogate) / 20
    critic = 0.5 * (target - learner.critic(obs)).square().mean().item()
    total = actor + 0.7 * critic - 0.03 * policy.entropy().mean().item()
    assert losses["actor"].item() == pytest.approx(total, rel=1e-5)
    assert metrics["loss/actor"].item() == pytest.approx(actor, rel=1e-5)
    outside = [abs(r - 1) > 0.1 for r in ratio]
    assert 0 < sum(outside) < 20
    assert metrics["policy/clip_fraction"].item() == pytest.approx(sum(outside) / 20)
    kl = sum(r - 1 - math.log(r) for r in ratio) / 20
    assert metrics["policy/kl"].item() == pytest.approx(kl, rel=1e-4)


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS])
@pytest.mark.parametrize("policy", ["auto", "tanh_gaussian"])
def test_the_first_gradient_is_that_of_a2c(spec, policy):
    """At the weights that acted every ratio is 1, and its gradient is that of log_prob."""
    if spec.discrete:
        policy = "auto"
    rollout, gradients = batch(5, 4, spec=spec), []
    settings = {"policy": policy, "ent_coef": 0.02}
    first, second = agent("a2c", spec, **settings), agent("ppo", spec, **settings)
    for learner, losses in (
        (first, first.losses(rollout)[0]),
        (second, second.losses(*rows(second, rollout))[0]),
    ):
        parameters = [p for group in learner.optimizer.groups.values() for p in group]
        gradients.append(torch.autograd.grad(losses["actor"], parameters))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))
    assert any(g.abs().max() > 1e-3 for g in gradients[0])


def test_the_ratio_of_squashed_policies_is_that_of_their_gaussians():
    learner = ppo(policy="tanh_gaussian")
    rollout = batch(5, 4, spec=CONTINUOUS)
    obs, action, latent, *rest = rows(learner, rollout)
    old = Gaussian(torch.zeros(20, 2), torch.zeros(20, 2))
    squashed = TanhGaussian(old.mean, old.log_std)
    advantage, target, _ = rest
    as_squashed = learner.losses(
        obs, action, latent, advantage, target, squashed.log_prob(action, latent)
    )
    plain = ppo(policy="gaussian")
    as_plain = plain.losses(obs, latent, latent, advantage, target, old.log_prob(latent))
    for name in ("loss/actor", "policy/kl", "policy/clip_fraction"):
        assert as_squashed[1][name].item() == pytest.approx(as_plain[1][name].item(), rel=1e-4)


def test_a_ratio_beyond_its_bound_has_no_gradient():
    """A positive advantage whose ratio is above 1 + clip, a negative one below 1 - clip."""
    for advantage, shift, moves in ((1.0, -1.0, False), (-1.0, 1.0, False), (1.0, 1.0, True)):
        learner = ppo(DISCRETE, normalise_advantage=False, value_coef=0.0)
        obs, action = torch.ones(1, 3), torch.zeros(1, dtype=torch.int64)
        now = learner.policy(obs).log_prob(action).detach()
        losses, _ = learner.losses(
            obs, action, action, torch.tensor([advantage]), torch.zeros(1), now + shift
        )
        gradients = torch.autograd.grad(losses["actor"], list(learner.actor.parameters()))
        assert any(g.any() for g in gradients) == moves


def test_each_pass_takes_every_row_once_in_an_order_of_its_own():
    learner, seen = ppo(epochs=2), []
    step = learner.step
    learner.step = lambda *parts: seen.append(parts[0]) or step(*parts)
    rollout = batch(5, 4, spec=CONTINUOUS)
    metrics = learner.update(rollout)
    assert [len(part) for part in seen] == [10, 10, 10, 10]
    one, two = torch.cat(seen[:2]), torch.cat(seen[2:])
    assert not torch.equal(one, two)
    for taken in (one, two):
        assert torch.equal(taken.sort(0).values, rollout.obs.flatten(0, 1).sort(0).values)
    assert learner.optimizer.updates == 1
    assert learner.optimizer.counts["actor"][0].item() == 4.0
    assert metrics["policy/kl"] > 0
    assert all(value.isfinite().all() for value in metrics.values())


def test_a_kl_beyond_its_target_leaves_the_remaining_minibatches_out():
    rollout = batch(5, 4, spec=CONTINUOUS)
    counts = {}
    for target_kl in (None, 1e-6):
        learner = ppo(epochs=6, lr=1e-2, target_kl=target_kl)
        learner.update(rollout)
        counts[target_kl] = learner.optimizer.counts["actor"][0].item()
    assert counts == {None: 12.0, 1e-6: 1.0}  # the first has a KL of 0, the second too much
    learner.update(rollout)  # it begins anew with every rollout
    assert learner.optimizer.counts["actor"][0].item() == 2.0


def test_minibatches_that_are_left_out_tell_nothing_where_no_flag_is_looked_at():
    """As on a GPU, which makes them all, and takes no step in those after the KL's."""
    rollout, told = batch(5, 4, spec=CONTINUOUS), []
    for reads in (True, False):
        learner = ppo(epochs=6, lr=1e-2, target_kl=1e-3)
        learner.reads_flags = reads
        metrics = learner.update(rollout)
        assert 1.0 <= learner.optimizer.counts["actor"][0].item() < 11.0
        told.append(dict(metrics))
    assert told[0].keys() == told[1].keys()
    for name, value in told[0].items():
        assert torch.equal(value, told[1][name]), name


def test_a_state_that_is_restored_has_not_stopped():
    learner = ppo(target_kl=0.01)
    before = learner.state_dict()
    learner.stopped.fill_(True)
    learner.load_state_dict(before)
    assert not learner.stopped


@pytest.mark.parametrize("recompute", [False, True])
def test_advantages_are_taken_once_or_before_each_pass(recompute):
    learner, calls = ppo(recompute_advantage=recompute), []
    judge = learner.evaluate_rollout
    learner.evaluate_rollout = lambda rollout: calls.append(1) or judge(rollout)
    learner.update(batch(5, 4, spec=CONTINUOUS))
    assert len(calls) == (3 if recompute else 1)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_second_pass_has_the_new_values_where_asked_and_the_old_densities(recompute):
    learner = ppo(recompute_advantage=recompute, epochs=2, batch_size=20, lr=1e-2)
    rollout = batch(5, 4, spec=CONTINUOUS)
    before = learner.evaluate_rollout(rollout)
    passes = learner.minibatches(rollout)
    learner.step(*next(passes))
    after = learner.evaluate_rollout(rollout)
    *_, advantage, target, log_prob = next(passes)
    expected = (*(after if recompute else before)[:2], before[2])
    for found, wanted in zip((advantage, target, log_prob), expected, strict=True):
        assert torch.allclose(found.sort().values, wanted.flatten().sort().values)
    assert all(not torch.allclose(a, b) for a, b in zip(before, after, strict=True))


def test_the_clip_range_follows_a_linear_learning_rate():
    learner = agent("ppo", CONTINUOUS, lr_schedule="linear", clip_schedule="linear", horizon=4)
    assert learner.clip().item() == pytest.approx(0.2)
    for expected in (0.2, 0.15, 0.1):
        learner.update(batch(4, 4, spec=CONTINUOUS))
        assert learner.clip().item() == pytest.approx(expected)


def test_a_minibatch_that_is_not_finite_ends_the_update_and_is_kept():
    learner = ppo()
    rollout = batch(5, 4, spec=CONTINUOUS)
    rollout.action[2, 1] = float("inf")
    learner.step = Recorded(learner.step)
    metrics = learner.update(rollout)
    assert learner.optimizer.diverged
    assert learner.step.arguments[1].isinf().any()
    assert not metrics["loss/actor"].isfinite()


def test_state_continues_to_the_bit():
    first, second = (ppo(normalise_obs=True, seed=seed) for seed in (0, 1))
    rollouts = [batch(5, 4, spec=CONTINUOUS, seed=s) for s in range(4)]
    for rollout in rollouts[:2]:
        first.update(rollout)
    second.load_state_dict(first.state_dict())
    for rollout in rollouts[2:]:
        first.update(rollout)
        second.update(rollout)
    obs = torch.ones(3, 3)
    assert all(torch.equal(a, b) for a, b in zip(first.act(obs), second.act(obs), strict=True))


def test_packed_metrics_are_merged_without_a_slice_for_each(monkeypatch):
    plain, compiled = agent("ppo", epochs=2), agent("ppo", epochs=2)
    compiled.step = Packed(packing(compiled.step))
    monkeypatch.setattr(Metrics, "__getitem__", lambda self, name: pytest.fail("a slice"))
    rollout = batch(20, 4)
    told, expected = compiled.update(rollout), plain.update(rollout)
    assert set(told) == set(expected)
    assert all(torch.equal(told[name], expected[name]) for name in expected)


def test_an_order_that_is_applied_in_parts_is_the_same_order(monkeypatch):
    whole, parted = (agent("ppo", epochs=2, batch_size=16) for _ in range(2))
    rollout = batch(25, 4)
    whole.update(rollout)
    monkeypatch.setattr("agents.ppo.PIECE", 40 * 4 * 3)  # 40 rows: two minibatches
    parted.update(rollout)
    assert digest(parted.state_dict()) == digest(whole.state_dict())


def test_a_rollout_of_images_is_judged_in_parts_of_steps(monkeypatch):
    spec = Spec(4 * 4 * 3, 2, discrete=True, images=((0, (4, 4, 3)),), pixels=True)
    learner, rollout, sizes = agent("ppo", spec), batch(7, 2, spec=spec), []
    whole = learner.evaluate_rollout(rollout)
    monkeypatch.setattr("agents.ppo.PIECE", 4 * spec.obs_dim * 2 * 3)  # three steps
    learner.evaluate = Watched(learner.evaluate, sizes)
    for ours, theirs in zip(learner.evaluate_rollout(rollout), whole, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert sizes == [(3, 2), (3, 2), (1, 2)]


class Watched:
    """What evaluates, and the leading sizes of what it evaluated."""

    def __init__(self, evaluate, sizes):
        self.evaluate, self.sizes = evaluate, sizes

    def __call__(self, obs):
        self.sizes.append(tuple(obs.shape[:-1]))
        return self.evaluate(obs)
