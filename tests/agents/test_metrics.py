"""Metrics that are easy to get wrong in float32."""

import math

import pytest
import torch

from agents.metrics import policy_metrics, value_metrics


def explained_variance(value, target):
    return value_metrics(value, target, torch.tensor(0.0))["value/explained_variance"]


def test_explained_variance_by_hand():
    target = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert explained_variance(target, target).item() == 1.0
    assert explained_variance(torch.full((4,), 9.0), target).item() == 0.0
    assert explained_variance(-target, target).item() == pytest.approx(-3.0)


@pytest.mark.parametrize("value", [0.1, 100.1])
def test_a_constant_target_has_no_explained_variance(value):
    assert explained_variance(torch.zeros(128), torch.full((128,), value)).isnan()


def test_saturation_counts_components():
    action = torch.tensor([[0.999, 0.0], [-1.0, -0.995]])
    metrics = policy_metrics(torch.zeros(2), torch.zeros(2), action)
    assert metrics["policy/saturation"].item() == 0.75
    assert "policy/saturation" not in policy_metrics(torch.zeros(2), torch.zeros(2), action.long())


def test_what_a_critic_says_is_held_against_what_it_is_told():
    value, target = torch.tensor([[1.0, 4.0], [3.0, 0.0]]), torch.tensor([2.0, 6.0])
    found = value_metrics(value, target, torch.tensor(9.0))
    assert {name: round(number.item(), 5) for name, number in found.items()} == {
        "loss/critic": 9.0,
        "value/mean": 2.0,
        "value/target_mean": 4.0,
        "value/td_abs": 2.5,
        "value/explained_variance": -0.625,  # the errors 1, 2, -1, 6 vary by 6.5, the targets by 4
    }


def test_log_probs_and_entropies_by_hand():
    log_prob, entropy = torch.tensor([-1.0, -2.0, -6.0]), torch.tensor([0.0, 1.0, 2.0])
    found = policy_metrics(log_prob, entropy, torch.tensor([0, 1, 1]))
    wanted = {
        "log_prob_mean": -3.0,
        "log_prob_min": -6.0,
        "log_prob_max": -1.0,
        "log_prob_std": 7**0.5,
        "entropy": 1.0,
        "effective_actions": (1 + math.e + math.e**2) / 3,
    }
    assert {name: found[f"policy/{name}"].item() for name in wanted} == pytest.approx(wanted)
    assert found["policy/log_prob"].tolist() == log_prob.tolist()
