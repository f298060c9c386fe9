"""The categorical policy: frequencies, log-probabilities, entropy, extreme logits."""

import math

import pytest
import torch
from scipy import stats

from policies import Categorical


def policy_of(probs, count):
    return Categorical(torch.tensor(probs).log().expand(count, -1))


@pytest.mark.parametrize("probs", [[0.25] * 4, [0.7, 0.2, 0.1], [0.999, 0.001]])
def test_frequencies_are_the_probabilities(probs):
    count = 200_000
    policy = policy_of(probs, count)
    action, latent = policy.sample(policy.noise(torch.Generator().manual_seed(11)))
    assert torch.equal(action, latent)
    observed = torch.bincount(action, minlength=len(probs)).numpy()
    assert stats.chisquare(observed, [p * count for p in probs]).pvalue > 1e-4


def test_frequencies_of_a_wrong_sampler_are_rejected():
    """Negative control: uniform clocks instead of exponential ones."""
    probs, count = [0.7, 0.2, 0.1], 200_000
    policy = policy_of(probs, count)
    clocks = torch.rand(count, 3, generator=torch.Generator().manual_seed(11))
    observed = torch.bincount(policy.sample(clocks)[0], minlength=3).numpy()
    assert stats.chisquare(observed, [p * count for p in probs]).pvalue < 1e-12


def test_log_prob_entropy_and_mode():
    policy = policy_of([0.5, 0.25, 0.25], 2)
    log_prob = policy.log_prob(torch.tensor([0, 2]))
    assert log_prob.tolist() == pytest.approx([math.log(0.5), math.log(0.25)])
    assert policy.entropy().tolist() == pytest.approx([1.5 * math.log(2)] * 2)
    assert policy.deterministic().tolist() == [0, 0]


def test_entropy_equals_the_oracle_with_gradient():
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits.requires_grad_()
    ours = Categorical(torch.log_softmax(logits, -1)).entropy().sum()
    oracle = torch.distributions.Categorical(logits=logits).entropy().sum()
    assert torch.allclose(ours, oracle)
    (gradient,) = torch.autograd.grad(ours, logits, retain_graph=True)
    (expected,) = torch.autograd.grad(oracle, logits)
    assert torch.allclose(gradient, expected, atol=1e-12)


@pytest.mark.parametrize("size", [1e3, 1e30, math.inf])
def test_impossible_actions_are_never_drawn_and_cost_no_nan(size):
    logits = torch.tensor([[0.0, -size, 0.0]]).expand(10_000, -1)
    policy = Categorical(torch.log_softmax(logits, -1))
    action, _ = policy.sample(policy.noise(torch.Generator().manual_seed(5)))
    assert not (action == 1).any()
    assert policy.entropy()[0].item() == pytest.approx(math.log(2), abs=1e-6)
