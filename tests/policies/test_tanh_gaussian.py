"""The squashed Gaussian: exact values and gradients, a density, and its entropy."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from policies import TanhGaussian

mpmath.mp.dps = 50
GRID = [
    (mean, log_std, noise)
    for mean in np.linspace(-50, 50, 29)
    for log_std in np.linspace(-20, 2, 14)
    for noise in np.linspace(-6, 6, 21)
]  # 8,526 points


@pytest.fixture(scope="module")
def reference():
    """50-digit log_pi and its two gradients at the float32 values of the grid."""
    half_log_2pi = mpmath.log(2 * mpmath.pi) / 2
    rows = []
    for point in np.array(GRID, dtype=np.float32):
        mean, log_std, noise = (mpmath.mpf(float(x)) for x in point)
        spread = mpmath.exp(log_std) * noise
        u = mean + spread
        size = abs(u)
        log_cosh = size - mpmath.log(2) + mpmath.log1p(mpmath.exp(-2 * size))
        log_pi = -noise * noise / 2 - log_std - half_log_2pi + 2 * log_cosh
        slope = 2 * mpmath.tanh(u)
        rows.append((float(log_pi), float(slope), float(-1 + slope * spread)))
    return np.array(rows)


def scored(dtype):
    points = torch.tensor(np.array(GRID, dtype=np.float32)).to(dtype)
    mean = points[:, :1].clone().requires_grad_()
    log_std = points[:, 1:2].clone().requires_grad_()
    action, log_pi = TanhGaussian(mean, log_std).rsample_with_log_prob(points[:, 2:])
    log_pi.sum().backward()
    assert action.abs().max() <= 1
    columns = [log_pi.detach(), mean.grad[:, 0], log_std.grad[:, 0]]
    return torch.stack(columns, dim=1).double().numpy()


@pytest.mark.parametrize(
    ("dtype", "bound", "gradient_bound"),
    [(torch.float32, 1e-5, 2e-5), (torch.float64, 1e-12, 1e-11)],
)
def test_log_pi_and_gradients_against_50_digits(reference, dtype, bound, gradient_bound):
    computed = scored(dtype)
    assert np.isfinite(computed).all()
    error = np.abs(computed - reference) / np.maximum(1, np.abs(reference))
    assert error[:, 0].max() <= bound
    assert error[:, 1:].max() <= gradient_bound


def test_the_grid_rejects_the_epsilon_form_and_the_added_jacobian(reference):
    points = torch.tensor(np.array(GRID, dtype=np.float32))
    mean, log_std, noise = points.T
    base = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
    action = torch.tanh(mean + log_std.exp() * noise)
    log_det = torch.log(1 - action**2 + 1e-6)
    for wrong in (base - log_det, base + log_det, base):
        error = np.abs(wrong.double().numpy() - reference[:, 0])
        assert (error / np.maximum(1, np.abs(reference[:, 0]))).max() > 1


@pytest.mark.parametrize("mean", [0.0, 1.0, -3.0])
@pytest.mark.parametrize("log_std", [-3.0, -1.0, 0.0, 1.0])
def test_density_integrates_to_one_and_its_moment_is_the_entropy(mean, log_std):
    """With a = tanh(u) and du as the grid, da = (1 - a^2) du: no node is lost at the edge."""
    u = torch.linspace(mean - 12 * math.exp(log_std), mean + 12 * math.exp(log_std), 40_001)
    u = u.double().unsqueeze(-1)
    policy = TanhGaussian(torch.full_like(u, mean), torch.full_like(u, log_std))
    log_prob = policy.log_prob(torch.tanh(u), latent=u)
    width = torch.exp(-2 * torch.log(torch.cosh(u.squeeze(-1))))
    mass = torch.trapezoid(log_prob.exp() * width, u.squeeze(-1))
    entropy = torch.trapezoid(-log_prob * log_prob.exp() * width, u.squeeze(-1))
    assert abs(mass.item() - 1) <= 1e-9
    assert abs(entropy.item() - policy.entropy()[0].item()) <= 1e-4


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, -1.0), (0.8, 0.0), (-1.5, 0.5)])
def test_samples_follow_the_density(mean, log_std):
    """Probability integral transform by integrating the policy's own exp(log_prob) over actions."""
    generator = torch.Generator().manual_seed(7)
    shape = (100_000, 1)
    policy = TanhGaussian(torch.full(shape, mean), torch.full(shape, log_std))
    action, _ = policy.sample(policy.noise(generator))
    grid = torch.tanh(torch.linspace(-12.0, 12.0, 100_001, dtype=torch.float64)).unsqueeze(-1)
    density = TanhGaussian(torch.full_like(grid, mean), torch.full_like(grid, log_std)).log_prob(
        grid, latent=torch.linspace(-12.0, 12.0, 100_001, dtype=torch.float64).unsqueeze(-1)
    )
    points, heights = grid[:, 0].numpy(), density.exp().numpy()
    areas = 0.5 * (heights[1:] + heights[:-1]) * np.diff(points)
    cdf = np.concatenate([[0.0], np.cumsum(areas)])
    transformed = np.interp(action[:, 0].double().numpy(), points, cdf)
    assert stats.kstest(transformed, "uniform").pvalue > 1e-4


