"""Anyone's density: right ones pass whatever they are handed in as, wrong ones are named."""

import math
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import distributions as dist
from torch.distributions.transforms import AffineTransform, TanhTransform

import audit
import policies
from tests.tracked import ROOT

MEAN, STD = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.3, 1.0, 0.1])
TRIL = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.2, 0.0], [-0.5, 0.1, 0.05]])
RUNS = (ROOT / "docs/runs.md").read_text()
AUDITED = """
import sys
import audit

one = TanhGaussian(torch.zeros(1, 2), torch.zeros(1, 2))
both = lambda n: one.rsample_with_log_prob(torch.randn(n, 2))
others = {"PIL", "matplotlib", "common", "hydra", "gymnasium"} & set(sys.modules)
print(audit.check(sample=both, log_prob=one.log_prob, low=-1, high=1).passed, sorted(others))
"""
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def squashed(base, *maps):
    return dist.TransformedDistribution(base, [TanhTransform(), *maps])


def diagonal(mean=MEAN, std=STD):
    return dist.Independent(dist.Normal(mean, std), 1)


def gaussian(x, mean=1.0, std=2.0):
    """By hand, for numpy and torch."""
    return -0.5 * ((x - mean) / std) ** 2 - math.log(std) - HALF_LOG_2PI


RIGHT = {
    "normal": dist.Normal(4.0, 0.8),
    "beta": dist.Beta(0.5, 2.0),
    "gamma": dist.Gamma(2.0, 3.0),
    "laplace": dist.Laplace(0.0, 1.0),
    "cauchy": dist.Cauchy(0.0, 1.0),
    "mixture": dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.3, 0.7])),
        dist.Normal(torch.tensor([-3.0, 2.0]), torch.tensor([0.1, 1.0])),
    ),
    "tanh": squashed(dist.Normal(torch.tensor(0.5), torch.tensor(0.6))),
    "saturated": squashed(dist.Normal(torch.tensor(5.0), torch.tensor(0.2))),
    "box": squashed(dist.Normal(torch.tensor(0.5), torch.tensor(0.6)), AffineTransform(0.0, 2.0)),
    "several": diagonal(),
    "correlated": squashed(dist.MultivariateNormal(MEAN, scale_tril=TRIL)),
    "boxes": squashed(diagonal(), AffineTransform(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]))),
    "no gaussian": dist.Independent(dist.Laplace(MEAN, STD), 1),
    "a batch of one": dist.Independent(dist.Normal(MEAN[None], STD[None]), 1),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_distribution_of_torch_passes(name):
    report = audit.check(RIGHT[name])
    assert report.passed, str(report)
    assert " draws follow exp(log_prob), which integrates to 1" in report.verdict
    squashed_ones = ("beta", "correlated", "tanh", "saturated", "box", "boxes")
    assert ("not judged beyond |u| = " in report.verdict) == (name in squashed_ones)
    assert report.form is None


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_functions_of_numpy_and_of_torch_pass_one_by_one_and_many_at_once(kind):
    numbers = np.random.default_rng(0)

    def many(count):
        return numbers.normal(1.0, 2.0, count).astype(kind)

    def by_torch(count):
        return torch.from_numpy(many(count))

    assert audit.check(sample=many, log_prob=gaussian).passed
    assert audit.check(sample=by_torch, log_prob=gaussian).passed
    one = audit.check(lambda: (lambda: many(1)[0], lambda a: float(gaussian(a))), draws=2000)
    assert one.passed, str(one)


def test_a_function_that_takes_its_own_number_of_actions_passes():
    batch = diagonal(MEAN.expand(64, 3), STD.expand(64, 3))
    assert audit.check(sample=lambda: batch.sample(), log_prob=batch.log_prob).passed


