"""The unsquashed Gaussian against torch.distributions and its own samples."""

import math

import torch
from torch.distributions import Independent, Normal

from policies import Gaussian


def make(count=500):
    generator = torch.Generator().manual_seed(3)
    mean = 3 * torch.randn(count, 4, generator=generator, dtype=torch.float64)
    log_std = 2 * torch.rand(count, 4, generator=generator, dtype=torch.float64) - 1.5
    oracle = Independent(Normal(mean, log_std.exp()), 1)
    return Gaussian(mean, log_std), oracle, generator


def test_log_prob_and_entropy_equal_the_oracle():
    policy, oracle, generator = make()
    action, log_pi = policy.rsample_with_log_prob(policy.noise(generator))
    assert log_pi.shape == (500,)
    assert torch.allclose(log_pi, oracle.log_prob(action), atol=1e-10)
    assert torch.allclose(policy.log_prob(action), log_pi, atol=1e-10)
    assert torch.allclose(policy.entropy(), oracle.entropy(), atol=1e-12)


def test_log_pi_from_the_noise_is_exact_where_the_round_trip_is_not():
    """At mean 50, log_std -20 float32 cannot hold mean + std * noise; the score does not care."""
    mean, log_std = torch.full((1, 1), 50.0), torch.full((1, 1), -20.0)
    noise = torch.full((1, 1), 1.25)
    policy = Gaussian(mean, log_std)
    action, log_pi = policy.rsample_with_log_prob(noise)
    exact = Gaussian(mean.double(), log_std.double()).rsample_with_log_prob(noise.double())[1]
    assert abs(log_pi.double() - exact).item() < 1e-6 * abs(exact.item())
    assert abs(policy.log_prob(action).double() - exact).item() > 0.5


def test_gradient_reaches_the_parameters_through_the_sample():
    mean = torch.zeros(5, 2, requires_grad=True)
    log_std = torch.zeros(5, 2, requires_grad=True)
    noise = torch.full((5, 2), 0.7)
    action, _ = Gaussian(mean, log_std).rsample_with_log_prob(noise)
    action.sum().backward()
    assert torch.equal(mean.grad, torch.ones(5, 2))
    assert torch.allclose(log_std.grad, noise)


def test_sample_has_no_gradient_and_its_latent_is_the_action():
    policy = Gaussian(torch.zeros(5, 2, requires_grad=True), torch.zeros(5, 2))
    action, latent = policy.sample(torch.ones(5, 2))
    assert torch.equal(action, latent)
    assert not action.requires_grad
    assert torch.equal(policy.deterministic(), torch.zeros(5, 2))


def test_terms_are_what_each_dimension_contributes():
    policy, _, generator = make()
    noise = policy.noise(generator)
    terms = policy.terms(noise)
    half_log_2pi = 0.5 * math.log(2 * math.pi)
    assert torch.allclose(terms["gaussian"], -0.5 * noise**2 - half_log_2pi)
    assert torch.equal(terms["scale"], -policy.log_std)
    log_pi = policy.rsample_with_log_prob(noise)[1]
    assert torch.allclose(sum(terms.values()).sum(-1), log_pi, atol=1e-12)
    assert torch.allclose(policy.noise_of(policy.latent_of(noise)), noise, atol=1e-12)
