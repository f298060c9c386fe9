"""What is compiled in place of a matrix product is that product, and so are its gradients."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.traced import NARROW, product
from networks.layers import Linear, Tanh

ROOT = Path(__file__).resolve().parents[2]
SHAPES = [
    ((5, NARROW), (NARROW, 6)),
    ((2, 5, NARROW), (2, NARROW, 6)),
    ((5, 7), (7, 1)),
    ((2, 5, 7), (2, 7, 1)),
    ((2, 5, 1), (2, 1, 1)),
    ((3, 5, 2), (2, 6)),
    ((2, 5, NARROW + 1), (2, NARROW + 1, 6)),
    ((1, 7), (7, 6)),
    ((1, 1, 7), (7, 6)),
    ((1, 7), (2, 7, 6)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_a_product_of_any_shape_is_that_of_matrices(left, right):
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(left, generator=generator, dtype=torch.float64, requires_grad=True)
    second = torch.randn(right, generator=generator, dtype=torch.float64, requires_grad=True)
    ours, exact = product(first, second), torch.einsum("...bi,...io->...bo", first, second)
    slope = torch.randn(exact.shape, generator=generator, dtype=torch.float64)
    assert ours.shape == exact.shape
    assert torch.allclose(ours, exact, rtol=1e-12, atol=1e-12)
    for told, expected in zip(
        torch.autograd.grad(ours, (first, second), slope),
        torch.autograd.grad(exact, (first, second), slope),
        strict=True,
    ):
        assert torch.allclose(told, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 6), (7, 1), (7, 6)])
def test_a_layer_is_the_same_compiled_or_not(inputs, outputs, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    layer = Linear(inputs, outputs, generator)
    torch.nn.init.normal_(layer.bias, generator=generator)
    obs = torch.linspace(-2.0, 2.0, 4 * inputs).reshape(4, inputs)
    expected = layer(obs)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.allclose(layer(obs), expected, rtol=1e-5, atol=1e-6)


def test_layers_draw_from_their_own_generator_and_load_nothing_large():
    """Half a second and 36 MiB of symbolic algebra, where weights were made without memory."""
    code = """
import sys, torch
from networks.encoder import Encoder
from networks.layers import Linear
before = torch.get_rng_state()
for gain in (None, 1.0):
    Linear(3, 4, torch.Generator(), gain)
Encoder((36, 36, 3), torch.Generator())
print(torch.equal(torch.get_rng_state(), before), "sympy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "True False\n", done.stderr


def test_the_activation_is_tanh_and_its_slope_that_of_tanh():
    inputs = torch.cat([torch.linspace(-12, 12, 4801), torch.tensor([-1e30, -100.0, 100.0, 1e30])])
    inputs.requires_grad_()
    outputs = Tanh()(inputs)
    (slope,) = torch.autograd.grad(outputs.sum(), inputs)
    exact = inputs.detach().double().tanh()
    assert ((outputs - exact).abs() <= 2e-7).all()
    assert ((slope - (1.0 - exact.square())).abs() <= 5e-7).all()
    assert Tanh()(torch.zeros(1)).item() == 0.0
    assert outputs[-4:].tolist() == [-1.0, -1.0, 1.0, 1.0]
