"""The gradient step: Adam as published, clipped, all or nothing."""

import pytest
import torch
from torch import nn

from agents.optimizer import Optimizer


def parameter(*values):
    return nn.Parameter(torch.tensor(values))


def test_first_steps_of_adam_by_hand():
    """Gradient g each time: m_hat = g, v_hat = g^2, so every step is lr * g / (|g| + eps)."""
    weight = parameter(1.0, 1.0)
    optimizer = Optimizer({"w": [weight]}, 0.1)
    for _ in range(3):
        optimizer.minimise(lambda: ({"w": (weight * torch.tensor([3.0, -0.01])).sum()}, {}))
    assert weight.tolist() == pytest.approx([0.7, 1.3], abs=1e-5)


@pytest.mark.parametrize(("traced", "relative"), [(False, 1e-5), (True, 1e-4)])
def test_equals_torch_adam_with_clipping(traced, relative, monkeypatch):
    """So does the form that is compiled; in its float32, 1 - 0.999 is off by 5e-5."""
    generator = torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.randn(4, 3, generator=generator)), parameter(0.3)]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    optimizer = Optimizer({"w": ours}, 0.05, max_grad_norm=0.5, eps=1e-5)
    oracle = torch.optim.Adam(theirs, lr=0.05, eps=1e-5)
    inputs = torch.randn(8, 4, generator=generator)
    for _ in range(20):
        with monkeypatch.context() as patch:  # for ours alone: torch's reads it, too
            patch.setattr(torch.compiler, "is_compiling", lambda: traced)
            metrics = optimizer.minimise(
                lambda: ({"w": (inputs @ ours[0]).square().sum() * ours[1].sum()}, {})
            )
        oracle.zero_grad()
        ((inputs @ theirs[0]).square().sum() * theirs[1].sum()).backward()
        norm = nn.utils.clip_grad_norm_(theirs, 0.5)
        oracle.step()
        assert metrics["grad_norm/w"].item() == pytest.approx(norm.item(), rel=relative)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=relative, atol=0.1 * relative)


def test_each_group_descends_its_own_loss_only():
    a, b = parameter(1.0), parameter(1.0)
    optimizer = Optimizer({"a": [a], "b": [b]}, 0.1)
    optimizer.minimise(lambda: ({"a": (a * b).sum(), "b": (-b).sum()}, {}))
    assert a.item() == pytest.approx(0.9)
    assert b.item() == pytest.approx(1.1)  # the first loss would have sent it down


def test_groups_without_a_loss_stay_and_count_no_step():
    a, b = parameter(1.0), parameter(1.0)
    optimizer = Optimizer({"a": [a], "b": [b]}, 0.1)
    optimizer.minimise(lambda: ({"a": a.sum()}, {}))
    assert b.item() == 1.0
    assert optimizer.counts["b"][0].item() == 0.0


@pytest.mark.parametrize("traced", [False, True])
def test_a_step_can_be_held_back_by_what_the_losses_find(traced, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: traced)
    weight, flag = parameter(1.0), torch.zeros((), dtype=torch.bool)
    optimizer = Optimizer({"w": [weight]}, 0.1)

    def losses(found):
        flag.fill_(found)
        return {"w": (3 * weight).sum()}, {}

    optimizer.minimise(lambda: losses(True), unless=flag)
    assert weight.item() == 1.0
    assert optimizer.counts["w"][0].item() == optimizer.moments["w"][0][0].item() == 0.0
    optimizer.minimise(lambda: losses(False), unless=flag)
    assert weight.item() == pytest.approx(0.9)
    assert not optimizer.diverged


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["a", "b"])
def test_one_non_finite_loss_commits_nothing_then_and_ever_after(bad, where):
    a, b = parameter(1.0), parameter(1.0)
    optimizer = Optimizer({"a": [a], "b": [b]}, 0.1)

    def losses(scale):
        scales = {"a": 1.0, "b": 1.0, where: scale}
        return {"a": (a * scales["a"]).sum(), "b": (b * scales["b"]).sum()}, {}

    optimizer.minimise(lambda: losses(1.0))
    before = [a.item(), b.item(), optimizer.moments["a"][0][0].item()]
    assert not optimizer.diverged
    optimizer.minimise(lambda: losses(bad))
    assert optimizer.diverged
    optimizer.minimise(lambda: losses(1.0))
    assert before == [a.item(), b.item(), optimizer.moments["a"][0][0].item()]


def test_linear_schedule_ends_at_zero():
    weight = parameter(0.0)
    optimizer = Optimizer({"w": [weight]}, 0.1, horizon=4)
    rates = []
    for _ in range(6):
        optimizer.begin_update()
        rates.append(optimizer.minimise(lambda: ({"w": weight.sum()}, {}))["train/lr"])
    assert [r.item() for r in rates] == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.0, 0.0])


def test_state_continues_to_the_bit():
    def make():
        weight = parameter(0.5, -0.5)
        return weight, Optimizer({"w": [weight]}, 0.1, horizon=10)

    def step(weight, optimizer):
        optimizer.begin_update()
        optimizer.minimise(lambda: ({"w": weight.square().sum()}, {}))

    weight, optimizer = make()
    for _ in range(3):
        step(weight, optimizer)
    other, copy = make()
    other.data.copy_(weight.data)
    copy.load_state_dict(optimizer.state_dict())
    for _ in range(3):
        step(weight, optimizer)
        step(other, copy)
    assert torch.equal(weight, other)
