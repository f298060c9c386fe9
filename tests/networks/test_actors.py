"""Actors: what they emit, the bounds of log_std, and where their weights come from."""

from functools import partial

import pytest
import torch

from networks.actor_critic import HEAD_GAIN, TORSO_GAIN, GaussianActor, torso
from networks.discrete import CategoricalActor
from networks.full_gaussian import FullGaussianActor
from networks.layers import Linear

BOUNDS = {"log_std_min": -5.0, "log_std_max": 2.0}


def make_torso(seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return torso(3, [8, 6], "tanh", generator, **options), generator


def gaussian(
    log_std="state",
    bound="clamp",
    init=0.0,
    orthogonal=False,
    bounded_mean=False,
    kind=GaussianActor,
    size=2,
):
    body, generator = make_torso()
    return kind(
        body,
        partial(Linear, 6, generator=generator, gain=HEAD_GAIN if orthogonal else None),
        size,
        bounded_mean=bounded_mean,
        log_std=log_std,
        log_std_init=init,
        log_std_bound=bound,
        **BOUNDS,
    )


def test_categorical_actor_emits_normalised_log_probs():
    body, generator = make_torso()
    actor = CategoricalActor(body, partial(Linear, 6, generator=generator), 4)
    (log_probs,) = actor(100 * torch.randn(7, 5, 3, generator=generator))
    assert log_probs.shape == (7, 5, 4)
    assert torch.logsumexp(log_probs, -1).abs().max() < 1e-6


@pytest.mark.parametrize("log_std", ["state", "parameter"])
@pytest.mark.parametrize("bound", ["clamp", "smooth"])
def test_log_std_starts_where_told_and_stays_in_bounds(log_std, bound):
    actor = gaussian(log_std, bound, init=-1.3, orthogonal=True)
    mean, start = actor(torch.zeros(4, 3))
    assert mean.shape == start.shape == (4, 2)
    assert start.flatten().tolist() == pytest.approx([-1.3] * 8, abs=1e-5)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.mul_(1e4)
    far = actor(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)))[1]
    assert far.min() >= -5.0
    assert far.max() <= 2.0


def test_smooth_bound_keeps_a_gradient_where_the_clamp_has_none():
    for bound, alive in (("clamp", False), ("smooth", True)):
        actor = gaussian("parameter", bound)
        with torch.no_grad():
            actor.log_std.fill_(3.0)
        actor(torch.zeros(1, 3))[1].sum().backward()
        assert (actor.log_std.grad.abs().min() > 0) == alive


def test_one_parameter_per_dimension_does_not_read_the_state():
    actor = gaussian("parameter")
    log_std = actor(torch.randn(9, 3, generator=torch.Generator().manual_seed(0)))[1]
    assert torch.equal(log_std, log_std[:1].expand(9, 2))


def test_weights_come_from_the_generator_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = gaussian().state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    second = gaussian().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(parameter.isfinite().all() for parameter in first.values())


def test_unit_obs_ignores_the_length_of_an_observation():
    body, _ = make_torso(unit_input=True)
    obs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(body(obs), body(17 * obs), atol=1e-6)
    assert body(torch.zeros(1, 3)).isfinite().all()


def test_orthogonal_rows():
    body, _ = make_torso(gain=TORSO_GAIN)
    weight = body[0].weight  # (8, 3): orthonormal columns times sqrt(2)
    assert torch.allclose(weight.T @ weight, 2 * torch.eye(3), atol=1e-5)


@pytest.mark.parametrize("bounded_mean", [True, False])
def test_bounded_mean_stays_in_the_policys_units(bounded_mean):
    actor = gaussian(bounded_mean=bounded_mean)
    torch.nn.init.constant_(actor.mean.bias, -7.0)
    mean, _ = actor(torch.zeros(3, 3))
    assert bool((mean.abs() <= 1).all()) == bounded_mean


def full(log_std="state", size=3, **options):
    return gaussian(log_std, kind=FullGaussianActor, size=size, **options)


def couple(actor, seed=1):
    """Couplings away from 0, as after some training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in actor.named_parameters():
            if "coupling" in name:
                parameter.normal_(generator=generator)
    return actor


def observations(*leading):
    return torch.randn(*leading, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("log_std", ["state", "parameter"])
def test_the_full_actor_starts_as_the_diagonal_one(log_std, size):
    obs = observations(7)
    mean, factor = full(log_std, size, init=-0.4)(obs)
    same_mean, same_log_std = gaussian(log_std, init=-0.4, size=size)(obs)
    assert torch.equal(mean, same_mean)
    assert torch.equal(factor, same_log_std.exp().diag_embed())


@pytest.mark.parametrize("log_std", ["state", "parameter"])
@pytest.mark.parametrize("leading", [(), (7,), (5, 7)])
def test_rows_of_the_factor_are_deviations_times_couplings(log_std, leading):
    actor = couple(full(log_std))
    obs = observations(*leading)
    mean, factor = actor(obs)
    assert mean.shape == (*leading, 3)
    assert factor.shape == (*leading, 3, 3)
    assert torch.equal(factor, factor.tril())
    std = GaussianActor.forward(actor, obs)[1].exp()
    coupling = actor.coupling
    if log_std == "state":
        coupling = coupling + actor.torso(obs) @ actor.coupling_weight.T
    one, zero = torch.ones_like(std[..., 0]), torch.zeros_like(std[..., 0])
    c10, c20, c21 = (c.expand_as(one) for c in coupling.unbind(-1))
    rows = torch.stack([one, zero, zero, c10, one, zero, c20, c21, one], -1)
    assert torch.allclose(factor, std.unsqueeze(-1) * rows.unflatten(-1, (3, 3)), atol=1e-6)


@pytest.mark.parametrize("log_std", ["state", "parameter"])
def test_every_parameter_of_the_full_actor_has_a_gradient_at_the_start(log_std):
    actor = full(log_std)
    mean, factor = actor(observations(7))
    (mean.sum() + factor.sum()).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in actor.parameters())


def test_couplings_read_the_state_only_where_the_deviations_do():
    for log_std, varies in (("state", True), ("parameter", False)):
        factor = couple(full(log_std))(observations(9))[1]
        ratio = factor[:, 1, 0] / factor[:, 1, 1]
        assert bool((ratio.std() > 1e-3).item()) == varies


@pytest.mark.parametrize("log_std", ["state", "parameter"])
def test_the_full_actor_is_one_graph(log_std):
    actor, obs = couple(full(log_std)), observations(5)
    compiled = torch.compile(actor, fullgraph=True, backend="eager")
    for found, expected in zip(compiled(obs), actor(obs), strict=True):
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)  # a bias is added in its turn
