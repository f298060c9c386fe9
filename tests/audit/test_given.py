"""What is handed in: distributions of torch in other forms, what actors return, odd draws."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import distributions as dist
from torch.distributions import Independent

import audit
import policies
from tests.audit import mistakes


@pytest.fixture(autouse=True)
def same_draws():
    """The same draws in whatever order tests run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


SIMPLEX = dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0]))
THREE = torch.tensor([0.2, 0.3, 0.5])
TABLE = torch.tensor([[0.2, 0.8, 1.0], [0.4, 0.6, 1.0]])
BOX = {"low": -1, "high": 1}
NORMAL = dist.Normal(torch.tensor([0.3, -0.3]), torch.tensor([0.5, 0.4]))


@pytest.mark.parametrize(
    "policy",
    [
        SIMPLEX,
        dist.RelaxedOneHotCategorical(torch.tensor(0.7), THREE),
        dist.OneHotCategorical(THREE),
        Independent(dist.Bernoulli(THREE), 1),
        Independent(dist.Categorical(TABLE), 1),
        Independent(dist.VonMises(torch.tensor([0.5]), torch.tensor([2.0])), 1),
        dist.HalfCauchy(1.0),
        dist.Weibull(1.0, 2.0),
        dist.InverseGamma(3.0, 1.0),
    ],
    ids=lambda policy: type(getattr(policy, "base_dist", policy)).__name__,
)
def test_what_torch_has_passes_and_a_shift_is_found(policy, monkeypatch):
    assert audit.check(policy, draws=4000).passed
    right = policy.log_prob
    monkeypatch.setattr(policy, "log_prob", lambda action: right(action) + 0.1)
    assert not audit.check(policy, draws=4000).passed


@pytest.mark.parametrize(
    ("policy", "draws"),
    [
        (dist.Wishart(4.0, torch.eye(2)), "a Wishart draws matrices"),
        (dist.Multinomial(5, THREE), "a Multinomial draws counts"),
        (Independent(dist.Normal(torch.zeros(2, 2), 1.0), 2), "a Normal draws matrices"),
    ],
)
def test_what_has_no_density_of_vectors_is_refused(policy, draws):
    with pytest.raises(ValueError, match=f"policy: {draws}; give sample= and log_prob="):
        audit.check(policy)


@pytest.mark.parametrize("policy", [dist.Categorical(TABLE), dist.Bernoulli(THREE)])
def test_a_sum_over_choices_that_is_forgotten_is_named(policy):
    assert audit.check(policy, draws=2000).form == "sum_forgotten"


def test_a_density_that_overflows_far_from_all_draws_is_right():
    def logistic(action):
        exp = action.exp()
        return torch.log(exp / (1 + exp) ** 2)  # inf / inf from 710 on

    sample = lambda count: torch.rand(count, dtype=torch.float64).logit()  # noqa: E731
    assert audit.check(sample=sample, log_prob=logistic, draws=2000).passed


FAR_APART = dist.MixtureSameFamily(
    dist.Categorical(torch.tensor([0.9, 0.1], dtype=torch.float64)),
    dist.Normal(torch.tensor([-10.0, 10.0], dtype=torch.float64), 0.005),
)


@pytest.mark.parametrize("mean", [0.3, 0.7])
@pytest.mark.parametrize("std", [1e-5, 1e-8, 1e-11])
def test_a_narrow_density_is_not_taken_for_one_of_float32(mean, std):
    narrow = dist.Normal(torch.tensor(mean, dtype=torch.float64), std)
    assert audit.check(narrow, draws=2000).passed


def test_two_narrow_modes_far_apart_are_integrated():
    assert audit.check(FAR_APART, draws=5000).passed
    less = lambda action: FAR_APART.log_prob(action) - 0.005  # noqa: E731
    assert "integrates to 0.995" in audit.check(sample=FAR_APART.sample, log_prob=less).verdict


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-2.0, 2.0), (-0.52, 0.52), (0.0, 255.0)])
def test_what_rounds_the_distance_from_a_bound_is_right(low, high):
    """Near a bound, where an action less the other bound keeps fewer digits than the action."""
    by_hand = mistakes.policy("", 1, kind="by hand")
    by_hand = replace(by_hand, low=torch.tensor([low]).double(), high=torch.tensor([high]).double())
    found = audit.check(sample=by_hand.sample, log_prob=by_hand.log_prob, **by_hand.bounds)
    assert found.verdict.startswith("right: ")


