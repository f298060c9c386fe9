"""What policies offer beyond training: divergences, modes, and names as torch has them."""

import math

import pytest
import torch
from torch import distributions as dist

import policies

B, A, K = 5, 3, 4
KINDS = [name for name in policies.__all__ if hasattr(getattr(policies, name), "action_kind")]


def normals(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def parameters(name, seed):
    if "Categorical" in name:
        shape = (B, A, K) if name.startswith("Multi") else (B, K)
        made = [normals(seed, *shape).log_softmax(-1)]
    elif "Full" in name:
        lower, diagonal = normals(seed + 1, B, A, A).tril(-1), normals(seed + 2, B, A).exp()
        made = [normals(seed, B, A), 0.5 * lower + torch.diag_embed(diagonal)]
    else:
        made = [normals(seed, B, A), normals(seed + 1, B, A)]
    return [one.requires_grad_() for one in made]


def by_torch(name, given):
    """Of squashed policies what they squash, which has the same divergence."""
    if "Full" in name:
        return dist.MultivariateNormal(given[0], scale_tril=given[1])
    if "Gaussian" in name:
        return dist.Independent(dist.Normal(given[0], given[1].exp()), 1)
    one = dist.Categorical(logits=given[0])
    return dist.Independent(one, 1) if name.startswith("Multi") else one


@pytest.mark.parametrize("name", KINDS)
def test_divergences_are_those_of_torch_with_their_gradients(name):
    own, others = parameters(name, 0), parameters(name, 10)
    p, q = (getattr(policies, name)(*given) for given in (own, others))
    found = policies.kl_divergence(p, q)
    expected = dist.kl_divergence(by_torch(name, own), by_torch(name, others))
    assert found.shape == (B,)
    assert torch.allclose(found, expected, rtol=1e-12)
    if "Categorical" not in name:  # torch takes logits, which need not be normalised
        slopes = [torch.autograd.grad(x.sum(), [*own, *others]) for x in (found, expected)]
        for slope, right in zip(*slopes, strict=True):
            assert torch.allclose(slope.tril(), right.tril(), rtol=1e-9, atol=1e-12)
    assert bool((policies.kl_divergence(p, p).abs() < 1e-30).all())


def test_the_divergence_of_nearly_equal_policies_keeps_its_digits():
    mean, log_std = torch.zeros(1), torch.zeros(1)
    near = policies.Gaussian(mean, log_std + 1e-4)
    found = policies.kl_divergence(near, policies.Gaussian(mean, log_std))
    assert found.item() == pytest.approx(1e-8, rel=5e-3)


def test_impossible_choices_have_no_divergence_and_no_gradient():
    p, q = (torch.tensor(row).log() for row in ([0.2, 0.8, 0.0], [0.5, 0.5, 0.0]))
    p, q = p.requires_grad_(), q.requires_grad_()
    found = policies.kl_divergence(*map(policies.Categorical, (p, q)))
    assert found.item() == pytest.approx(0.2 * math.log(0.4) + 0.8 * math.log(1.6))
    for slope in torch.autograd.grad(found, [p, q]):
        assert bool(slope.isfinite().all())
        assert slope[2] == 0
    rare = policies.Categorical(torch.tensor([0.0, -200.0]))  # whose probability is 0 in float32
    assert policies.kl_divergence(rare, policies.Categorical(torch.tensor([0.0, -math.inf]))) == 0
    certain = policies.Categorical(torch.tensor([1.0, 0.0, 0.0]).log())
    assert policies.kl_divergence(policies.Categorical(p), certain).item() == math.inf


@pytest.mark.parametrize("name", KINDS)
def test_names_and_modes_are_those_of_torch(name):
    given = parameters(name, 0)
    policy, other = getattr(policies, name)(*given), by_torch(name, given)
    assert repr(policy).startswith(f"{name}({'log_probs' if 'Cat' in name else 'mean'}: ({B}, ")
    if policy.squashed:
        with pytest.raises(NotImplementedError, match="no closed form; deterministic"):
            policy.mode  # noqa: B018
    else:
        assert torch.equal(policy.mode, other.mode)
    if "Categorical" in name:
        base = getattr(other, "base_dist", other)
        assert torch.allclose(policy.probs, base.probs)
        assert torch.allclose(policy.logits, base.logits)


def test_two_of_another_kind_are_refused():
    given = torch.zeros(2, 3), torch.zeros(2, 3)
    with pytest.raises(TypeError, match=r"TanhGaussian\(mean: \(2, 3\).* give two of one class"):
        policies.kl_divergence(policies.Gaussian(*given), policies.TanhGaussian(*given))


def test_a_policy_of_another_density_has_no_formula_here():
    class Other(policies.Gaussian):
        pass

    one = Other(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(TypeError, match=r": Other\(.*\) has no formula; average log p"):
        policies.kl_divergence(one, one)
