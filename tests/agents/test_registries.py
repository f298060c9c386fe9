"""What every policy and every agent in the registries fulfils, also one that is new there."""

import pytest
import torch

import agents
from agents import AGENTS
from configs.agents import AGENT_GROUPS
from data import Spec
from policies import POLICIES, Policy, TanhFullGaussian, TanhGaussian
from runtime.audits import at_states
from tests.agents.test_joins import KINDS
from tests.helpers import agent

SPECS = {
    spec.kind: spec
    for spec in (Spec(3, 4, True), Spec(3, 4, True, (4, 2)), Spec(3, 2, discrete=False))
}
CONTINUOUS = SPECS["continuous"]


def test_every_agent_is_tried_by_the_tests_of_joins():
    assert {name for name, _, _ in KINDS.values()} == set(AGENTS) == set(AGENT_GROUPS)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_has_the_shapes_of_its_base_and_draws_from_its_density(name):
    made = POLICIES[name]
    spec = SPECS[made.action_kind]
    own = {} if spec.discrete else {"log_std": "state"}
    learner = agent("ppo", spec, policy=name, **own)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in learner.actor.parameters():
            parameter.normal_(std=0.5, generator=generator)
    obs = torch.randn(64, 3, generator=generator)
    noise = made.fill(torch.empty(64, *spec.noise_shape), generator)
    policy = learner.policy(obs)
    assert policy.noise(generator).shape == noise.shape
    action, latent = policy.sample(noise)
    assert torch.equal(policy.sample(noise)[0], action)
    log_prob = policy.log_prob(action, latent)
    assert log_prob.shape == policy.entropy().shape == (64,)
    assert policy.deterministic().shape == action.shape == learner.act(obs)[0].shape
    slopes = torch.autograd.grad(log_prob.sum(), list(learner.actor.parameters()))
    assert all(slope.abs().sum() > 0 for slope in slopes)
    if made.action_kind == "continuous":
        same, log_pi = policy.rsample_with_log_prob(noise)
        assert torch.equal(same, action)
        torch.testing.assert_close(log_pi, log_prob, rtol=1e-4, atol=1e-4)
        assert not made.squashed or action.abs().max() <= 1
    for finding in at_states(learner, obs[:2], generator):
        assert not finding.failures


@pytest.mark.parametrize("method", ["log_prob", "rsample_with_log_prob"])
@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_a_policy_without_a_method_is_refused_before_the_run(name, method, monkeypatch):
    class Unfinished(TanhGaussian):
        pass

    setattr(Unfinished, method, getattr(Policy, method))
    monkeypatch.setitem(POLICIES, "tanh_gaussian", Unfinished)
    wanted = f"^agent.policy: Unfinished does not define {method}; write it in {__name__}, as"
    with pytest.raises(ValueError, match=wanted):
        agent(name, CONTINUOUS, policy="tanh_gaussian")


@pytest.mark.parametrize("name", ["ppo", "sac_discrete"])
def test_choices_need_no_reparameterised_draws(name):
    assert POLICIES["categorical"].rsample_with_log_prob is Policy.rsample_with_log_prob
    agent(name, SPECS["discrete"])


@pytest.mark.parametrize("base", [TanhGaussian, TanhFullGaussian])
@pytest.mark.parametrize("constant", ["all", "mean", "spread"])
def test_sac_refuses_draws_without_a_gradient_in_a_parameter(base, constant, monkeypatch):
    class Constant(base):
        def __init__(self, mean, spread):
            mean = mean if constant == "spread" else mean.detach()
            super().__init__(mean, spread if constant == "mean" else spread.detach())

    name = next(name for name, policy in POLICIES.items() if policy is base)
    agent("sac", CONTINUOUS, policy=name)
    monkeypatch.setitem(POLICIES, name, Constant)
    agent("ppo", CONTINUOUS, policy=name)
    wanted = r"^agent.policy: draws of Constant have no gradient .* or use agent=ppo$"
    with pytest.raises(ValueError, match=wanted):
        agent("sac", CONTINUOUS, policy=name)


@pytest.mark.parametrize("method", ["update", "step", "losses"])
@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_without_a_method_is_refused_before_the_run(name, method, monkeypatch):
    for kind in AGENTS[name].__mro__:
        if method in vars(kind) and kind.__name__ != "BaseAgent":
            monkeypatch.delattr(kind, method)
    spec = SPECS["discrete" if name == "sac_discrete" else "continuous"]
    wanted = f"^agent: {AGENTS[name].__name__} does not define {method}; write it in agents.{name},"
    with pytest.raises(ValueError, match=wanted):
        agent(name, spec)


def test_an_agent_of_the_schema_alone_is_refused_with_the_place_of_its_class(monkeypatch):
    monkeypatch.setattr(agents, "AGENTS", {})
    wanted = r"^agent: a2c has no class; add it to AGENTS in agents/__init__\.py$"
    with pytest.raises(ValueError, match=wanted):
        agent("a2c", CONTINUOUS)