def test_equals_torch_distributions_away_from_saturation():
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    log_std = torch.rand(200, 3, generator=generator, dtype=torch.float64) - 1
    policy = TanhGaussian(mean, log_std)
    action, log_pi = policy.rsample_with_log_prob(policy.noise(generator))
    oracle = TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), [TanhTransform()])
    assert torch.allclose(log_pi, oracle.log_prob(action), atol=1e-6)
    assert torch.allclose(policy.log_prob(action), log_pi, atol=1e-6)
    assert log_pi.shape == (200,)


def test_log_prob_with_the_latent_is_exact_where_inverting_the_action_is_lossy():
    mean, log_std = torch.tensor([[10.0]]), torch.tensor([[0.0]])
    policy = TanhGaussian(mean, log_std)
    action, latent = policy.sample(torch.zeros(1, 1))
    exact = policy.rsample_with_log_prob(torch.zeros(1, 1))[1]
    assert torch.equal(policy.log_prob(action, latent), exact)
    assert abs((policy.log_prob(action) - exact).item()) > 1
    assert policy.log_prob(torch.tensor([[1.0]])).isfinite().all()


@pytest.mark.parametrize("mean", [20.0, -20.0])
def test_saturated_gradients_pull_back_and_do_not_depend_on_history(mean):
    parameters = [torch.full((1, 1), mean), torch.full((1, 1), math.log(0.1))]
    parameters = [p.requires_grad_() for p in parameters]
    policy = TanhGaussian(*parameters)

    def gradients():
        log_pi = policy.rsample_with_log_prob(torch.full((1, 1), 0.5))[1]
        return [g.item() for g in torch.autograd.grad(log_pi.sum(), parameters)]

    first = gradients()
    policy.sample(torch.full((1, 1), -3.0))  # an object that caches its last draw would now differ
    policy.rsample_with_log_prob(torch.full((1, 1), 2.0))
    assert gradients() == first
    assert first[0] == pytest.approx(2 * math.copysign(1, mean))
    assert first[1] == pytest.approx(-1 + 2 * math.copysign(1, mean) * 0.05, abs=1e-5)


def test_entropy_is_largest_at_standard_deviation_0875_and_never_log_2():
    std = torch.linspace(0.05, 4, 4000, dtype=torch.float64).unsqueeze(-1)
    entropy = TanhGaussian(torch.zeros_like(std), std.log()).entropy()
    assert entropy.max().item() == pytest.approx(0.6836, abs=1e-4)
    assert std[entropy.argmax()].item() == pytest.approx(0.875, abs=5e-3)


def test_densities_stay_float32_under_autocast():
    mean, log_std = torch.zeros(4, 2), torch.zeros(4, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        policy = TanhGaussian(mean.bfloat16(), log_std.bfloat16())
        noise = torch.full((4, 2), 1.5)
        log_pi = policy.rsample_with_log_prob(noise)[1]
    expected = TanhGaussian(mean, log_std).rsample_with_log_prob(noise)[1]
    assert log_pi.dtype == torch.float32
    assert torch.equal(log_pi, expected)


def test_deterministic_is_the_median():
    policy = TanhGaussian(torch.full((100_001, 1), 0.4), torch.zeros(100_001, 1))
    action, _ = policy.sample(policy.noise(torch.Generator().manual_seed(0)))
    assert policy.deterministic()[0].item() == pytest.approx(action.median().item(), abs=0.01)


def test_terms_sum_to_log_pi_and_the_jacobian_is_the_squashing_s():
    mean = torch.tensor([[0.3, -9.0]], dtype=torch.float64)
    policy = TanhGaussian(mean, torch.tensor([[-1.0, 0.5]], dtype=torch.float64))
    noise = torch.tensor([[0.7, -1.1]], dtype=torch.float64)
    log_pi = policy.rsample_with_log_prob(noise)[1]
    _, latent = policy.sample(noise)
    terms = policy.terms(noise)
    assert list(terms) == ["gaussian", "scale", "jacobian"]
    assert torch.allclose(sum(terms.values()).sum(-1), log_pi, atol=1e-12)
    assert torch.allclose(terms["jacobian"], 2 * torch.log(torch.cosh(latent)), atol=1e-12)
    without = sum(terms[name] for name in ("gaussian", "scale")).sum(-1)
    assert (log_pi - without).item() > 15  # what leaving the squashing out would cost
    recovered = policy.terms(policy.noise_of(latent))
    assert all(torch.allclose(recovered[name], terms[name], atol=1e-9) for name in terms)