def modes(weights, size):
    ones = torch.ones(size, dtype=torch.float64)
    parts = dist.Independent(dist.Normal(torch.stack([-3 * ones, 3 * ones]), 0.3), 1)
    return dist.MixtureSameFamily(dist.Categorical(torch.tensor(weights).double()), parts)


def with_sign(count):
    z = torch.randn(count, dtype=torch.float64)
    return torch.stack([z, z * (2 * torch.randint(2, (count,)) - 1)], -1)


def log_normal(action):
    return dist.Normal(0.0, 1.0).log_prob(action).sum(-1)


@pytest.mark.parametrize(
    ("sample", "log_prob", "words"),
    [
        (modes([0.5, 0.5], 2).sample, modes([0.7, 0.3], 2).log_prob, "of the draws beyond a plane"),
        (modes([0.5, 0.5], 6).sample, modes([0.7, 0.3], 6).log_prob, "of the draws beyond a plane"),
        (with_sign, log_normal, "the draws do not follow"),
        (
            lambda count: 12**0.5 * (torch.rand(count, 17, dtype=torch.float64) - 0.5),
            log_normal,
            "the draws do not follow",
        ),
        (
            Independent(dist.Laplace(torch.zeros(5), 1.0), 1).sample,
            Independent(dist.Laplace(torch.zeros(5), 1.1), 1).log_prob,
            "nat on average, over the draws against",
        ),
        (dist.StudentT(3.0).sample, dist.StudentT(4.0).log_prob, "nat on average, over the draws"),
    ],
)
def test_a_wrong_shape_of_all_components_together_is_found(sample, log_prob, words):
    assert words in audit.check(sample=sample, log_prob=log_prob).verdict


def two_widths(small):
    stds = torch.tensor([[1.0, 1.0], [small, small]], dtype=torch.float64)
    parts = Independent(dist.Normal(torch.zeros(2, 2, dtype=torch.float64), stds), 1)
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(2, dtype=torch.float64)), parts)


@pytest.mark.parametrize("small", [0.004, 0.02])
def test_a_narrow_part_that_proposals_miss_is_not_accused(small):
    assert all(audit.check(two_widths(small), draws=4000, seed=seed).passed for seed in range(4))


@pytest.mark.parametrize("count", [20, 256])
def test_jumps_are_integrated(count):
    weights = torch.randn(count, generator=torch.Generator().manual_seed(count)).double()
    parts = dist.Categorical(logits=weights)

    def sample(number):
        return (parts.sample((number,)) + torch.rand(number, dtype=torch.float64)) / count

    def log_prob(action):
        cell = (action * count).long().clamp(0, count - 1)
        return parts.log_prob(cell) + torch.log(torch.tensor(float(count)))

    assert audit.check(sample=sample, log_prob=log_prob, low=0, high=1, draws=5000).passed


def test_a_claim_that_underflows_everywhere_is_wrong():
    nothing = lambda action: log_normal(action) - 1000.0  # noqa: E731
    sample = lambda count: torch.randn(count, 2, dtype=torch.float64)  # noqa: E731
    assert not audit.check(sample=sample, log_prob=nothing, draws=2000).passed


def test_components_with_other_numbers_of_choices_are_filled_up():
    probs = [[0.1, 0.2, 0.7], [0.5, 0.5]]
    draw = lambda n: torch.stack(  # noqa: E731
        [torch.multinomial(torch.tensor(row), n, replacement=True) for row in probs], -1
    )
    assert audit.check(sample=draw, probs=probs).passed
    logits = [torch.tensor(row).log() for row in probs]
    assert audit.check(sample=draw, logits=logits).passed
    assert audit.check(sample=draw, logits=logits, mask=[[1, 1, 1], [1, 1]]).passed
    assert not audit.check(sample=draw, logits=logits, mask=[[1, 1, 1], [1, 0]]).passed
    with pytest.raises(ValueError, match=r"probs: have rows of other shapes; give \(K,\) numbers"):
        audit.check(sample=draw, probs=[[0.1, 0.9], [[0.5]]])


