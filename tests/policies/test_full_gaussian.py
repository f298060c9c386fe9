"""Full covariance, plain and squashed: oracle, integral, 50 digits, entropy, and its terms."""

import math

import mpmath
import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, TanhTransform, TransformedDistribution

from policies import FullGaussian, Gaussian, TanhFullGaussian, TanhGaussian

mpmath.mp.dps = 50


def parameters(*leading, size=3, seed=0, spread=1.0, dtype=torch.float64):
    """mean, a factor with couplings far from 0, and noise; the first two ask for gradients."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*leading, *shape, generator=generator, dtype=torch.float64)

    std = spread * (0.7 * normal(size, 1) - 0.5).exp()
    factor = std * (normal(size, size).tril(-1) + torch.eye(size, dtype=torch.float64))
    mean, noise = 0.8 * normal(size), normal(size)
    return mean.to(dtype).requires_grad_(), factor.to(dtype).requires_grad_(), noise.to(dtype)


def gradients(value, *inputs):
    return torch.autograd.grad(value.sum(), inputs, retain_graph=True, materialize_grads=True)


def oracle_of(mean, factor, squashed=False):
    plain = MultivariateNormal(mean, scale_tril=factor)
    return TransformedDistribution(plain, [TanhTransform()]) if squashed else plain


def test_values_and_gradients_equal_the_oracle():
    mean, factor, noise = parameters(40, 5)
    policy, oracle = FullGaussian(mean, factor), oracle_of(mean, factor)
    action, log_pi = policy.rsample_with_log_prob(noise)
    assert log_pi.shape == (40, 5)
    assert torch.allclose(log_pi, oracle.log_prob(action), atol=1e-10)
    assert torch.allclose(policy.entropy(), oracle.entropy(), atol=1e-12)
    assert torch.allclose(policy.log_std.exp(), oracle.stddev, atol=1e-12)
    given = action.detach()
    for ours, theirs in (
        (policy.log_prob(given), oracle.log_prob(given)),  # the score
        (log_pi, oracle.log_prob(action)),  # along the path
        (policy.entropy(), oracle.entropy()),
    ):
        for a, b in zip(gradients(ours, mean, factor), gradients(theirs, mean, factor),
                        strict=True):  # fmt: skip
            assert torch.allclose(a.tril(), b.tril(), atol=1e-8)  # above the diagonal L is 0


def test_the_squashed_one_equals_the_oracle_away_from_saturation():
    mean, factor, noise = parameters(200, spread=0.5)
    policy, oracle = TanhFullGaussian(mean, factor), oracle_of(mean, factor, squashed=True)
    action, log_pi = policy.rsample_with_log_prob(noise)
    assert torch.allclose(log_pi, oracle.log_prob(action), atol=1e-5)
    given, latent = policy.sample(noise)
    assert torch.equal(given, action)
    assert not given.requires_grad
    assert torch.allclose(policy.log_prob(given, latent), log_pi, atol=1e-10)
    assert torch.allclose(policy.log_prob(given), log_pi, atol=1e-5)


def test_the_oracle_rejects_the_usual_slips():
    """Without the couplings, with L transposed, with -log of the marginal deviations."""
    mean, factor, noise = (x.detach() for x in parameters(40))
    action, log_pi = FullGaussian(mean, factor).rsample_with_log_prob(noise)
    exact = oracle_of(mean, factor).log_prob(action)
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    upper = torch.einsum("bji,bj->bi", factor, noise) + mean
    marginal = log_pi + diagonal.log().sum(-1) - FullGaussian(mean, factor).log_std.sum(-1)
    for wrong in (
        Gaussian(mean, diagonal.log()).log_prob(action) - exact,
        log_pi - oracle_of(mean, factor).log_prob(upper),
        marginal - exact,
    ):
        assert wrong.abs().max() > 0.5


@pytest.mark.parametrize(
    ("full", "diagonal"), [(FullGaussian, Gaussian), (TanhFullGaussian, TanhGaussian)]
)
def test_without_couplings_it_is_the_diagonal_policy(full, diagonal):
    generator = torch.Generator().manual_seed(5)
    mean, log_std = torch.randn(2, 50, 4, generator=generator, dtype=torch.float64)
    ours, theirs = full(mean, log_std.exp().diag_embed()), diagonal(mean, log_std)
    noise = ours.noise(torch.Generator().manual_seed(1))
    assert torch.equal(noise, theirs.noise(torch.Generator().manual_seed(1)))
    for a, b in zip(ours.sample(noise), theirs.sample(noise), strict=True):
        assert torch.equal(a, b)
    exact = {"rtol": 1e-14, "atol": 1e-14}  # log(exp(log_std)) rounds
    action, latent = ours.sample(noise)
    for a, b in (
        (ours.rsample_with_log_prob(noise)[1], theirs.rsample_with_log_prob(noise)[1]),
        (ours.log_prob(action, latent), theirs.log_prob(action, latent)),
        (ours.entropy(), theirs.entropy()),
        (ours.log_std, theirs.log_std),
    ):
        assert torch.allclose(a, b, **exact)
    assert torch.equal(ours.deterministic(), theirs.deterministic())


FACTORS = [
    [[0.5, 0.0], [0.9, 0.3]],  # correlation 0.95
    [[1.0, 0.0], [-0.6, 0.8]],
    [[0.1, 0.0], [0.0, 1.5]],
]


def on_a_grid(factor, nodes=801):
    """A squashed policy on a grid of latents, with da = (1 - a^2) du: no node lost at the edge."""
    mean = torch.tensor([0.4, -0.7], dtype=torch.float64)
    factor = torch.tensor(factor, dtype=torch.float64)
    reach = 9 * factor.square().sum(-1).sqrt()
    first, second = (
        torch.linspace(float(m - r), float(m + r), nodes, dtype=torch.float64)
        for m, r in zip(mean, reach, strict=True)
    )
    latent = torch.cartesian_prod(first, second)
    policy = TanhFullGaussian(mean, factor)
    log_prob = policy.log_prob(torch.tanh(latent), latent)
    area = (first[1] - first[0]) * (second[1] - second[0]) / latent.cosh().square().prod(-1)
    return policy, log_prob, area


@pytest.mark.parametrize("factor", FACTORS)
def test_density_integrates_to_one_and_its_moment_is_the_entropy(factor):
    policy, log_prob, area = on_a_grid(factor)
    mass = log_prob.exp() * area
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-6)
    assert -(mass * log_prob).sum().item() == pytest.approx(policy.entropy().item(), abs=1e-5)


def test_the_grid_rejects_an_entropy_from_the_diagonal_of_the_factor():
    """The quadrature needs the marginal deviations: L_ii alone is too narrow."""
    policy, log_prob, area = on_a_grid(FACTORS[0])
    integral = -(log_prob.exp() * area * log_prob).sum()
    wrong = TanhGaussian(policy.mean, policy.log_scale).entropy()
    assert abs(wrong - integral) > 0.1


@pytest.mark.parametrize("policy_class", [FullGaussian, TanhFullGaussian])
def test_entropy_equals_the_mean_of_minus_log_pi(policy_class):
    mean, factor, _ = (x.detach() for x in parameters(size=4, seed=3))
    policy = policy_class(mean.expand(200_000, 4), factor.expand(200_000, 4, 4))
    noise = policy.noise(torch.Generator().manual_seed(0))
    surprise = -policy.rsample_with_log_prob(noise)[1]
    error = surprise.std() / len(surprise) ** 0.5
    assert abs(surprise.mean() - policy_class(mean, factor).entropy()) < 5 * error


def test_samples_have_the_covariance():
    mean, factor, _ = (x.detach() for x in parameters(size=3, seed=8))
    policy = FullGaussian(mean.expand(200_000, 3), factor.expand(200_000, 3, 3))
    action, latent = policy.sample(policy.noise(torch.Generator().manual_seed(0)))
    assert torch.equal(action, latent)
    exact = factor @ factor.T
    scale = exact.diagonal().sqrt()
    error = (action.T.cov() - exact) / (scale[:, None] * scale)
    assert error.abs().max() < 0.02
    assert (action.mean(0) - mean).abs().max() < 0.02 * scale.max()


@pytest.mark.parametrize("policy_class", [FullGaussian, TanhFullGaussian])
def test_noise_of_inverts_latent_of_and_terms_sum_to_log_pi(policy_class):
    mean, factor, noise = (x.detach() for x in parameters(30, 2))
    policy = policy_class(mean, factor)
    _, latent = policy.sample(noise)
    assert torch.allclose(policy.noise_of(latent), noise, atol=1e-10)
    terms = policy.terms(noise)
    assert all(term.shape == noise.shape for term in terms.values())
    assert list(terms) == ["gaussian", "scale", "jacobian"][: len(terms)]
    log_pi = policy.rsample_with_log_prob(noise)[1]
    assert torch.allclose(sum(terms.values()).sum(-1), log_pi, atol=1e-12)
    recovered = policy.terms(policy.noise_of(latent))
    assert all(torch.allclose(recovered[name], terms[name], atol=1e-9) for name in terms)


@pytest.mark.parametrize("mean", [20.0, -20.0])
def test_saturated_gradients_are_finite_and_exact(mean):
    """Along the path d/d mean_i = 2 tanh(u_i), d/d L_ij = 2 tanh(u_i) noise_j - [i = j] / L_ii."""
    centre = torch.full((1, 2), mean, requires_grad=True)
    factor = torch.tensor([[[0.1, 0.0], [3.0, 0.2]]], requires_grad=True)
    noise = torch.tensor([[0.5, -1.0]])
    log_pi = TanhFullGaussian(centre, factor).rsample_with_log_prob(noise)[1]
    by_mean, by_factor = gradients(log_pi, centre, factor)
    side = 2 * math.copysign(1, mean)
    assert by_mean[0].tolist() == pytest.approx([side, side])
    expected = [side * 0.5 - 10, side * 0.5, side * -1.0 - 5]
    found = by_factor[0]
    assert [found[0, 0], found[1, 0], found[1, 1]] == pytest.approx(expected, rel=1e-6)


def exact_log_pi(mean, factor, noise):
    """50 digits, of exactly these float32 numbers."""
    size = len(mean)
    total = -size * mpmath.log(2 * mpmath.pi) / 2
    for i in range(size):
        u = mpmath.mpf(mean[i]) + mpmath.fsum(mpmath.mpf(factor[i][j]) * noise[j]
                                              for j in range(i + 1))  # fmt: skip
        total -= mpmath.mpf(noise[i]) ** 2 / 2 + mpmath.log(factor[i][i])
        total += 2 * mpmath.log(mpmath.cosh(u))
    return float(total)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_log_pi_against_50_digits(dtype, bound):
    """Means out to 50, deviations from e^-12 to e^2, couplings of order one."""
    mean, factor, noise = (x.detach() for x in parameters(400, dtype=torch.float32))
    sizes = torch.linspace(-12, 1, 20).exp().repeat(20)
    factor, mean = factor * sizes[:, None, None], mean * torch.linspace(0, 50, 400)[:, None]
    rows = zip(mean.tolist(), factor.tolist(), noise.tolist(), strict=True)
    exact = np.array([exact_log_pi(*row) for row in rows])
    policy = TanhFullGaussian(mean.to(dtype), factor.to(dtype))
    found = policy.rsample_with_log_prob(noise.to(dtype))[1].double().numpy()
    assert (np.abs(found - exact) / np.maximum(1, np.abs(exact))).max() <= bound


def test_log_pi_from_the_noise_is_exact_where_the_solve_is_not():
    mean, noise = torch.full((1, 2), 50.0), torch.tensor([[1.25, -0.5]])
    factor = 2e-7 * torch.tensor([[[1.0, 0.0], [0.9, 0.5]]])
    policy = FullGaussian(mean, factor)
    action, log_pi = policy.rsample_with_log_prob(noise)
    exact = FullGaussian(mean.double(), factor.double()).rsample_with_log_prob(noise.double())[1]
    assert abs(log_pi.double() - exact).item() < 1e-5
    assert abs(policy.log_prob(action).double() - exact).item() > 0.5


def test_densities_stay_float32_under_autocast():
    mean, factor, noise = (x.detach().float() for x in parameters(6, dtype=torch.float32))
    mean, factor = mean.bfloat16(), factor.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        policy = TanhFullGaussian(mean, factor)
        action, log_pi = policy.rsample_with_log_prob(noise)
    expected = TanhFullGaussian(mean.float(), factor.float()).rsample_with_log_prob(noise)
    assert torch.equal(action, expected[0])
    assert torch.equal(log_pi, expected[1])
