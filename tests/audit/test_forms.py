"""Mistakes in log-probabilities: their errors in nats, and how each is recognised."""

import math
from dataclasses import replace

import pytest
import torch

from audit.forms import FORMS, Base, Form
from audit.recognition import recognise, recognise_choices, recognise_entropy
from tests.audit import mistakes
from tests.audit.mistakes import FORMULAS, SEVERAL, Policy
from tools.gallery.controls import WRONG, Formula

DRAWS, BEYOND = 8000, 17.0
CONTINUOUS = sorted(
    name for name in FORMULAS if FORMS[name].kind in ("jacobian", "inverse", "scale", "constant")
)
CASES = [(name, size) for name in CONTINUOUS for size in (1, 3) if size > 1 or name not in SEVERAL]
DISCRETE = sorted(name for name, form in FORMS.items() if form.kind == "discrete")


def at(policy: Policy, u: torch.Tensor) -> Base:
    bounds = (policy.low, policy.high) if policy.kind == "box" else (None, None)
    return Base(u, policy.mean, torch.diag(policy.std), *bounds)


def named(policy: Policy) -> tuple[str, ...]:
    return tuple(form.name for form in found(policy))


def found(policy: Policy) -> tuple[Form, ...]:
    """The mistakes recognised from draws, and from points beyond them."""
    u = policy.latents(DRAWS)
    beyond = torch.linspace(-BEYOND, BEYOND, 101, dtype=torch.float64)
    points = torch.cat([u, beyond.unsqueeze(-1).expand(-1, u.shape[-1])])
    tril = torch.linalg.cholesky(torch.cov(u.T).view(u.shape[-1], u.shape[-1]))
    base = replace(at(policy, points), mean=u.mean(0), tril=tril)
    claim = policy.formula(policy, points) + policy.log_det(points).sum(-1)
    # log(1 - a^2 + 1e-6) has lost digits to 1 - a^2.
    return recognise(base, claim, torch.full_like(claim, 1e-8), DRAWS)


@pytest.mark.parametrize(("name", "size"), CASES)
def test_the_error_is_that_of_the_formula_as_people_write_it(name: str, size: int) -> None:
    policy = mistakes.policy(name, size)
    u = policy.latents(100)
    error = policy.formula(policy, u) - mistakes.right(policy, u)
    torch.testing.assert_close(FORMS[name].delta(at(policy, u)), error, rtol=1e-6, atol=1e-8)
    assert float(error.abs().max()) > 1e-4


@pytest.mark.parametrize(("name", "size"), CASES)
def test_each_mistake_is_recognised_and_no_other(name: str, size: int) -> None:
    assert named(mistakes.policy(name, size, seed=1)) == (name,)


@pytest.mark.parametrize("kind", ["box", "line"])
@pytest.mark.parametrize("size", [1, 3])
def test_a_right_density_needs_no_mistake(kind: str, size: int) -> None:
    assert named(mistakes.policy("", size, kind=kind)) == ()


def test_rounding_alone_has_no_constant() -> None:
    policy = replace(
        mistakes.policy("", 3), low=-torch.ones(3).double(), high=torch.ones(3).double()
    )
    u = policy.latents(DRAWS)
    base = replace(at(policy, u), mean=u.mean(0), tril=torch.diag(u.std(0)))
    claim = mistakes.right(policy, u) + policy.log_det(u).sum(-1)
    for seed in range(8):
        noise = torch.rand(DRAWS, generator=torch.Generator().manual_seed(seed)).double() - 0.5
        assert recognise(base, claim + 1.8e-4 * noise, torch.full_like(claim, 1e-4), DRAWS) == ()


@pytest.mark.parametrize("name", ["", "epsilon"])
def test_an_error_of_no_known_form_has_no_name(name: str) -> None:
    policy = mistakes.policy(name, 1)
    formula = policy.formula
    wrong = replace(policy, formula=lambda p, u: formula(p, u) + 1e-3 * (3.0 * u).cos().sum(-1))
    assert named(wrong) == ()


def test_two_mistakes_at_once_are_both_named() -> None:
    policy = mistakes.policy("epsilon", 1)
    both = replace(policy, formula=lambda p, u: FORMULAS["epsilon"](p, u) + p.scale.log().sum())
    assert named(both) == ("epsilon + affine_forgotten",)


def test_what_cannot_be_told_apart_is_named_together() -> None:
    """With std 1 / e, half of log std is missing or 1/2 is subtracted: it is the same."""
    policy = mistakes.policy("half_subtracted", 1)
    policy = replace(policy, std=torch.full_like(policy.std, math.exp(-1.0)))
    assert named(policy) == ("half_log_sigma", "half_subtracted")


