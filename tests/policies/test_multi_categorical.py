"""Several choices at once: frequencies of whole actions, and components of different sizes."""

import itertools
import math
from functools import partial

import pytest
import torch
from scipy import stats

from audit.density import audit
from data import Spec
from networks.discrete import CategoricalActor
from policies import Categorical, MultiCategorical
from tests.helpers import agent, batch

PROBS = [[0.5, 0.3, 0.2], [0.9, 0.1, 0.0]]  # of three and of two actions


def policy_of(count):
    return MultiCategorical(torch.tensor(PROBS).log().expand(count, -1, -1))


def test_whole_actions_are_as_frequent_as_the_product_of_their_probabilities():
    count = 200_000
    policy = policy_of(count)
    action, latent = policy.sample(policy.noise(torch.Generator().manual_seed(3)))
    assert torch.equal(action, latent)
    observed = torch.bincount(2 * action[:, 0] + action[:, 1], minlength=6)
    expected = [a * b * count for a, b in itertools.product(PROBS[0], PROBS[1][:2])]
    assert stats.chisquare(observed.numpy(), expected).pvalue > 1e-4
    assert action[:, 1].max() == 1  # what it does not have is never drawn


def test_log_prob_and_entropy_are_sums_and_the_probabilities_sum_to_one():
    every = torch.tensor(list(itertools.product(range(3), range(2))))
    policy = policy_of(6)
    log_prob = policy.log_prob(every)
    expected = [math.log(PROBS[0][a] * PROBS[1][b]) for a, b in every.tolist()]
    assert log_prob.tolist() == pytest.approx(expected)
    assert log_prob.exp().sum().item() == pytest.approx(1.0)
    entropy = -sum(p * math.log(p) for p in [math.exp(e) for e in expected])
    assert policy.entropy().tolist() == pytest.approx([entropy] * 6)
    assert policy.deterministic()[0].tolist() == [0, 0]


def test_the_actor_gives_absent_actions_no_probability_and_no_gradient():
    torso = torch.nn.Linear(3, 8)
    actor = CategoricalActor(torso, partial(torch.nn.Linear, 8), (3, 2))
    (log_probs,) = actor(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)))
    assert log_probs.shape == (5, 2, 3)
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(5, 2))
    assert (log_probs[:, 1, 2] == -torch.inf).all()
    policy = MultiCategorical(log_probs)
    action = torch.tensor([[2, 1]] * 5)
    for value in (policy.log_prob(action), policy.entropy()):
        assert value.isfinite().all()
        gradient = torch.autograd.grad(value.sum(), actor.head.weight, retain_graph=True)[0]
        assert gradient.isfinite().all()
        assert not gradient[5].any()  # of the third action that the second choice lacks
        assert gradient[:5].any()


@pytest.mark.parametrize("wrong", [False, True])
def test_an_audit_passes_it_and_catches_a_wrong_joint_probability(wrong):
    class Forgetful(MultiCategorical):
        """Negative control: scores the first component alone."""

        def log_prob(self, action, latent=None):
            return Categorical.log_prob(self, action)[..., 0]

    make = Forgetful if wrong else MultiCategorical
    parameters = (torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0]]).log(),)
    finding = audit(make, parameters, torch.Generator().manual_seed(0))
    assert bool(finding.failures) == wrong
    assert len(finding.curves) == 2
    assert len(finding.curves[1].density) == 2


def test_an_audit_does_not_mind_what_is_hardly_ever_drawn():
    rare = torch.tensor([[1 - 3e-4, 3e-4]] * 2).log()
    for seed in range(30):
        finding = audit(MultiCategorical, (rare,), torch.Generator().manual_seed(seed))
        assert not finding.failures


@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_agents_learn_which_of_several_choices_pay(name):
    """Reward 1 for each right component; an update must raise the probability of both."""
    spec = Spec(3, 3, discrete=True, choices=(3, 2))
    special = {"batch_size": 64} if name == "ppo" else {}
    learner = agent(name, spec, lr=1e-2, **special)
    obs = torch.zeros(64, 3)
    for _ in range(60):
        action, latent = learner.act(obs)
        assert action.shape == (64, 2)
        reward = (action == torch.tensor([2, 1])).float().sum(-1)
        data = batch(1, 64, spec=Spec(3, 3, discrete=True))
        ends = torch.ones(1, 64, dtype=torch.bool)
        learner.update(data._replace(obs=obs[None], next_obs=obs[None], reward=reward[None],
                                     action=action[None], latent=latent[None],
                                     terminated=ends, truncated=~ends))  # fmt: skip
    assert not learner.optimizer.diverged
    assert learner.act(obs[:1], deterministic=True)[0].tolist() == [[2, 1]]
    assert learner.policy(obs[:1]).log_prob(torch.tensor([[2, 1]])).exp() > 0.8
