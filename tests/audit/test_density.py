"""The audit passes what is right, over many seeds, and fails each formula that people get wrong."""

import math

import pytest
import torch
from torch import distributions as dist

from audit.density import CURVES, DRAWS, Effort, Trial, audit, examine, marginal
from audit.support import support_between
from policies import Categorical, Gaussian, MultiCategorical, TanhFullGaussian, TanhGaussian
from policies.gaussian import log_det_tanh


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


PARAMETERS = {
    "Gaussian": (torch.tensor([0.5, -3.0]), torch.tensor([-1.0, 0.3])),
    "TanhGaussian": (torch.tensor([0.5, -0.3]), torch.tensor([-1.0, 0.1])),
    "saturated": (torch.tensor([5.0, -12.0]), torch.tensor([-1.6, 0.0])),
    "narrow": (torch.tensor([0.1]), torch.tensor([-9.0])),
    "correlated": (torch.tensor([0.5, -0.3]), torch.tensor([[0.4, 0.0], [0.6, 0.0006]])),
    "Categorical": (torch.log_softmax(torch.tensor([0.0, 1.0, -9.0, 2.0]), -1),),
    "rare": (torch.log_softmax(torch.tensor([0.0, 8.0]), -1),),
    "certain": (torch.log_softmax(torch.tensor([0.0, 80.0]), -1),),
}
CLASSES = {
    "Gaussian": Gaussian,
    "correlated": TanhFullGaussian,
    "Categorical": Categorical,
    "certain": Categorical,
    "rare": Categorical,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_correct_policy_passes(name):
    for seed in range(30):
        found = audit(CLASSES.get(name, TanhGaussian), PARAMETERS[name], generator(seed))
        assert found.failures == ()
        assert found.pit_ks < 0.1
        assert abs(found.normaliser - 1.0) < 0.1
        assert abs(found.entropy_gap) < 0.2


class Added(TanhGaussian):
    """The Jacobian added instead of subtracted."""

    def log_prob(self, action, latent=None):
        return super().log_prob(action, latent) + 2.0 * log_det_tanh(latent).sum(-1)


class Sigma(Gaussian):
    """sigma where log sigma belongs."""

    def log_prob(self, action, latent=None):
        return super().log_prob(action) + (self.log_std - self.log_std.exp()).sum(-1)


class Epsilon(TanhGaussian):
    """log(1 - a^2 + 1e-6)."""

    def log_prob(self, action, latent=None):
        wrong = torch.log(1.0 - action.square() + 1e-6)
        return super().log_prob(action, latent) + (log_det_tanh(latent) - wrong).sum(-1)


class Squashed(TanhGaussian):
    """The correction applied to the squashed action."""

    def log_prob(self, action, latent=None):
        wrong = log_det_tanh(action)
        return super().log_prob(action, latent) + (log_det_tanh(latent) - wrong).sum(-1)


class Unsummed(TanhGaussian):
    """The correction of the first dimension only."""

    def log_prob(self, action, latent=None):
        return super().log_prob(action, latent) + log_det_tanh(latent)[..., 1:].sum(-1)


@pytest.mark.parametrize(
    ("wrong", "name", "words"),
    [
        (Added, "TanhGaussian", "pit_ks"),
        (Sigma, "Gaussian", "normaliser"),
        (Epsilon, "saturated", "pit_ks"),
        (Squashed, "TanhGaussian", "pit_ks"),
        (Unsummed, "TanhGaussian", "component 1"),
    ],
)
def test_each_wrong_density_fails(wrong, name, words):
    assert words in "; ".join(audit(wrong, PARAMETERS[name], generator()).failures)


def test_an_entropy_that_is_not_the_draws_fails():
    class Base(TanhGaussian):
        def entropy(self):
            return Gaussian(self.mean, self.log_std).entropy()

    found = audit(Base, PARAMETERS["TanhGaussian"], generator())
    assert "entropy_gap" in found.failures[0]
    assert found.entropy_gap < -0.1


def test_choices_that_are_not_drawn_as_claimed_fail():
    class Biased(Categorical):
        def sample(self, noise=None):
            return Categorical(1.2 * self.log_probs).sample(noise)

    assert "frequencies" in audit(Biased, PARAMETERS["Categorical"], generator()).failures[0]


def test_no_number_passes_no_trial():
    assert Trial("a distance", 0.5, 0.5).passed
    assert not Trial("a distance", 0.6, 0.5).passed
    assert not Trial("a distance", math.nan, 0.5).passed
    assert not Trial("a distance", 0.5, math.nan).passed


def test_saturated_draws_are_shown_before_the_squashing():
    assert audit(TanhGaussian, PARAMETERS["saturated"], generator()).curves[1].unit == "latent"
    assert audit(TanhGaussian, PARAMETERS["TanhGaussian"], generator()).curves[1].unit == "action"


@pytest.mark.parametrize("name", ["Gaussian", "TanhGaussian", "saturated", "narrow", "correlated"])
def test_the_curve_is_a_density_over_its_own_axis(name):
    for curve in audit(CLASSES.get(name, TanhGaussian), PARAMETERS[name], generator()).curves:
        assert torch.trapezoid(curve.density, curve.grid).item() == pytest.approx(1.0, abs=2e-3)


def test_of_many_components_the_first_have_a_curve():
    size = CURVES + 1
    parameters = (torch.linspace(-0.4, 0.4, size), torch.full((size,), -1.0))
    found = audit(TanhGaussian, parameters, generator())
    assert found.failures == ()
    assert len(found.curves) == CURVES
    choices = torch.log_softmax(torch.zeros(size, 2), -1)
    assert len(audit(MultiCategorical, (choices,), generator()).curves) == CURVES


def test_a_curve_among_more_components_than_lines_is_a_density():
    size = Effort().curve_lines + 1
    policy = TanhGaussian(
        torch.linspace(-0.4, 0.4, size, dtype=torch.float64),
        torch.full((size,), -1.0, dtype=torch.float64),
    )
    latent = policy.latent_of(torch.randn(DRAWS, size, generator=generator()).double())
    support = support_between(size, 1.0)

    def density(u):
        return policy.log_prob(torch.tanh(u), u) + support.log_slope(u)

    for dimension in (0, 3, 6):
        curve = marginal(density, support, latent, dimension, generator(1), Effort())
        assert torch.trapezoid(curve.density, curve.grid).item() == pytest.approx(1.0, abs=0.1)


def test_the_curve_shows_a_constant_factor():
    class Twice(TanhGaussian):
        def log_prob(self, action, latent=None):
            return super().log_prob(action, latent) + math.log(2.0)

    for curve in audit(Twice, PARAMETERS["TanhGaussian"], generator()).curves:
        assert torch.trapezoid(curve.density, curve.grid).item() == pytest.approx(2.0, abs=4e-3)


@pytest.mark.parametrize("coupling", [0.0, 0.6])
def test_the_curve_of_a_component_is_its_marginal(coupling):
    mean, tril = PARAMETERS["correlated"][0], torch.tensor([[0.4, 0.0], [coupling, 0.0006]])
    std = tril.square().sum(-1).sqrt()
    for i, curve in enumerate(audit(TanhFullGaussian, (mean, tril), generator()).curves):
        wanted = TanhGaussian(mean[i : i + 1].double(), std[i : i + 1].log().double())
        exact = wanted.log_prob(curve.grid.unsqueeze(-1)).exp()
        assert torch.allclose(curve.density, exact, rtol=1e-3, atol=1e-12)


def test_the_curve_is_the_one_of_the_formula():
    parameters = tuple(parameter[:1] for parameter in PARAMETERS["Gaussian"])
    curve = audit(Gaussian, parameters, generator()).curves[0]
    std = math.exp(-1.0)
    wanted = torch.distributions.Normal(0.5, std).log_prob(curve.grid).exp()
    assert torch.allclose(curve.density, wanted.double(), rtol=1e-5, atol=1e-7)


def test_a_wide_part_that_no_proposal_reaches_is_not_unlikely():
    stds = torch.tensor([[0.1, 0.1], [30.0, 30.0]]).double()
    parts = dist.Independent(dist.Normal(torch.zeros(2, 2).double(), stds), 1)
    policy = dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.999, 0.001])), parts)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = policy.sample((20_000,))
    found = examine(
        policy.log_prob, support_between(2), draws, policy.log_prob(draws), torch.Generator()
    )
    assert not [
        trial for trial in found.trials if "farthest out" in trial.name and not trial.passed
    ]
