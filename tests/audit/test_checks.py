"""The tests of densities: their p-values, and that they tell right from wrong."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from audit.chance import (
    bartlett,
    chi2_p_value,
    ks_bound,
    ks_p_value,
    ks_statistic,
    mean_p_value,
)
from audit.checks import factor, line_integral, line_pit, proposed, quadratic
from audit.support import log_slope, support_between
from policies import Gaussian, TanhFullGaussian, TanhGaussian

TRIL = torch.tensor([[0.8, 0.0, 0.0], [-0.7, 0.3, 0.0], [0.2, 0.5, 0.1]], dtype=torch.float64)


def tanh_gaussian(mean, log_std):
    return TanhGaussian(
        torch.tensor(mean, dtype=torch.float64), torch.tensor(log_std, dtype=torch.float64)
    )


def latents(policy, count, seed):
    """Draws of a policy with parameters (A,), before squashing, by numpy's generator."""
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((count, len(policy.mean))))
    return policy.mean + policy.log_std.exp() * noise


def density(policy, squashed):
    """Of the policy's latents."""
    bounds = support_between(1, 1.0 if squashed else math.inf)

    def score(u):
        return policy.log_prob(torch.tanh(u) if squashed else u, u) + bounds.log_slope(u)

    return score


class JacobianForgotten(TanhGaussian):
    def log_prob(self, action, latent=None):
        return Gaussian(self.mean, self.log_std).log_prob(latent)


class JacobianAdded(TanhGaussian):
    def log_prob(self, action, latent=None):
        right = super().log_prob(action, latent)
        return right + 2 * log_slope(latent).sum(-1)


@pytest.mark.parametrize(
    ("count", "distance", "level"),
    [(10, 0.409, 0.05), (20, 0.294, 0.05), (20, 0.352, 0.01),
     (1000, 1.3581 / 1000**0.5, 0.05), (1000, 1.6276 / 1000**0.5, 0.01)],
)  # fmt: skip
def test_p_value_of_kolmogorov_smirnov_is_that_of_the_tables(count, distance, level):
    """Massey 1951, table 1, and its limit."""
    assert ks_p_value(distance, count) == pytest.approx(level, rel=0.05)


@pytest.mark.parametrize("count", [50, 500, 5000])
@pytest.mark.parametrize("level", [0.9, 0.3, 1e-2, 1e-4, 1e-6])
def test_p_value_of_kolmogorov_smirnov_is_near_the_exact_one(count, level):
    assert ks_p_value(stats.kstwo.isf(level, count), count) == pytest.approx(level, rel=0.15)


def test_distance_of_kolmogorov_smirnov_and_its_edges():
    values = torch.rand(300, generator=torch.Generator().manual_seed(0)) ** 1.2
    expected = stats.kstest(values.double().numpy(), "uniform").statistic
    assert ks_statistic(values) == pytest.approx(expected, abs=1e-12)
    assert ks_statistic(torch.full((9,), 3.0)) == 1.0
    assert ks_statistic(torch.tensor([0.5, math.nan])) == 1.0
    assert ks_p_value(1.0, 500) < 1e-200
    assert ks_p_value(0.0, 500) == 1.0


def test_chi_square_equals_the_oracle_and_pools_rare_cells():
    probs = torch.tensor([0.5, 0.3, 0.195, 0.003, 0.002])
    counts = torch.tensor([480, 330, 184, 4, 2])
    pooled = stats.chisquare([480, 330, 184, 6], [500, 300, 195, 5]).pvalue
    assert chi2_p_value(counts, probs) == pytest.approx(pooled, rel=1e-5)


def test_chi_square_refuses_what_cannot_be():
    counts = torch.tensor([50, 50])
    assert chi2_p_value(counts, torch.tensor([0.5, 0.5])) == 1.0
    assert chi2_p_value(counts, torch.tensor([1.0, 0.0])) == 0.0
    assert chi2_p_value(counts, torch.tensor([0.4, 0.4])) == 0.0
    assert chi2_p_value(torch.tensor([100]), torch.tensor([1.0])) == 1.0


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("log_std", [-5.0, -1.0, 1.0])
@pytest.mark.parametrize("mean", [0.0, -4.0, 12.0])
def test_line_is_the_distribution_function_of_each_component(mean, log_std, others):
    policy = tanh_gaussian([mean, 0.5][: 1 + others], [log_std, 0.0][: 1 + others])
    u = latents(policy, 400, seed=1)
    exact = torch.special.ndtr((u[:, 0] - mean) / math.exp(log_std))
    assert (line_pit(density(policy, True), u, 0) - exact).abs().max() < 1e-6


@pytest.mark.parametrize("dimension", [0, 1, 2])
def test_line_is_the_conditional_distribution_function_under_correlation(dimension):
    mean = torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64)
    policy = TanhFullGaussian(mean, TRIL)
    noise = torch.from_numpy(np.random.default_rng(2).standard_normal((300, 3)))
    u = mean + noise @ TRIL.T
    precision = torch.linalg.inv(TRIL @ TRIL.T)
    others = [i for i in range(3) if i != dimension]
    shift = (u[:, others] - mean[others]) @ precision[dimension, others]
    own = precision[dimension, dimension]
    exact = torch.special.ndtr((u[:, dimension] - mean[dimension] + shift / own) * own.sqrt())
    assert (line_pit(density(policy, True), u, dimension) - exact).abs().max() < 1e-4