def test_what_came_with_choices_is_held_against_log_prob_and_entropy():
    policy = dist.Categorical(torch.tensor([0.2, 0.3, 0.5]))

    def pairs(shift):
        action = policy.sample((2000,))
        return action, policy.log_prob(action) + shift

    given = {"probs": policy.probs, "log_prob": policy.log_prob, "draws": 2000}
    assert audit.check(sample=lambda n: pairs(0.0), **given).passed
    report = audit.check(sample=lambda n: pairs(0.1), **given)
    assert "log_pi and log_prob differ by 0.1 nat" in report.verdict
    assert audit.check(lambda: pairs(0.0), entropy=policy.entropy).passed
    report = audit.check(lambda: pairs(0.0), entropy=policy.entropy() + 0.2)
    assert "entropy() is too high by 0.2 nat" in report.verdict


@pytest.mark.parametrize("count", [3, 7])
def test_probabilities_of_float32_are_right(count):
    probs = torch.full((count,), 1.0 / count)
    draw = lambda n: torch.randint(count, (n,))  # noqa: E731
    assert audit.check(sample=draw, probs=probs.tolist()).passed
    assert audit.check(sample=draw, log_probs=probs.log().tolist()).passed
    exact = torch.full((count,), 1.0 / count, dtype=torch.float64)
    report = audit.check(sample=draw, log_probs=(exact + 1e-8).log())
    assert report.form == "log_with_epsilon"


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_logits_of_half_precision_are_right(kind):
    logits = torch.randn(9, generator=torch.Generator().manual_seed(0)).to(kind)
    draw = lambda n: torch.multinomial(logits.double().softmax(0), n, True)  # noqa: E731
    assert audit.check(sample=draw, logits=logits).passed


def test_three_components_that_determine_one_another_are_no_product():
    def draw(count):
        two = torch.randint(2, (count, 2))
        return torch.cat([two, two.sum(-1, keepdim=True) % 2], -1)

    report = audit.check(sample=draw, probs=torch.full((3, 2), 0.5))
    assert report.verdict.startswith("wrong: the components of the draws depend on one another")


def test_a_shape_of_log_pi_of_several_choices_is_named():
    table = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).log_softmax(-1)

    def draw(count):
        return torch.stack([torch.multinomial(row.exp(), count, True) for row in table], -1)

    def each(action):
        return torch.stack([row[a] for row, a in zip(table, action.T, strict=True)], -1)

    action = draw(2000)
    assert audit.check_pairs(action, each(action).sum(-1)).passed
    report = audit.check_pairs(action, each(action))
    assert report.form == "sum_forgotten"
    report = audit.check(
        sample=draw, log_probs=table, log_prob=lambda a: each(a).sum(-1) + 0 * a[:, :1]
    )
    assert report.form == "broadcast"
    report = audit.check_pairs(
        action, torch.where(action[:, 0] == 0, 0.5, 0.0) + each(action).sum(-1)
    )
    assert "choice 0, " in report.verdict


def test_choices_that_depend_on_one_another_are_no_product():
    twice = lambda count: torch.randint(2, (count, 1)).expand(count, 2)  # noqa: E731
    report = audit.check(sample=twice, probs=torch.full((2, 2), 0.5))
    assert report.verdict.startswith("wrong: the components of the draws depend on one another")
    independent = lambda count: torch.randint(2, (count, 2))  # noqa: E731
    assert audit.check(sample=independent, probs=torch.full((2, 2), 0.5)).passed


NARROW = dist.MixtureSameFamily(
    dist.Categorical(torch.tensor([0.5, 0.5], dtype=torch.float64)),
    dist.Laplace(torch.tensor([-10.0, 10.0]).double(), torch.tensor(1e-3).double()),
)
WIDE = dist.Normal(torch.tensor(0.0).double(), torch.tensor(5.0).double(), validate_args=False)


@pytest.mark.parametrize(
    ("sample", "log_prob"),
    [
        (lambda n: NARROW.sample((n,)), NARROW.log_prob),
        (lambda n: WIDE.sample((n,)).exp(), lambda a: WIDE.log_prob(a.log()) - a.log()),
    ],
    ids=["modes", "logarithm"],
)
def test_the_slope_is_tried_at_the_scale_that_it_has_itself(sample, log_prob):
    report = audit.check(sample=sample, log_prob=log_prob, draws=2000)
    assert "slope of log_prob" in str(report)
    assert "gradient" not in report.verdict