def test_means_and_scales_that_are_not_those_of_the_draws_are_no_mistake_of_form() -> None:
    policy = mistakes.policy("sigma_for_log_sigma", 1)
    elsewhere = replace(policy, mean=policy.mean + 0.1 * policy.std)
    moved = replace(policy, formula=lambda p, u: FORMULAS["sigma_for_log_sigma"](elsewhere, u))
    assert named(moved) == ()


def test_where_the_box_has_half_widths_of_1_nothing_is_scaled() -> None:
    policy = mistakes.policy("epsilon_scaled", 1)
    assert named(replace(policy, low=-policy.scale / 2, high=policy.scale / 2)) == ("epsilon",)


@pytest.mark.parametrize("name", sorted(name for name in FORMULAS if FORMS[name].free))
@pytest.mark.parametrize("constant", [1e-2, 2.0**-23])
def test_the_constant_of_a_mistake_is_found(name: str, constant: float) -> None:
    policy = mistakes.anywhere(mistakes.policy(name, 1, seed=3, constant=constant))
    (form,) = found(policy)
    assert form.name == name
    assert form.constant == pytest.approx(constant, rel=1e-3)
    assert ("1e-2" if constant == 1e-2 else "1.2e-7") in form.text


def test_a_clip_that_float64_alone_resolves_is_recognised() -> None:
    policy = mistakes.policy("", 1)
    beyond = replace(policy, formula=lambda p, u: mistakes.right(p, u.clamp(-17.616, 17.616)))
    u = torch.linspace(-19.0, 19.0, 500, dtype=torch.float64).unsqueeze(-1)
    claim = beyond.formula(beyond, u) + policy.log_det(u).sum(-1)
    slack = torch.full((500,), 0.1, dtype=torch.float64)  # nothing is left of the action there
    (form,) = recognise(at(policy, u), claim, slack, 10**9)
    assert form.text == "atanh of a clipped to ±(1 − 1e-15)"


def test_correlated_components_are_no_obstacle() -> None:
    policy = mistakes.policy("", 3)
    tril = torch.tensor([[0.6, 0.0, 0.0], [0.4, 0.7, 0.0], [-0.2, 0.1, 0.3]]).double()
    u = policy.mean + policy.latents(DRAWS).sub(policy.mean).div(policy.std) @ tril.T
    right = Base(u, policy.mean, tril, policy.low, policy.high)
    base = replace(right, mean=u.mean(0), tril=torch.linalg.cholesky(torch.cov(u.T)))
    slack = torch.full((DRAWS,), 1e-9, dtype=torch.float64)
    for name in ("epsilon", "jacobian_added", "constant_forgotten", "sigma_for_log_sigma"):
        claim = right.normal(right.z) + FORMS[name].delta(right)
        assert [form.name for form in recognise(base, claim, slack, DRAWS)] == [name]


def test_a_log_prob_that_is_no_number_for_actions_beyond_1_is_recognised() -> None:
    policy = mistakes.policy("jacobian_of_scaled", 1)
    wide = replace(policy, low=-3.0 * torch.ones(1).double(), high=3.0 * torch.ones(1).double())
    wide = replace(wide, mean=torch.full_like(wide.mean, 3.0))  # nearly all are beyond
    assert named(wide) == ("jacobian_of_scaled",)


@pytest.mark.parametrize("name", DISCRETE)
def test_mistakes_in_choices_are_recognised(name: str) -> None:
    given = mistakes.choices(name, seed=2)
    counts = torch.bincount(given["sample"](20_000), minlength=len(given["log_probs"]))
    assert recognise_choices(given["log_probs"], counts, given.get("mask")) == (name,)


def test_the_entropy_before_tanh_is_recognised() -> None:
    policy = mistakes.policy("", 2)
    u = policy.latents(DRAWS)
    before = float(policy.std.log().sum()) + 1.0 + math.log(2.0 * math.pi)
    log_prob = mistakes.right(policy, u)
    error = float(log_prob.std()) / math.sqrt(DRAWS)
    (form,) = recognise_entropy(at(policy, u), before + float(log_prob.mean()), error)
    assert form.name == "entropy_of_base"


@pytest.mark.parametrize("name", sorted(set(WRONG) - {"sum_forgotten"}))
def test_the_wrong_formulas_of_the_gallery_are_the_same_mistakes(name: str) -> None:
    policy = mistakes.policy("", 2)
    u = policy.latents(50)
    made = [build(policy.mean, policy.std.log(), True) for build in (WRONG[name], Formula)]
    wrong, right = (one.log_prob(torch.tanh(u), u) for one in made)
    torch.testing.assert_close(FORMS[name].delta(at(policy, u)), wrong - right)


def test_every_mistake_has_words_a_source_and_a_policy_that_makes_it() -> None:
    made = {*FORMULAS, *DISCRETE, *mistakes.ENTROPIES}
    assert set(FORMS) == made
    assert all(form.source.startswith("https://github.com/") for form in FORMS.values())
    assert len({form.text for form in FORMS.values()}) == len(FORMS)
