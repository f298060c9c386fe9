"""Pairs of action and log_pi alone: right ones pass, wrong ones are named."""

import math
import re

import pytest
import torch
from torch import distributions as dist

import audit

COUNT = 20_000
MEAN, STD = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.3, 1.0, 0.1])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(distribution, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        actions = distribution.sample((COUNT,))
    return actions, distribution.log_prob(actions)


def tanh_pairs(mean, std, log_det, scale=1.0):
    """As an actor makes them, in float32, log_pi from the latent."""
    u = mean + std * torch.randn(COUNT, *mean.shape, generator=generator())
    action = torch.tanh(u)
    log_pi = dist.Normal(mean, std).log_prob(u) - log_det(u, action)
    return scale * action, log_pi.sum(-1) if mean.ndim else log_pi


def exact(u, action):
    return 2 * (math.log(2) - u - torch.nn.functional.softplus(-2 * u))


def epsilon(u, action):
    return torch.log(1 - action**2 + 1e-6)


LINE = dist.Normal(0.5, 2.0)
RIGHT = {
    "normal": (dist.Normal(4.0, 0.8), {}),
    "laplace": (dist.Laplace(0.0, 1.0), {}),
    "cauchy": (dist.Cauchy(0.0, 1.0), {}),
    "uniform": (dist.Uniform(-1.0, 2.0), {}),
    "gamma": (dist.Gamma(2.0, 3.0), {"low": 0}),
    "beta": (dist.Beta(0.5, 0.5), {"low": 0, "high": 1}),
    "modes": (
        dist.MixtureSameFamily(
            dist.Categorical(torch.tensor([0.3, 0.7])),
            dist.Independent(
                dist.Normal(
                    torch.tensor([[-3.0, 0.0], [2.0, 1.0]]), torch.tensor([[0.1, 1.0], [1.0, 0.5]])
                ),
                1,
            ),
        ),
        {},
    ),
    "several": (dist.Independent(dist.Laplace(MEAN, STD), 1), {}),
    "choices": (dist.Categorical(torch.tensor([0.5, 0.3, 0.2])), {}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_pairs_pass_and_a_tenth_of_a_nat_is_found(name):
    distribution, bounds = RIGHT[name]
    actions, log_pi = pairs(distribution)
    report = audit.check_pairs(actions, log_pi, **bounds)
    assert report.passed, str(report)
    assert not audit.check_pairs(actions, log_pi + 0.15, **bounds).passed
    assert not audit.check_pairs(actions, log_pi - 0.15, **bounds).passed


@pytest.mark.parametrize("mean", [torch.tensor(0.5), torch.tensor(8.5), MEAN])
def test_squashed_pairs_pass_also_where_some_are_rounded_to_the_bound(mean):
    std = torch.tensor(1.0) if mean.ndim == 0 else STD
    report = audit.check_pairs(*tanh_pairs(mean, std, exact), low=-1, high=1)
    assert report.passed, str(report)


@pytest.mark.parametrize("size", [1, 6])
def test_bounds_that_are_not_given_are_tried(size):
    actions, log_pi = tanh_pairs(torch.full((size,), 0.8), torch.tensor(1.0), exact)
    assert audit.check_pairs(actions, log_pi).passed
    assert not audit.check_pairs(actions, log_pi + 0.15).passed


@pytest.mark.parametrize(
    ("mean", "log_det", "scale", "form"),
    [
        (torch.tensor(4.0), epsilon, 1.0, "epsilon"),
        (torch.tensor(7.0), epsilon, 1.0, "epsilon"),
        (torch.tensor(0.5), exact, 2.0, "affine_forgotten"),
        (MEAN, lambda u, a: 0 * u, 1.0, "jacobian_forgotten"),
        (MEAN, lambda u, a: -exact(u, a), 1.0, "jacobian_added"),
    ],
)
def test_wrong_pairs_are_named(mean, log_det, scale, form):
    std = torch.tensor(1.0) if mean.ndim == 0 else STD
    pair = tanh_pairs(mean, std, log_det, scale)
    report = audit.check_pairs(*pair, low=-scale, high=scale)
    assert report.form == form
    assert report.verdict.startswith("wrong: log_pi is too ")


@pytest.mark.parametrize(("mean", "std"), [(0.0, 2.0), (1.0, 3.0)])
def test_an_epsilon_shows_below_what_rounding_may_do(mean, std):
    """At most as large as a rounded action may make it, but at hundreds of draws together."""
    pairs = [tanh_pairs(torch.tensor(mean), torch.tensor(std), det) for det in (epsilon, exact)]
    wrong, right = (audit.check_pairs(*pair, low=-1, high=1) for pair in pairs)
    assert wrong.form == "epsilon"
    assert right.passed, str(right)
    left = re.search(r"not judged beyond \|u\| = 7\.[89], where (\d+) draws", right.verdict)
    assert left is not None
    assert f"{COUNT - int(left[1]):,} draws follow" in right.verdict


@pytest.mark.parametrize("seed", range(3))
def test_no_constant_is_fitted_to_rounding(seed):
    """All draws are so near one another that a constant is as good as a shift of the mean."""
    noise = torch.randn(COUNT, 1, generator=generator(seed), dtype=torch.float64)
    u = 3.0 + 4.5e-5 * noise
    log_pi = dist.Normal(torch.tensor(3.0).double(), 4.5e-5).log_prob(u) - exact(u, None)
    assert audit.check_pairs(torch.tanh(u), log_pi, low=-1, high=1).passed


def test_what_was_hardly_drawn_may_have_a_probability():
    policy = dist.Categorical(logits=2.0 * torch.randn(1000, generator=generator()))
    actions = pairs(policy)[0]
    assert audit.check_pairs(actions, policy.log_prob(actions)).passed
    common = actions[policy.log_prob(actions).exp() < 0.05]
    assert not audit.check_pairs(common, policy.log_prob(common)).passed


@pytest.mark.parametrize(
    ("size", "others", "words"),
    [
        (1, [-14.0, math.log(0.25), math.log(0.25)], "rare choices have"),
        (
            1,
            [math.log(0.5) - 10.0, math.log(0.25) - 10.0, math.log(0.25) - 10.0],
            "rare choices have",
        ),
        (8, None, "rare choices have other probabilities"),
    ],
)
def test_a_wrong_log_pi_of_what_is_claimed_to_be_rare_is_found(size, others, words):
    if others is None:
        action = torch.randint(0, 6, (COUNT, size), generator=generator())
        log_pi = torch.full((COUNT,), size * math.log(1 / 6))
        assert audit.check_pairs(action, log_pi).passed
        wrong = log_pi - 3.0
    else:
        coin = torch.rand(COUNT, generator=generator()) < 0.5
        action = coin.long() * (1 + torch.randint(0, 2, (COUNT,), generator=generator(1)))
        wrong = torch.tensor(others)[action]
    report = audit.check_pairs(action, wrong)
    assert not report.passed
    assert re.search(words, report.verdict)


def test_a_claim_that_no_draw_can_have_is_wrong_also_where_it_underflows():
    actions, log_pi = pairs(dist.Independent(dist.Laplace(torch.zeros(2).double(), 1.0), 1))
    assert not audit.check_pairs(actions, log_pi + 800.0).passed


def test_an_entropy_beside_pairs_is_checked():
    pair = lambda count: (action := LINE.sample((count,)), LINE.log_prob(action))  # noqa: E731
    assert audit.check(sample=pair, entropy=LINE.entropy()).passed
    assert "entropy() is too high" in audit.check(sample=pair, entropy=3.0).verdict


def test_modes_in_many_dimensions_are_not_judged():
    ones = torch.ones(6, dtype=torch.float64)
    modes = dist.Independent(dist.Normal(torch.stack([-ones, ones]), 0.3 * ones), 1)
    mixture = dist.MixtureSameFamily(dist.Categorical(ones[:2]), modes)
    report = audit.check_pairs(*pairs(mixture))
    assert report.passed
    assert report.verdict.startswith("not judged: too few of 20,000 pairs")


def test_a_log_pi_that_is_no_number_is_pointed_at():
    actions, log_pi = pairs(RIGHT["several"][0])
    log_pi[3] = math.nan
    verdict = audit.check_pairs(actions, log_pi).verdict
    assert "log_pi is not finite at 1 draws of 20,000, the first at action " in verdict
    assert "unknown" not in verdict


def test_an_error_in_one_place_only_is_found_without_any_gaussian():
    actions, log_pi = pairs(dist.Laplace(0.0, 1.0))
    report = audit.check_pairs(actions, log_pi + 0.3 * (actions.abs() < 0.2))
    assert any("part" in trial.name for trial in report.trials if not trial.passed)
    actions, log_pi = pairs(RIGHT["several"][0])
    report = audit.check_pairs(actions, log_pi + 0.5 * (actions[:, 1] > -1.0))
    assert any("component 1 high" in t.name for t in report.trials if not t.passed)


def test_shapes_of_log_pi():
    actions, log_pi = pairs(dist.Independent(dist.Normal(MEAN, STD), 1))
    assert "its shape is (N, 1)" in audit.check_pairs(actions, log_pi[:, None]).verdict
    each = dist.Normal(MEAN, STD).log_prob(actions)
    assert audit.check_pairs(actions, each).form == "sum_forgotten"
    square = log_pi[:2000, None] + 0 * log_pi[:2000]
    assert audit.check_pairs(actions[:2000], square).form == "broadcast"


@pytest.mark.parametrize(
    ("actions", "log_pi", "words"),
    [
        (torch.randn(COUNT), torch.zeros(7), "log_pi: shape (7,) does not fit"),
        (torch.randn(COUNT, 2), torch.zeros(COUNT, 5), "does not fit actions"),
        (torch.zeros(COUNT), torch.randn(COUNT, 2), "does not fit actions"),
        (torch.arange(COUNT) % 3 - 2, torch.zeros(COUNT), "from 0; give indices"),
        (torch.randn(10), torch.zeros(10), "10 are too few"),
        (torch.randn(COUNT), torch.full((COUNT,), math.nan), "log_pi: 0 of 20000 pairs"),
        (torch.zeros(COUNT), torch.zeros(COUNT), "always 0"),
        (torch.randn(COUNT, 2, 2), torch.zeros(COUNT), "does not fit"),
        ("text", torch.zeros(COUNT), "gave a str"),
        (torch.arange(COUNT) % 3, torch.randn(COUNT), "differs between pairs with the same"),
    ],
)
def test_bad_pairs_are_one_line(actions, log_pi, words):
    with pytest.raises(ValueError, match="; ") as error:
        audit.check_pairs(actions, log_pi)
    assert words in str(error.value)


def test_what_float32_rounds_in_the_sum_of_probabilities_is_no_mistake():
    policy = dist.Categorical(torch.tensor([[0.2, 0.8], [0.4, 0.6]]))
    action = policy.sample((20_000,))
    log_pi = policy.log_prob(action).sum(-1)
    assert log_pi.dtype == torch.float32
    assert audit.check_pairs(action, log_pi).passed
    off = torch.log(log_pi.double().exp() + 1e-4)
    assert not audit.check_pairs(action, off).passed


def test_pairs_that_end_at_bounds_that_are_not_known_get_a_hint():
    u = 5.0 + 3.0 * torch.randn(COUNT, generator=torch.Generator().manual_seed(0))
    slope = 2.0 * (math.log(2.0) - u - torch.nn.functional.softplus(-2.0 * u))
    log_pi = dist.Normal(5.0, 3.0).log_prob(u) - slope - math.log(2.0)
    verdict = audit.check_pairs(2.0 * torch.tanh(u), log_pi + 0.5).verdict
    assert verdict.endswith("; if the actions have bounds, give low= and high=")
    report = audit.check(lambda: (torch.tanh(u), log_pi + math.log(2.0)))  # -1 and 1 are tried
    assert report.passed
    assert "rounded to a bound" in report.verdict


def test_a_log_pi_that_is_infinite_is_pointed_at_before_its_amount():
    actions, log_pi = pairs(dist.Independent(dist.Normal(torch.zeros(2).double(), 1.0), 1))
    log_pi[3] = math.inf
    verdict = audit.check_pairs(actions, log_pi + 0.3).verdict
    assert verdict.startswith("wrong: log_pi is not finite at 1 draws of 20,000, the first at ")
