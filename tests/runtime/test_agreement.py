"""A graph that does something else than the plain code is found before the run begins."""

import pytest
import torch

from common.errors import ConfigError
from common.tree import digest
from data import Spec
from runtime.accelerate import acceleration
from runtime.accelerate.acceleration import accelerate
from runtime.accelerate.compiled import OPTIONS
from tests.helpers import agent, batch
from tests.runtime.test_acceleration import learner, needs_compiler


def metric(name):
    """1.1 times this number, everything else right."""

    def plant(made, metrics):
        names, vector = next(iter(metrics.items()))
        if name in names:
            vector[names.index(name)] *= 1.1

    return plant


def still(name):
    """One bias of this module stays what it was."""

    def plant(made, metrics):
        made.modules[name].load_state_dict(made.untouched[name], strict=False)

    return plant


def slope(made, metrics):
    made.optimizer.moments["actor"][0][0].mul_(1.05)


def nothing(made, metrics):
    pass


PLANTED = {
    "loss/critic is .* in place of": metric("loss/critic"),
    "grad_norm/actor is .* in place of": metric("grad_norm/actor"),
    "critic's weights \\(.\\) is 0 in place of": still("critic"),
    "critic_target's weights \\(.\\) is 0 in place of": still("critic_target"),
    "actor's slopes \\(0\\) is": slope,
}


def accelerated(plant, monkeypatch, kind="sac", act=lambda drawn: drawn):
    """An agent whose compiled update is its own, followed by `plant`."""
    made, data = learner(kind)
    made.untouched = {
        name: {key: value.clone() for key, value in module.state_dict().items() if "bias" in key}
        for name, module in made.modules.items()
    }

    def compiled(function):
        def wrong(*arguments):
            result = function(*arguments)
            if not isinstance(result, dict):
                return act(result)
            plant(made, result)
            return result

        return wrong

    monkeypatch.setattr(acceleration, "Compiled", compiled)
    accelerate(made, "compile", data, torch.randn(3, 3))
    return made


@pytest.mark.parametrize("says", PLANTED)
def test_an_update_that_is_another_one_is_refused(says, monkeypatch):
    with pytest.raises(ConfigError, match=f"accelerate: compile .*{says}.*accelerate=none"):
        accelerated(PLANTED[says], monkeypatch)


def test_the_graph_without_the_actor_is_held_against_the_plain_code_too(monkeypatch):
    def plant(made, metrics):
        if "loss/actor" not in next(iter(metrics)):
            metric("loss/critic")(made, metrics)

    with pytest.raises(ConfigError, match=r"loss/critic is .* in place of"):
        accelerated(plant, monkeypatch)  # which trains the actor every second time


def test_an_action_that_is_another_one_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match=r"the action is .* in place of"):
        accelerated(nothing, monkeypatch, act=lambda drawn: (0.9 * drawn[0], drawn[1]))


@pytest.mark.parametrize("kind", ["sac", "sac_discrete", "a2c", "ppo", "squashed a2c"])
def test_the_same_update_is_taken_and_leaves_no_trace(kind, monkeypatch):
    made = accelerated(nothing, monkeypatch, kind)
    assert digest(made.state_dict()) == digest(learner(kind)[0].state_dict())


@needs_compiler
@pytest.mark.slow
def test_a_fault_of_the_compiler_itself_is_found(monkeypatch):
    monkeypatch.setitem(OPTIONS, "memory_planning", True)  # of torch 2.13: overlaps what is in use
    spec = Spec(3, 1, discrete=False)
    data = batch(8, spec=spec)._replace(latent=None)
    with pytest.raises(ConfigError, match="accelerate: compile makes another update"):
        accelerate(agent("sac", spec, normalise_critic=True), "compile", data, torch.zeros(3, 3))
