"""Large products go through oneDNN where MKL is slow, and stay the products that they were."""

import pytest
import torch

from common.seeding import stream
from configs import automatic
from data import Spec
from runtime.accelerate import compiled as compiling
from runtime.accelerate import products
from tests.helpers import agent

needs_onednn = pytest.mark.skipif(
    automatic.compiler() is None or not torch.backends.mkldnn.is_available(),
    reason="no C++ compiler, or torch without oneDNN",
)
CALL = "linear_pointwise("


@pytest.mark.parametrize(
    ("processor", "there", "taken"),
    [
        ({"sse4a": True, "avx512_f": True}, True, True),
        ({"sse4a": True, "avx512_f": True}, False, False),
        ({"sse4a": True, "avx512_f": False}, True, False),
        ({"sse4a": False, "avx512_f": True}, True, False),
        ({"sve": True}, True, False),
    ],
    ids=["AMD, AVX-512", "without oneDNN", "AMD, AVX2", "Intel, AVX-512", "ARM"],
)
def test_only_a_processor_on_which_mkl_is_slow_is_served_otherwise(
    processor, there, taken, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: there)
    assert bool(products.options()) == taken


def compiled(function, *arguments):
    """Its result, and the C++ that was made of it."""
    from torch._inductor.utils import run_and_get_code

    graph = torch.compile(
        function,
        fullgraph=True,
        dynamic=False,
        options={"post_grad_custom_post_pass": products.large_products(), "cpp_wrapper": True},
    )
    result, (code,) = run_and_get_code(graph, *arguments)
    return result, code


LAYOUTS = {
    "plain": lambda left, right: (left.clone(), right.clone()),
    "right transposed": lambda left, right: (left.clone(), right.mT.contiguous().mT),
    "left transposed": lambda left, right: (left.mT.contiguous().mT, right.clone()),
    "both": lambda left, right: (left.mT.contiguous().mT, right.mT.contiguous().mT),
    "shared": lambda left, right: (left[..., :1, :, :].expand_as(left), right.clone()),
}


@needs_onednn
@pytest.mark.parametrize(
    "layouts", [["shared", "both"], pytest.param([*LAYOUTS][:3], marks=pytest.mark.slow)]
)
def test_a_large_product_is_the_product(layouts):
    """Sides of different lengths, so that none can stand for another; bias and ReLU after it."""
    draws, pairs = torch.Generator().manual_seed(0), []
    for layout in layouts:
        left = torch.randn(3, 129, 257, generator=draws)
        right = torch.randn(3, 257, 130, generator=draws)
        pairs.append(LAYOUTS[layout](left, right))
        assert (pairs[-1][0].stride(0) == 0) == (layout == "shared")

    def function(*pairs):
        return [(torch.relu(left @ right - 0.5), left[1] @ right[1]) for left, right in pairs]

    found, code = compiled(function, *pairs)
    assert code.count(CALL) == 4 * len(pairs)
    for (many, one), (left, right) in zip(found, pairs, strict=True):
        exact = left.double() @ right.double()
        scale = left.double().abs() @ right.double().abs()
        assert ((many - torch.relu(exact - 0.5)).abs() <= 1e-6 * scale).all()
        assert ((one - exact[1]).abs() <= 1e-6 * scale[1]).all()


@needs_onednn
def test_a_small_product_is_left_to_whoever_had_it():
    left, right = torch.ones(128, 255), torch.ones(255, 128)
    assert left.shape[0] * right.numel() < products.LARGE <= 128 * 256 * 128
    result, code = compiled(torch.mm, left, right)
    assert CALL not in code
    assert (result == 255).all()


@needs_onednn
def test_slopes_whose_products_all_go_that_way_are_the_same(monkeypatch):
    """Of an actor, whose products are of two matrices, and of critics, whose are of many."""
    monkeypatch.setattr(products, "LARGE", 0)
    taken = []

    def noted(graph):
        products.large_products()(graph)
        taken.append(sum(str(node.target).startswith("logpi.product") for node in graph.nodes))

    monkeypatch.setattr(compiling, "options", lambda: {"post_grad_custom_post_pass": noted})
    spec = Spec(3, 2, discrete=False)
    made, (obs, noise) = agent("sac", spec), torch.randn(2, 8, 3, generator=stream(0, "test"))
    weights = [*made.actor.parameters(), *made.critic.parameters()]

    def slopes(obs, noise):
        action, log_pi = made.policy(obs).rsample_with_log_prob(noise)
        loss = (log_pi - made.critic(obs, action).amin(0)).mean()
        return dict(enumerate(torch.autograd.grad(loss, weights)))

    found = compiling.Compiled(slopes)(obs, noise[:, :2])
    for name, expected in slopes(obs, noise[:, :2]).items():
        assert torch.allclose(found[name], expected, 1e-4, 1e-6)
    assert sum(taken) >= 16