def test_a_kink_at_the_median_is_not_near_a_bound():
    base = dist.Independent(dist.Laplace(torch.zeros(3).double(), 1.0), 1)
    policy = dist.TransformedDistribution(base, [dist.TanhTransform(cache_size=1)])

    def log_prob(action):
        return base.log_prob(torch.atanh(action)) - torch.log1p(-(action**2)).sum(-1)

    report = audit.check(sample=policy.sample, log_prob=log_prob, **BOX)
    assert "near the bounds" in str(report)
    assert report.passed


def test_noise_that_is_not_used_or_is_mostly_zero_has_no_slope():
    noise = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)).double()
    noise[:, 1:] = (noise[:, 1:] > 1.0).double()

    def sample(noise):
        shift = torch.where(noise[:, 1] > 0.5, 4.0, 0.0)
        return shift + noise[:, 0], PAIR.log_prob(shift + noise[:, 0])

    assert audit.check(sample=sample, noise=noise).passed


PAIR = dist.MixtureSameFamily(
    dist.Categorical(torch.tensor([0.8413, 0.1587]).double()),
    dist.Normal(torch.tensor([0.0, 4.0]).double(), torch.tensor([1.0, 1.0]).double()),
)


def test_a_few_draws_that_cannot_be_are_found_whatever_the_form():
    for size in (1, 3):
        policy = dist.Independent(dist.Laplace(torch.zeros(size).double(), 1.0), 1)

        def sample(count, policy=policy):
            action = policy.sample((count,))
            return torch.where(torch.rand(count, 1) < 0.002, action + 20.0, action)

        report = audit.check(sample=sample, log_prob=policy.log_prob)
        assert "too many or too few draws lie far out for exp(log_prob)" in report.verdict
        assert audit.check(policy).passed


@pytest.mark.parametrize("squashed", [False, True])
@pytest.mark.parametrize(("low", "high"), [(-2.0, 2.0), (-0.5, 3.0)])
def test_a_normal_that_ends_is_right(squashed, low, high):
    normal = dist.Normal(torch.tensor(0.0).double(), 1.0)
    ends = normal.cdf(torch.tensor([low, high]).double())

    def log_prob(action):
        u = torch.atanh(action) if squashed else action
        slope = torch.log1p(-(action**2)) if squashed else 0.0
        inside = (u >= low) & (u <= high)
        return (
            torch.where(inside, normal.log_prob(u) - (ends[1] - ends[0]).log(), -math.inf) - slope
        )

    def sample(count):
        u = normal.icdf(ends[0] + (ends[1] - ends[0]) * torch.rand(count).double())
        return torch.tanh(u) if squashed else u

    bounds = BOX if squashed else {}
    assert audit.check(sample=sample, log_prob=log_prob, **bounds).passed
    action = sample(20_000)
    assert audit.check_pairs(action, log_prob(action), **bounds).passed
    assert not audit.check_pairs(action, log_prob(action) + 0.1, **bounds).passed


def test_draws_that_are_clipped_inside_the_bounds_are_found():
    policy = dist.Normal(torch.tensor(0.0).double(), 2.0)
    clipped = lambda n: policy.sample((n,)).clamp(max=4.0)  # noqa: E731
    report = audit.check(sample=clipped, log_prob=policy.log_prob)
    assert "of the draws are exactly 4: looks like clipped actions" in report.verdict
    wide = dist.Normal(torch.tensor(0.0).double(), 3.0)  # 160 draws beyond each clip
    near = torch.tanh(wide.sample((20_000,))).clamp(-1 + 1e-6, 1 - 1e-6)
    log_pi = wide.log_prob(torch.atanh(near)) - torch.log1p(-(near**2))
    assert audit.check_pairs(near, log_pi, **BOX).form == "clipped"
    u = -90.0 + 10.0 * torch.randn(20_000)  # exp(u) underflows for a tenth of them
    log_pi = dist.Normal(-90.0, 10.0).log_prob(u) - u
    assert audit.check_pairs(u.exp(), log_pi, low=0).form != "clipped"


