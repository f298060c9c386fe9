"""What is handed in: distributions of torch in other forms, what actors return, odd draws."""

import pytest
import torch
from torch import distributions as dist
from torch.distributions import Independent

import audit

SIMPLEX = dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0]))
THREE = torch.tensor([0.2, 0.3, 0.5])
TABLE = torch.tensor([[0.2, 0.8, 1.0], [0.4, 0.6, 1.0]])
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


def get_action(count, each=False):
    """As CleanRL's: action, log-probability, and what else it returns."""
    latent = NORMAL.sample((count,))
    action = torch.tanh(latent)
    log_pi = NORMAL.log_prob(latent) - torch.log(1 - action**2)
    return action, log_pi if each else log_pi.sum(-1), torch.tanh(NORMAL.mean).expand(count, 2)


BOX = {"low": -1, "high": 1}


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
    action = SIMPLEX.sample((5000,))
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
            "sample: raised RuntimeError: boom; let it take",
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