@pytest.mark.parametrize("count", [1, 1200])
def test_policies_of_this_project_pass_by_their_latents(count):
    """Also where float32's tanh is 1; of one state, and of as many equal ones as draws."""
    mean, log_std = torch.tensor([9.5, -1.0]), torch.tensor([0.3, -2.0])
    if count > 1:
        mean, log_std = mean.expand(count, 2), log_std.expand(count, 2)
    report = audit.check(policies.TanhGaussian(mean, log_std), draws=1200)
    assert report.passed, str(report)
    assert "entropy_gap" in str(report)
    wrong = policies.TanhGaussian(mean, log_std)
    wrong.log_prob = lambda action, latent: gaussian(latent).sum(-1)
    assert not audit.check(wrong, draws=1200).passed


def test_choices_pass():
    probs = torch.tensor([0.5, 0.3, 0.2])
    draw = dist.Categorical(probs).sample
    for report in (
        audit.check(dist.Categorical(probs)),
        audit.check(dist.Poisson(3.0)),
        audit.check(sample=draw, probs=probs),
        audit.check(sample=draw, log_probs=probs.log().numpy()),
        audit.check(policies.Categorical(probs.log()), draws=2000),
        audit.check(policies.MultiCategorical(probs.log().expand(2, 3)), draws=2000),
        audit.check(sample=lambda n: draw((n, 2)).numpy(), probs=probs.expand(2, 3)),
    ):
        assert report.passed, str(report)


def test_masked_choices_and_their_slips():
    probs, mask = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([True, False, True])
    right = probs.log().masked_fill(~mask, -math.inf).log_softmax(-1)
    draw = dist.Categorical(logits=right).sample
    assert audit.check(sample=draw, logits=probs.log(), mask=mask).passed
    assert audit.check(sample=draw, log_probs=right, mask=mask).passed
    forgotten = audit.check(sample=draw, log_probs=probs.log(), mask=mask)
    assert forgotten.form == "mask_forgotten"
    other = audit.check(
        sample=draw, log_prob=dist.Categorical(probs).log_prob, logits=right, mask=mask
    )
    assert other.form == "mask_forgotten"
    drawn = audit.check(sample=dist.Categorical(probs).sample, log_probs=right, mask=mask)
    assert drawn.form == "mask_not_drawn"
    assert "what the mask forbids is drawn" in drawn.verdict
    unlike = audit.check(sample=draw, probs=[0.4, 0.0, 0.6])
    assert "choice 2 has probability 0.6, its share of the draws is 0.2" in unlike.verdict
    assert not audit.check(sample=draw, log_probs=right, entropy=1.0).passed
    assert not audit.check(sample=draw, log_probs=right, log_prob=lambda a: right[a] + 0.1).passed


@pytest.mark.parametrize("size", [1, 3])
def test_in_float32_what_is_rounded_to_a_bound_is_left_out(size):
    mean, std = torch.tensor([7.0, -1.0, 1.5])[:size], torch.tensor([1.2, 0.8, 0.3])[:size]

    def log_prob(action, epsilon=0.0):
        u = torch.atanh(action.float())
        log_det = 2 * (math.log(2) - u - torch.nn.functional.softplus(-2 * u))
        wrong = torch.log(1 - action.float() ** 2 + epsilon) if epsilon else log_det
        return (dist.Normal(mean, std).log_prob(u) - wrong).sum(-1)

    given = {
        "sample": lambda n: torch.tanh(mean + std * torch.randn(n, size)),
        "low": -1,
        "high": 1,
    }
    report = audit.check(log_prob=log_prob, **given)
    assert report.passed, str(report)
    assert audit.check(log_prob=lambda a: log_prob(a, 1e-6), **given).form == "epsilon"


def test_float32_inside_a_function_that_returns_float64_passes():
    def log_prob(action):
        u = torch.atanh(action.float())
        return (gaussian(u, 0.5, 0.6) - torch.log(1 - action.float() ** 2)).double()

    report = audit.check(sample=TANH.sample, log_prob=log_prob, low=-1, high=1)
    assert report.passed, str(report)