@pytest.mark.parametrize("concentration", [0.1, 0.5, 1.0])
def test_what_float64_rounds_to_a_bound_is_left_out(concentration):
    one = torch.tensor(concentration).double()
    assert audit.check(dist.Beta(one, one)).passed
    for seed in range(3):
        assert audit.check(dist.Beta(one, one), draws=1000, seed=seed).passed


def test_a_log_prob_that_differs_from_batch_to_batch_is_refused():
    for wrong in (lambda a: NORMAL.log_prob(a).roll(1), lambda a: NORMAL.log_prob(a - a.mean(0))):
        with pytest.raises(ValueError, match=r"two values for the same action; .* of the batch"):
            audit.check(sample=NORMAL.sample, log_prob=wrong)


@pytest.mark.parametrize("ends", [(-0.3, 0.3), (-1.05, 1.05), (-34.9, 34.9), (-0.4, 0.1)])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_box_scaled_by_its_width_is_right(ends, kind):
    low, high = torch.tensor(ends, dtype=kind)

    def log_prob(action):
        y = 2 * (action - low) / (high - low) - 1
        u = 0.5 * (torch.log1p(y) - torch.log1p(-y))
        return dist.Normal(0.3, 0.5).log_prob(u) - torch.log1p(-y * y) - torch.log((high - low) / 2)

    def sample(count):
        y = torch.tanh(0.3 + 0.5 * torch.randn(count, dtype=kind))
        return low + (high - low) * (y + 1) / 2

    assert audit.check(sample=sample, log_prob=log_prob, low=low, high=high).passed


def test_bounds_are_those_of_all_transforms():
    base = dist.HalfNormal(torch.tensor(1.0).double())
    assert audit.check(dist.TransformedDistribution(base, [dist.ExpTransform()])).passed


def test_choices_that_were_not_drawn_are_counted():
    for seed in range(3):
        assert audit.check(dist.Binomial(10, torch.tensor(0.3)), draws=1000, seed=seed).passed


class Differentiable:
    """Right in value; its gradient is dead, or no number, beyond |u| = `reach`."""

    def __init__(self, reach, dead, size):
        self.reach, self.dead, self.size = reach, dead, size

    def sample(self, count):
        return torch.tanh(0.3 + torch.randn(count, self.size, dtype=torch.float64))

    def log_prob(self, action):
        u = torch.atanh(action)
        value = (dist.Normal(0.3, 1.0).log_prob(u) - torch.log1p(-(action**2))).sum(-1)
        far = (u.detach().abs() > self.reach).any(-1)
        if self.dead:
            return torch.where(far, value.detach(), value)
        return value + 0.0 * torch.sqrt(torch.where(far, 0.0 * value, 1.0))


@pytest.mark.parametrize(
    ("reach", "dead", "size"), [(4.0, True, 1), (12.0, True, 2), (8.0, False, 1), (5.0, True, 12)]
)
def test_the_gradient_is_tried_near_the_bounds(reach, dead, size):
    words = "the gradient of log_prob is not the slope of its values"
    bounds = {"low": -1, "high": 1, "draws": 2000}
    assert words in audit.check(Differentiable(reach, dead, size), **bounds).verdict
    assert audit.check(Differentiable(100.0, dead, size), **bounds).passed


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2000,), (2000, 1, 2)])
def test_the_gradient_by_noise_is_tried_without_a_log_prob(shape, kind):
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=kind)

    def sample(noise, cut=lambda u: u):
        assert (noise.dtype, noise.shape[1:]) == (kind, shape[1:])
        u = 0.3 + 0.5 * noise
        each = dist.Normal(0.3, 0.5).log_prob(cut(u)) - 2 * torch.log(1 / torch.cosh(u))
        return torch.tanh(u), each.flatten(1).sum(-1) if u.ndim > 1 else each

    assert audit.check(sample=sample, noise=noise, **BOX).passed
    report = audit.check(sample=lambda z: sample(z, torch.detach), noise=noise, **BOX)
    assert "the gradient of log_pi by the noise is not the slope" in report.verdict


