"""The critic ensemble equals its members, and values have the shapes that losses rely on."""

import pytest
import torch

from networks.actor_critic import Critic, Value, torso
from networks.layers import EnsembleNorm, Linear


def test_ensemble_equals_its_members_one_by_one():
    generator = torch.Generator().manual_seed(0)
    critic = Critic(3, 4, 2, [16, 8], "relu", generator)
    obs, action = torch.randn(5, 4, generator=generator), torch.randn(5, 2, generator=generator)
    together = critic(obs, action)
    assert together.shape == (3, 5)
    for member in range(3):
        x = torch.cat([obs, action], -1)
        for layer in critic.layers:
            x = x @ layer.weight[member] + layer.bias[member] if hasattr(layer, "weight") else (
                layer(x)
            )  # fmt: skip
        assert torch.allclose(together[member], x.squeeze(-1), atol=1e-6)
    assert not torch.allclose(together[0], together[1])


def test_ensemble_keeps_leading_dimensions():
    generator = torch.Generator().manual_seed(0)
    critic = Critic(2, 4, 2, [8], "relu", generator)
    obs, action = torch.zeros(7, 5, 4), torch.zeros(7, 5, 2)
    assert critic(obs, action).shape == (2, 7, 5)


@pytest.mark.parametrize("bounded", [True, False])
def test_value_is_one_number_per_observation(bounded):
    generator = torch.Generator().manual_seed(0)
    body = torso(4, [8], "relu", generator)
    value = Value(body, Linear(8, 1, generator), bounded=bounded)
    out = value(1e4 * torch.ones(7, 5, 4))
    assert out.shape == (7, 5)
    assert bool((out.abs() <= 1).all()) == bounded


def test_a_discrete_ensemble_equals_its_members_and_keeps_leading_dimensions():
    generator = torch.Generator().manual_seed(0)
    critic = Critic(3, 4, 0, [16, 8], "relu", generator, outputs=6)
    obs = torch.randn(7, 5, 4, generator=generator)
    together = critic(obs)
    assert together.shape == (3, 7, 5, 6)
    for member in range(3):
        x = obs
        for layer in critic.layers:
            known = hasattr(layer, "weight")
            x = x @ layer.weight[member] + layer.bias[member] if known else layer(x)
        assert torch.allclose(together[member], x, atol=1e-6)


def test_normalised_layers_equal_torchs_layer_norm_member_by_member():
    generator = torch.Generator().manual_seed(0)
    norm = EnsembleNorm(2, 8)
    inputs = 3 + 5 * torch.randn(2, 6, 8, generator=generator)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    for member in range(2):
        oracle = torch.nn.LayerNorm(8)
        oracle.weight.data, oracle.bias.data = norm.weight[member, 0], norm.bias[member, 0]
        assert torch.allclose(norm(inputs)[member], oracle(inputs[member]), atol=1e-5)
    critic = Critic(2, 4, 2, [8, 8], "relu", generator, normalise=True)
    kinds = [type(layer).__name__ for layer in critic.layers]
    assert kinds == [*(["EnsembleLinear", "EnsembleNorm", "ReLU"] * 2), "EnsembleLinear"]