def integral(density, u, generator):
    """With its standard error."""
    _, _, weights, _ = proposed(density, u, generator)
    return float(weights.mean()), float(weights.std()) / math.sqrt(len(weights))


@pytest.mark.parametrize("dimension", [0, 1])
def test_the_line_and_the_normaliser_follow_components_that_are_nearly_one(dimension):
    mean = torch.tensor([0.3, -0.2], dtype=torch.float64)
    tril = torch.tensor([[0.1, 0.0], [0.3, 0.0001]], dtype=torch.float64)
    policy = TanhFullGaussian(mean, tril)
    noise = torch.from_numpy(np.random.default_rng(8).standard_normal((1000, 2)))
    u = mean + noise @ tril.T
    precision = torch.linalg.inv(tril @ tril.T)[dimension]
    shift = (u - mean)[:, 1 - dimension] * precision[1 - dimension] / precision[dimension]
    deviation = ((u - mean)[:, dimension] + shift) * precision[dimension].sqrt()
    found = line_pit(density(policy, True), u, dimension, nodes=33)
    assert (found - torch.special.ndtr(deviation)).abs().max() < 1e-4
    estimate, error = integral(density(policy, True), u, torch.Generator().manual_seed(0))
    assert abs(estimate - 1) < 4 * error


def test_the_factor_is_that_of_the_covariance_and_refuses_nothing():
    u = torch.from_numpy(np.random.default_rng(9).standard_normal((500, 3))) @ TRIL.T
    assert torch.allclose(factor(u), torch.linalg.cholesky(torch.cov(u.T)))
    u[:, 1] = 2.0 * u[:, 0]
    assert torch.allclose(factor(u) @ factor(u).T, torch.cov(u.T))


def test_unsquashed_policies_have_no_slope():
    policy = Gaussian(torch.zeros(1).double(), torch.zeros(1).double())
    u = latents(policy, 200, seed=3)
    found = line_pit(density(policy, False), u, 0)
    assert (found - torch.special.ndtr(u[:, 0])).abs().max() < 1e-6


def test_p_values_of_the_right_density_are_uniform_over_seeds():
    policy = tanh_gaussian([1.0, -3.0], [0.0, -1.5])
    found = []
    for seed in range(150):
        pit = line_pit(density(policy, True), latents(policy, 150, seed), seed % 2, nodes=65)
        found.append(ks_p_value(ks_statistic(pit), 150))
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    assert min(found) > 1e-5


@pytest.mark.parametrize("wrong", [JacobianForgotten, JacobianAdded])
def test_a_wrong_density_is_rejected_by_both(wrong):
    right = tanh_gaussian([0.5, -1.0], [0.0, -0.5])
    u = latents(right, 2000, seed=4)
    policy = wrong(right.mean, right.log_std)
    assert ks_p_value(ks_statistic(line_pit(density(policy, True), u, 0)), 2000) < 1e-9
    estimate, error = integral(density(policy, True), u, torch.Generator().manual_seed(0))
    assert abs(estimate - 1) > 8 * error


def test_draws_of_another_distribution_are_rejected():
    policy = tanh_gaussian([0.5, -1.0], [0.0, -0.5])
    u = latents(tanh_gaussian([0.5, -1.0], [0.15, -0.5]), 5000, seed=5)
    assert ks_p_value(ks_statistic(line_pit(density(policy, True), u, 0)), 5000) < 1e-7


@pytest.mark.parametrize("squashed", [False, True])
def test_the_normaliser_of_a_density_is_one_and_its_error_is_honest(squashed):
    make = TanhGaussian if squashed else Gaussian
    policy = make(
        torch.linspace(-3, 8, 6, dtype=torch.float64), torch.linspace(-4, 0.5, 6).double()
    )
    deviations = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        u = latents(policy, 1000, seed)
        estimate, error = integral(density(policy, squashed), u, generator)
        deviations.append((estimate - 1) / error)
        assert error < 0.05
    assert stats.kstest(deviations, "norm").pvalue > 1e-3


def test_the_normaliser_follows_correlation_and_sees_a_constant_factor():
    mean = torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64)
    policy = TanhFullGaussian(mean, TRIL)
    noise = torch.from_numpy(np.random.default_rng(6).standard_normal((5000, 3)))
    u = mean + noise @ TRIL.T
    generator = torch.Generator().manual_seed(0)
    estimate, error = integral(density(policy, True), u, generator)
    assert error < 0.02
    assert abs(estimate - 1) < 4 * error

    class Halved:
        def log_prob(self, action, latent=None):
            return policy.log_prob(action, latent) - math.log(2)

    estimate, error = integral(density(Halved(), True), u, generator)
    assert abs(estimate - 0.5) < 4 * error
    assert ks_p_value(ks_statistic(line_pit(density(Halved(), True), u, 0, nodes=65)), 5000) > 1e-6