def test_noise_of_as_many_states_and_of_numpy_is_taken():
    size = (2000, 2)
    policy = policies.TanhGaussian(torch.full(size, 0.3), torch.full(size, -0.5))
    noise = policy.noise(torch.Generator().manual_seed(0))
    report = audit.check(sample=policy.rsample_with_log_prob, noise=noise, **BOX)
    assert report.passed
    assert "slope of log_pi by its noise" in str(report)

    def sample(noise):
        u = 0.3 + np.exp(-0.5) * noise.numpy()
        normal = -0.5 * noise.numpy() ** 2 - 0.5 * np.log(2 * np.pi) + 0.5
        return np.tanh(u), (normal - np.log1p(-(np.tanh(u) ** 2))).sum(-1)

    assert audit.check(sample=sample, noise=noise, **BOX).passed


def test_log_pi_of_half_precision_is_held_to_its_own_digits():
    policy = dist.Normal(torch.tensor(0.3).double(), 1.0)

    def pairs(shift):
        action = policy.sample((2000,))
        return action, (policy.log_prob(action) + shift).half()

    assert audit.check(sample=lambda n: pairs(0.0), log_prob=policy.log_prob, draws=2000).passed
    report = audit.check(sample=lambda n: pairs(0.5), log_prob=policy.log_prob, draws=2000)
    assert "log_pi and log_prob differ by 0.4" in report.verdict  # less its rounding


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_gradient_of_parameters_alone_is_not_tried(kind):
    mean = torch.nn.Parameter(torch.tensor([0.3, -0.2], dtype=kind))
    normal = dist.Normal(mean, mean.exp())

    def pairs(noise):  # as an actor of PPO
        action = (mean + mean.exp() * noise).detach()
        return action, normal.log_prob(action).sum(-1)

    noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=kind)
    assert audit.check(sample=pairs, noise=noise).passed
    for given in (lambda a: a.detach(), lambda a: torch.as_tensor(a.numpy())):
        report = audit.check(
            sample=lambda n: normal.sample((n,)),
            log_prob=lambda a, given=given: normal.log_prob(given(a)).sum(-1),
        )
        assert report.passed
        assert "slope" not in str(report)


@pytest.mark.parametrize("std", [0.001, 0.5])
def test_the_gradient_is_tried_in_float32(std):
    def log_prob(action, cut=lambda u: u):
        action = action.float()
        normal = dist.Normal(torch.tensor(1.0), std)
        return normal.log_prob(cut(torch.atanh(action))) - torch.log1p(-(action**2))

    sample = lambda count: torch.tanh(1.0 + std * torch.randn(count))  # noqa: E731
    report = audit.check(sample=sample, log_prob=log_prob, **BOX)
    assert report.passed
    assert "slope of log_prob against" in str(report)
    report = audit.check(sample=sample, log_prob=lambda a: log_prob(a, torch.detach), **BOX)
    assert "the gradient of log_prob is not the slope" in report.verdict


def get_action(count, each=False):
    """As CleanRL's: action, log-probability, and what else it returns."""
    latent = NORMAL.sample((count,))
    action = torch.tanh(latent)
    log_pi = NORMAL.log_prob(latent) - torch.log(1 - action**2)
    return action, log_pi if each else log_pi.sum(-1), torch.tanh(NORMAL.mean).expand(count, 2)


def test_all_that_an_actor_returns_can_be_handed_in():
    stored = get_action(3000)
    assert audit.check_pairs(*stored, **BOX).passed
    for pairs, count in ((lambda: stored, "3,000"), (lambda: get_action(500), "5,000")):
        report = audit.check(pairs, draws=5000, **BOX)
        assert report.passed
        assert f"{count} draws" in report.verdict
    assert audit.check(sample=lambda n: get_action(n, True), **BOX).form == "sum_forgotten"
    line = dist.Normal(0.5, 2.0)
    numbers = lambda count: (action := line.sample((count,)), line.log_prob(action))  # noqa: E731
    assert "right: 3,000 draws" in audit.check(lambda: numbers(200), draws=3000).verdict
    with pytest.raises(ValueError, match="gave the same each time; draw anew each time, or 1,000"):
        audit.check(lambda: (stored[0][:500], stored[1][:500]), **BOX)


def test_a_policy_that_makes_the_same_choice_twice_is_no_stored_one():
    """One choice a call, of which the first two are mostly equal."""
    probs = torch.tensor([0.9, 0.08, 0.02])
    for seed in range(5):
        one = lambda: torch.multinomial(probs, 1)[0]  # noqa: E731
        assert audit.check(sample=one, probs=probs, draws=1000, seed=seed).passed


