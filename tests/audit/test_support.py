"""Bounds, latents and what a float type leaves of them."""

import math

import pytest
import torch
from torch import distributions as dist
from torch.distributions.transforms import AffineTransform, ExpTransform, TanhTransform

from audit.support import Support, bounds_of, latents, support_of

INF = math.inf


def support(low, high):
    return Support(*(torch.tensor([end], dtype=torch.float64) for end in (low, high)))


@pytest.mark.parametrize(
    ("low", "high"), [(-INF, INF), (-1.0, 1.0), (10.0, 13.0), (2.0, INF), (-INF, -3.0)]
)
def test_latents_and_actions_are_inverse_and_the_slope_is_that_of_the_map(low, high):
    bounds = support(low, high)
    u = torch.linspace(-3, 3, 41, dtype=torch.float64).unsqueeze(-1).requires_grad_()
    action = bounds.action(u)
    assert torch.allclose(bounds.latent(action), u)
    assert bool(((action > low) & (action < high)).all())
    (slope,) = torch.autograd.grad(action.sum(), u)
    assert torch.allclose(bounds.log_slope(u), slope.squeeze(-1).log())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (10.0, 12.0), (0.0, INF), (2.0, INF)])
def test_within_reach_an_action_is_inside_its_bounds(low, high, dtype):
    bounds = support(low, high)
    for end in bounds.reach(dtype):
        action = bounds.action(end).to(dtype)
        assert low < action.item() < high


@pytest.mark.parametrize(
    ("policy", "low", "high"),
    [
        (dist.Normal(0.0, 1.0), -INF, INF),
        (dist.Gamma(1.0, 1.0), 0.0, INF),
        (dist.Uniform(-1.0, 2.0), -1.0, 2.0),
        (dist.TransformedDistribution(dist.Normal(0.0, 1.0), [TanhTransform()]), -1.0, 1.0),
        (
            dist.TransformedDistribution(
                dist.Normal(0.0, 1.0), [TanhTransform(), AffineTransform(1.0, -2.0)]
            ),
            -1.0,
            3.0,
        ),
        (
            dist.Independent(
                dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0), [ExpTransform()]), 1
            ),
            0.0,
            INF,
        ),
        (object(), -INF, INF),
    ],
)
def test_bounds_of_distributions_are_found_also_through_maps(policy, low, high):
    found = bounds_of(policy)
    assert (set(found[0].tolist()), set(found[1].tolist())) == ({low}, {high})


def test_a_density_that_ends_at_one_has_those_bounds():
    actions = torch.linspace(-0.9, 0.9, 50, dtype=torch.float64).unsqueeze(-1)
    ends = support_of(None, lambda a: torch.atanh(a).sum(-1).nan_to_num(-INF), actions, None, None)
    assert (ends.low.item(), ends.high.item()) == (-1.0, 1.0)
    goes_on = support_of(None, lambda a: a.sum(-1), actions, None, None)
    assert goes_on.high.item() == INF
    beyond = support_of(None, lambda a: torch.atanh(a).sum(-1), 2 * actions, None, None)
    assert beyond.high.item() == INF


def test_what_float32_rounds_is_spread_evenly_and_stays_inside():
    u = 7.5 + torch.randn(4000, generator=torch.Generator().manual_seed(0)).double().unsqueeze(-1)
    bounds = support(-1.0, 1.0)
    rounded = torch.tanh(u).float().double()
    found = latents(rounded, torch.float32, bounds)
    assert len(found.unique()) == 4000
    assert bool(found.isfinite().all())
    near = u < 7.0
    assert (found - u)[near].abs().max() < 0.1
    # where 0.4 % of the draws would be alike, the mean is theirs
    assert (found - u)[near].mean().abs() < 1e-3