@pytest.mark.parametrize(("low", "high"), [(-0.5, 1.5), (10.0, 11.0), (-3.0, 1.0), (-0.1, 1.0)])
def test_a_box_that_is_not_about_zero_passes_in_float32(low, high):
    half, middle = (high - low) / 2, (high + low) / 2

    def log_prob(action):
        u = torch.atanh((action.float() - middle) / half)
        log_det = 2 * (math.log(2) - u - torch.nn.functional.softplus(-2 * u))
        return gaussian(u, 0.5, 0.6) - log_det - math.log(half)

    report = audit.check(
        sample=lambda n: half * torch.tanh(0.5 + 0.6 * torch.randn(n)) + middle,
        log_prob=log_prob,
        low=low,
        high=high,
    )
    assert report.passed, str(report)


NORMAL = dist.Normal(1.0, 2.0)
TANH = squashed(dist.Normal(torch.tensor(0.5), torch.tensor(0.6)))
SEVERAL = diagonal()
WRONG = {  # sample, log_prob, what else, form, words
    "constant": (NORMAL, lambda a: gaussian(a) + 0.1, {}, None, "too high by exactly 0.1 nat"),
    "scale": (NORMAL, lambda a: gaussian(a, std=2.2), {}, None, "too low by 0.0"),
    "no gaussian": (
        dist.Laplace(0.0, 1.0),
        lambda a: dist.Laplace(0.0, 1.0).log_prob(a) + 0.1,
        {},
        None,
        "integrates to 1.11",
    ),
    "draws": (dist.Laplace(0.1, 1.0), dist.Laplace(0.0, 1.0).log_prob, {}, None, "do not follow"),
    "epsilon": (
        TANH,
        lambda a: gaussian(torch.atanh(a), 0.5, 0.6) - torch.log(1 - a**2 + 1e-6),
        {"low": -1, "high": 1},
        "epsilon",
        "right at most draws, but too low by",
    ),
    "another epsilon": (
        TANH,
        lambda a: gaussian(torch.atanh(a), 0.5, 0.6) - torch.log(1 - a**2 + 1e-4),
        {"low": -1, "high": 1},
        "epsilon",
        "looks like log(1 − a² + 1e-4)",
    ),
    "entropy before tanh": (
        TANH,
        TANH.log_prob,
        # Of few draws: points that were not drawn would have a tenth of the weight.
        {"low": -1, "high": 1, "entropy": HALF_LOG_2PI + 0.5 + math.log(0.6), "draws": 1000},
        "entropy_of_base",
        "looks like the entropy before tanh",
    ),
    "forgotten": (
        TANH,
        lambda a: gaussian(torch.atanh(a), 0.5, 0.6),
        {"low": -1, "high": 1},
        "jacobian_forgotten",
        "looks like",
    ),
    "box": (
        RIGHT["box"],
        lambda a: TANH.log_prob(a / 2),
        {"low": -2, "high": 2},
        "affine_forgotten",
        "exactly 0.693",
    ),
    "entropy": (NORMAL, gaussian, {"entropy": 2.0}, None, "entropy() is too low by 0.1"),
    "sum": (SEVERAL, lambda a: gaussian(a, MEAN, STD), {}, "sum_forgotten", "gives 3 numbers"),
    "batch": (NORMAL, lambda a: gaussian(a).sum(), {}, "summed_over_batch", "all actions together"),
    "square": (NORMAL, lambda a: gaussian(a[:, None]) + 0 * a, {}, "broadcast", "N numbers for"),
    "clipped": (
        lambda n: NORMAL.sample((n,)).clamp(-3, 3),
        gaussian,
        {"low": -3, "high": 3},
        "clipped",
        "lie exactly on a bound",
    ),
    "nan": (NORMAL, lambda a: torch.log(a) + gaussian(a), {}, None, "not finite"),
    "detached": (
        NORMAL,
        lambda a: gaussian(a.detach()) + 0 * a,
        {},
        None,
        "the gradient of log_prob is not the slope",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_density_is_caught_and_its_mistake_named(name):
    sample, log_prob, others, form, words = WRONG[name]
    report = audit.check(
        sample=getattr(sample, "sample", sample),
        log_prob=lambda a: log_prob(a) if name != "sum" else dist.Normal(MEAN, STD).log_prob(a),
        **others,
    )
    assert not report.passed
    assert report.verdict.startswith("wrong: ")
    assert words in report.verdict
    assert report.form == form


def test_a_last_dimension_of_one_passes_and_is_pointed_out():
    report = audit.check(
        sample=SEVERAL.sample, log_prob=lambda a: SEVERAL.log_prob(a).unsqueeze(-1)
    )
    assert report.passed
    assert "its shape is (N, 1)" in report.verdict


def test_log_pi_that_is_handed_out_is_held_against_log_prob():
    def drawn(count, shift=0.0):
        action = SEVERAL.sample((count,))
        return action, SEVERAL.log_prob(action) + shift

    for sample, passed in ((drawn, True), (lambda count: drawn(count, 0.1), False)):
        report = audit.check(sample=sample, log_prob=SEVERAL.log_prob)
        assert report.passed == passed
        assert passed or "log_pi and log_prob differ by 0.1 nat" in report.verdict
        assert audit.check(sample=sample).passed == passed


def test_the_verdict_is_that_of_the_seed_and_random_states_are_left_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second = audit.check(NORMAL), audit.check(NORMAL)
    assert torch.rand(1) == expected
    figures = [trial.figure for trial in first.trials]
    assert figures == pytest.approx([trial.figure for trial in second.trials], abs=1e-12)
    other = audit.check(NORMAL, seed=1)
    assert figures != pytest.approx([trial.figure for trial in other.trials], abs=1e-4)


def explode(count=None):
    raise RuntimeError("boom\nand more")


BAD = {
    "nothing": ({}, "nothing came"),
    "no sample": ({"log_prob": gaussian}, "nothing came"),
    "another thing": ({"policy": 3}, "a int came"),
    "no log_prob": ({"sample": NORMAL.sample}, "log_prob: none came"),
    "raises": ({"sample": explode, "log_prob": gaussian}, "sample: raised RuntimeError: boom and"),
    "raises later": ({"sample": NORMAL.sample, "log_prob": explode}, "log_prob: raised Runtime"),
    "few": ({"policy": NORMAL, "draws": 10}, "draws: 10 are too few"),
    "text": ({"sample": lambda n: "text", "log_prob": gaussian}, "sample: gave a str"),
    "states": (
        {"policy": diagonal(MEAN * torch.arange(1.0, 5.0)[:, None], STD.expand(4, 3))},
        "two values for the same action; give the function of one state",
    ),
    "nan draws": (
        {"sample": lambda n: torch.full((n,), math.nan), "log_prob": gaussian},
        "draws are not finite",
    ),
    "constant": ({"sample": lambda n: torch.ones(n), "log_prob": gaussian}, "always 1"),
    "two values": (
        {"sample": lambda n: torch.randn(n).round(), "log_prob": gaussian},
        "different numbers",
    ),
    "shape": (
        {"sample": NORMAL.sample, "log_prob": lambda a: torch.zeros(len(a), 2, 2)},
        "log_prob: gave shape (6, 2, 2) for 6 actions",
    ),
    "no numbers": ({"sample": NORMAL.sample, "log_prob": lambda a: None}, "gave a NoneType"),
    "noisy": (
        {"sample": NORMAL.sample, "log_prob": lambda a: gaussian(a) + torch.rand(len(a))},
        "two values for the same action",
    ),
    "nan": (
        {"sample": NORMAL.sample, "log_prob": lambda a: a * math.nan},
        "log_prob: is not finite at 20000 of 20000 draws",
    ),
    "outside": ({"policy": NORMAL, "low": -1, "high": 1}, "lies below low=-1; give bounds"),
    "turned round": ({"policy": NORMAL, "low": 1, "high": -1}, "low: 1 is not below"),
    "wrong size": ({"policy": NORMAL, "low": [0, 0]}, "low: [0, 0] does not fit 1"),
    "rounded": (
        {
            "sample": lambda n: torch.tanh(8.5 + torch.randn(n)),
            "log_prob": lambda a: gaussian(torch.atanh(a.float())),
            "low": -1,
            "high": 1,
        },
        "of the draws are rounded to a bound",
    ),
    "no probabilities": ({"sample": NORMAL.sample, "probs": [-1.0, 2.0]}, "probs: have -1"),
    "two tables": ({"policy": NORMAL, "probs": [1.0], "logits": [1.0]}, "probs and logits: came"),
    "no choices": ({"sample": NORMAL.sample, "probs": [0.5, 0.5]}, "expected whole numbers"),
    "no draws": ({"sample": lambda n: None, "log_prob": NORMAL.log_prob}, "returned None"),
    "short mask": (
        {"policy": dist.Categorical(torch.ones(4)), "mask": [True, False]},
        "(2,) came for logits (4,); give one of their shape",
    ),
    "empty mask": (
        {"policy": dist.Categorical(torch.ones(4)), "mask": [False] * 4},
        "forbids every choice; permit one",
    ),
    "table's shape": (
        {"sample": dist.Categorical(torch.ones(2)).sample, "probs": [[0.5, 0.5]] * 3},
        "do not fit draws of 1 components",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_with_what_to_do(name):
    given, words = BAD[name]
    with pytest.raises(ValueError, match="; ") as error:
        audit.check(**given)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_integral_that_a_few_points_decide_is_not_called_1():
    """A clamped log-probability integrates to infinity, in places where draws never are."""
    normal = dist.Independent(dist.Normal(MEAN[:2], STD[:2]), 1)
    torch.manual_seed(0)
    verdict = audit.check((normal.sample, lambda a: normal.log_prob(a).clamp(min=-5.0))).verdict
    assert "whose integral is not judged" in verdict
    assert "integrates to 1" not in verdict


def test_what_is_no_normal_is_judged_where_draws_are():
    base = dist.Laplace(torch.tensor(0.0).double(), 0.5)
    policy = squashed(base)
    verdict = audit.check(policy).verdict
    reach = float(verdict.split("not judged beyond |u| = ")[1])
    assert 1.0 < reach < 2.5  # 0.5 log(1 / 0.03) is 1.75


def test_noise_is_what_sample_is_called_with():
    noise = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0))
    report = audit.check(
        sample=lambda noise: 1.0 + 2.0 * noise, log_prob=lambda a: gaussian(a).sum(-1), noise=noise
    )
    assert report.passed
    assert report.verdict.startswith("right: 5,000 draws")


def test_the_gradient_of_log_pi_by_its_noise_is_checked():
    noise = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0)).double()

    def sample(noise, detach=False):
        u = 0.5 + 0.6 * noise
        scored = u.detach() if detach else u
        log_det = 2 * (math.log(2) - scored - torch.nn.functional.softplus(-2 * scored))
        return torch.tanh(u), (gaussian(u, 0.5, 0.6) - log_det).sum(-1)

    def log_prob(action):
        return (gaussian(torch.atanh(action), 0.5, 0.6) - torch.log(1 - action**2)).sum(-1)

    given = {"log_prob": log_prob, "noise": noise, "low": -1, "high": 1}
    right = audit.check(sample=sample, **given)
    assert right.passed, str(right)
    assert "slope of log_pi by its noise" in str(right)
    wrong = audit.check(sample=lambda noise: sample(noise, True), **given)
    assert "the gradient of" in wrong.verdict


def test_policies_and_audit_are_complete_when_copied_and_need_torch_and_numpy_alone(tmp_path):
    for folder in ("policies", "audit"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (mine,) = re.findall(r"```python\n(import torch\nfrom policies .*?)```", RUNS, re.S)
    (tmp_path / "mine.py").write_text(mine + AUDITED)
    done = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    printed = "TanhGaussian(mean: (32, 2), log_std: (32, 2)) tensor(0.0100)"
    assert (done.stdout.splitlines(), done.stderr) == ([printed, "True []"], "")
    assert "TanhGaussian(mean: (32, 2), log_std: (32, 2)), 0.01" in mine