def test_pairs_between_minus_one_and_one_without_bounds_get_a_hint():
    action, log_pi, _ = get_action(5000)
    assert audit.check_pairs(action, log_pi + 0.5).verdict.endswith("give low=-1, high=1")
    assert "tanh" not in audit.check_pairs(2 * action, log_pi).verdict


def test_draws_of_a_simplex_are_refused_with_what_works():
    action = SIMPLEX.sample((20_000,))
    log_pi = SIMPLEX.log_prob(action)
    with pytest.raises(ValueError, match=r"determine one another, .*check_pairs\(actions\[:, :-1"):
        audit.check_pairs(action, log_pi)
    assert audit.check_pairs(action[:, :-1], log_pi).passed
    assert not audit.check_pairs(action[:, :-1], log_pi + 0.2).passed


def explode(*arguments):
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: audit.check(explode), "policy: raised RuntimeError: boom; make it work without"),
        (
            lambda: audit.check(sample=explode, log_prob=NORMAL.log_prob),
            "sample: raised RuntimeError: boom; give noise= if it takes noise, else let it take",
        ),
        (
            lambda: audit.check_pairs(torch.zeros(2000), torch.zeros(2000)),
            "actions: each draw is always 0",
        ),
        (lambda: audit.check(NORMAL, low=0), "lies below low=0; give bounds inside which"),
        (lambda: audit.check(NORMAL, high=0), "lies above high=0; give bounds inside which"),
    ],
)
def test_the_remedy_fits_what_raised_it(call, words):
    with pytest.raises(ValueError, match=";") as error:
        call()
    assert words in str(error.value)


INDICES = {"sample": lambda count: torch.randint(3, (count,))}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({**INDICES, "probs": []}, "probs: there is nothing to choose; give"),
        ({**INDICES, "probs": 0.5}, "probs: there is nothing to choose; give"),
        ({**INDICES, "logits": [float("inf"), 0.0, 0.0]}, "logits: there is nothing to choose"),
        (
            {"sample": lambda count: torch.rand(count) < 0.3},
            "sample: gave True and False; return 1",
        ),
        ({"sample": lambda count: torch.zeros(count, 0)}, "sample: returned shape"),
        ({"sample": lambda count: torch.ones(count, 2).to_sparse()}, "complex or sparse numbers"),
        ({"policy": NORMAL, "noise": 5}, "noise: 1 are too few"),
        ({"policy": NORMAL, "seed": None}, "seed: None is no whole number of 64 bits; give one"),
        ({"policy": NORMAL, "draws": 2e4}, "draws: 20000.0 is no whole number; give"),
        ({"policy": dist.Normal}, "policy: the class Normal came; give one of its objects"),
        ({"policy": lambda: dist.Normal}, "policy: returned the class Normal; return an object"),
        ({"policy": NORMAL, "mask": [1, 0]}, "mask: came with actions that are no choices"),
        ({**INDICES, "probs": THREE, "low": 0}, "low, high: came with choices"),
        ({**INDICES, "logits": THREE, "mask": [0.0, -math.inf, 0.0]}, "mask: has -inf in it; give"),
        ({"policy": NORMAL, "entropy": lambda: 1 / 0}, "entropy: raised ZeroDivisionError"),
        ({"policy": NORMAL, "seed": 2**70}, "is no whole number of 64 bits; give one"),
        (
            {"sample": NORMAL.sample, "log_prob": lambda state, action: action},
            r"give a function of the action alone, as lambda action: f\(state, action\)",
        ),
        ({"sample": lambda n: exit(0), "log_prob": NORMAL.log_prob}, "sample: raised SystemExit"),
    ],
)
def test_what_is_no_policy_is_one_line(given, words):
    with pytest.raises(ValueError, match=words):
        audit.check(**given)


def test_a_function_may_return_pairs_of_choices():
    table = THREE.log()
    policy = lambda: (action := torch.multinomial(THREE, 3000, True), table[action])  # noqa: E731
    assert audit.check(policy, draws=5000).passed
    wrong = lambda: (action := torch.multinomial(THREE, 3000, True), table[action] - 0.2)  # noqa: E731
    assert not audit.check(wrong, draws=5000).passed