@pytest.mark.parametrize("count", [100, 4000])
@pytest.mark.parametrize("p_value", [1e-3, 1e-7])
def test_the_bound_of_ks_is_the_distance_of_that_p_value(count, p_value):
    assert ks_p_value(ks_bound(count, p_value), count) == pytest.approx(p_value)


@pytest.mark.parametrize(
    "wanted",
    [
        torch.distributions.Normal(3.0, 0.01),
        torch.distributions.Laplace(0.0, 2.0),
        torch.distributions.Cauchy(1.0, 2.0),
        torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(torch.tensor([0.3, 0.7])),
            torch.distributions.Normal(torch.tensor([-3.0, 2.0]), torch.tensor([0.1, 1.0])),
        ),
    ],
)
def test_a_line_is_integrated_whatever_its_form_and_tails(wanted):
    draws = torch.from_numpy(np.random.default_rng(0).uniform(size=(20_000, 1)))
    if hasattr(wanted, "mixture_distribution"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            draws = wanted.sample((20_000, 1)).double()
    else:
        draws = wanted.icdf(draws)
    integral, of_log, distance, rare = line_integral(
        lambda u: wanted.log_prob(u).squeeze(-1), draws
    )
    assert integral == pytest.approx(1, abs=3e-4)
    few, *_ = line_integral(lambda u: wanted.log_prob(u).squeeze(-1), draws[:500])
    assert few == pytest.approx(1, abs=1e-3)
    assert distance < ks_bound(20_000, 1e-4)
    assert rare < 6.0
    assert of_log == pytest.approx(float(wanted.log_prob(draws).mean()), abs=0.05)
    shift = 0.3 * (draws.quantile(0.75) - draws.quantile(0.25))
    shifted, _, distance, rare = line_integral(
        lambda u: wanted.log_prob(u - shift).squeeze(-1) + 0.1, draws
    )
    assert shifted == pytest.approx(math.exp(0.1), abs=1e-2)
    assert distance > 0.04
    assert rare > 9.0


def test_narrow_modes_that_a_few_of_the_outermost_draws_hit_are_integrated():
    counts = torch.tensor([10, 20, 19_940, 20, 10])
    means = torch.tensor([-1000.0, -900.0, 0.0, 900.0, 1000.0]).double()
    modes = torch.distributions.Normal(means, torch.tensor([1e-3, 1e-3, 1, 1e-3, 1e-3]).double())
    weights = torch.distributions.Categorical(counts.double())
    wanted = torch.distributions.MixtureSameFamily(weights, modes)
    levels = [(torch.arange(count).double() + 0.5) / count for count in counts.tolist()]
    draws = [modes.icdf(level[:, None])[:, mode] for mode, level in enumerate(levels)]
    integral, *_ = line_integral(
        lambda u: wanted.log_prob(u).squeeze(-1), torch.cat(draws).unsqueeze(-1)
    )
    assert integral == pytest.approx(1, abs=3e-4)


def test_draws_that_are_rounded_to_the_end_of_a_step_are_not_rare():
    draws = ((torch.arange(20_000).double() + 0.5) / 20_000).unsqueeze(-1)
    draws[draws < 0.003] = 0.0015  # 60 of them
    uniform = lambda u: torch.where((u > 0) & (u < 1), 0.0, -torch.inf).squeeze(-1)  # noqa: E731
    assert line_integral(uniform, draws)[-1] < 9.0
    draws[draws < 0.006] = 0.006  # twice as many: too far
    assert line_integral(uniform, draws)[-1] > 9.0


def test_the_gaussian_of_scores_is_found_with_what_is_left():
    latent = torch.from_numpy(np.random.default_rng(1).standard_normal((3000, 3))) @ TRIL.T + 5.0
    mean = torch.tensor([5.0, 4.0, 6.0], dtype=torch.float64)
    right = torch.distributions.MultivariateNormal(mean, scale_tril=TRIL).log_prob(latent)
    found = quadratic(latent, right + 0.3, 3000)
    assert found.offset == pytest.approx(0.3, abs=1e-8)
    assert torch.allclose(found.mean, mean)
    assert torch.allclose(found.covariance, TRIL @ TRIL.T)
    assert found.residual.abs().max() < 1e-8
    bump = torch.zeros(3000, dtype=torch.float64)
    bump[-1] = 0.5
    assert quadratic(latent, right + bump, 2999).residual[-1] == pytest.approx(0.5, abs=1e-8)
    for other in (0 * right, 1e-9 * right, -right):
        assert math.isnan(quadratic(latent, other, 3000).offset)


def test_the_mean_and_the_covariance_of_right_draws_have_uniform_p_values():
    noise = np.random.default_rng(2).standard_normal((300, 200, 3))
    for test in (mean_p_value, bartlett):
        found = np.array([test(torch.from_numpy(draws)) for draws in noise])
        assert 0.04 < np.mean(found < 0.1) < 0.17 if test is mean_p_value else found.min() > 1e-4
        assert test(torch.from_numpy(1.2 * noise[:, 0] + 0.2)) < 1e-3
