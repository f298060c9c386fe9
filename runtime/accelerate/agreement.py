"""What was compiled or captured does what the plain code does, or the run does not begin.

A compiler is a large program, and a wrong update can learn half as well without a sign of it.
"""

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from common.errors import ConfigError

if TYPE_CHECKING:
    from agents.base import BaseAgent

COMPARED = ("loss/", "grad_norm/")
# Of the length of what is compared. Rounding is some 1e-6; only in the moves of the weights is it
# more, for Adam's first move is a sign, which rounding turns where a slope is as good as zero.
SLOPES, MOVES = 1e-2, 1e-1
SMALL = 1e-4  # of the whole group's length, or of a loss of 1: what cancels out is rounding alone
Outcome = dict[str, tuple[Tensor, float, Tensor]]  # (value, relative, absolute tolerance)


def outcome(agent: "BaseAgent", arguments: tuple[Any, ...], obs: Tensor) -> Outcome:
    """What the agent does at `obs` (N, O), and what one step tells and moves; then it is undone."""
    before = copy.deepcopy(agent.state_dict())
    beginnings = iter([tensor.clone() for _, tensors in groups(agent) for tensor in tensors])
    action, _ = agent.act(obs)
    metrics = agent.step(*arguments)
    values = {name: metrics[name] for name in metrics if name.startswith(COMPARED)}
    told: Outcome = {
        name: (value.float(), SLOPES, torch.tensor(SMALL))
        for name, value in [("the action", action), *values.items()]
    }
    for name, tensors in groups(agent):
        moves = [tensor - next(beginnings) for tensor in tensors]
        relative = SLOPES if name.endswith("slopes") else MOVES
        absolute = SMALL * torch.stack([move.norm() for move in moves]).norm()
        told |= {f"{name} ({i})": (move, relative, absolute) for i, move in enumerate(moves)}
    agent.load_state_dict(before)
    return told


def groups(agent: "BaseAgent") -> Iterable[tuple[str, list[Tensor]]]:
    """What a step changes: the weights of every module, and of every group the mean slopes."""
    for name, module in agent.modules.items():
        weights = [
            weight.detach() for weight in module.state_dict().values() if weight.is_floating_point()
        ]  # a mask is no weight
        if weights:
            yield f"{name}'s weights", weights
    for name, (means, _) in agent.optimizer.moments.items():
        yield f"{name}'s slopes", means


def require_same(mode: str, told: Outcome, expected: Outcome) -> None:
    """Raises ConfigError, which names the first number that differs from that of the plain code."""
    for name, (plain, relative, absolute) in expected.items():
        value = told[name][0]
        if not torch.isfinite(plain).all():
            continue  # the run itself will tell
        if not (value - plain).norm() <= relative * plain.norm() + absolute.to(plain.device):
            sizes = f"{float(value.norm()):.6g} in place of {float(plain.norm()):.6g}"
            raise ConfigError(
                f"accelerate: {mode} makes another update than the plain code, {name} is {sizes}; "
                "use accelerate=none"
            )
