"""One graph from batch to new weights: compiled for the CPU, captured on a GPU.

A compiler is a large program, and a wrong update can learn half as well without a sign of it. So a
graph does what the plain code does, or the run does not begin.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from agents.base import BaseAgent
from common.errors import ConfigError
from common.metrics import Packed, packing
from data import Batch
from runtime.accelerate.captured import EAGER_CALLS, CudaGraph, constants
from runtime.accelerate.compiled import Compiled
from runtime.divergence import Recorded

COMPARED = ("loss/", "grad_norm/")
# Of the length of what is compared. Rounding is some 1e-6; only in the moves of the weights is it
# more, for Adam's first move is a sign, which rounding turns where a slope is as good as zero.
SLOPES, MOVES = 1e-2, 1e-1
SMALL = 1e-4  # of the whole group's length, or of a loss of 1: what cancels out is rounding alone
Outcome = dict[str, tuple[Tensor, float, Tensor | float]]  # (value, relative, absolute tolerance)


def accelerate(agent: BaseAgent, mode: str, batch: Batch, obs: Tensor) -> None:
    """Puts `agent.step` and `agent.draw` into one graph each, before the run begins.

    A few updates on `batch` are made, compared with those of the plain code, and undone.

    Args:
        agent: fresh or restored; its state is left as it was.
        mode: "compile" or "cudagraph".
        batch: any batch with the shapes of the run's; of numbers that differ, or little is shown.
        obs: any observations (N, O) of the run's number of environments; others are drawn plainly.

    Raises:
        ConfigError: there can be no graph here, or it does something else; use accelerate=none.
    """
    before = copy.deepcopy(agent.state_dict())
    steps = kinds_of_steps(agent, batch)
    expected = [outcome(agent, before, arguments, obs) for arguments in steps]
    graph: Any = CudaGraph
    if mode == "compile":
        graph = Compiled
        print("compiling the update: up to a minute the first time, then seconds", flush=True)
    draw, fast = agent.draw, graph(agent.draw)
    agent.step = Packed(graph(packing(agent.step)))  # type: ignore
    agent.draw = lambda seen, noise: (fast if seen.shape == obs.shape else draw)(seen, noise)  # type: ignore
    found = []
    try:
        for arguments in steps:
            for _ in range(EAGER_CALLS):
                agent.step(*arguments)
                agent.act(obs)
            found.append(outcome(agent, before, arguments, obs))
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"accelerate: {mode} failed, {lines[0]}; use accelerate=none, debug=true shows where"
        ) from error
    for ours, plain in zip(found, expected, strict=True):
        require_same(mode, ours, plain)
    agent.load_state_dict(before)


def kinds_of_steps(agent: BaseAgent, batch: Batch) -> list[tuple[Any, ...]]:
    """Arguments of `agent.step`, one for each combination of constants; makes updates for them.

    Off-policy there are two where the actor learns in some of the updates: the first two show both.
    """
    plain, kinds = agent.step, {}
    for _ in range(1 if agent.settings.on_policy else 2):
        agent.step = recorded = Recorded(plain)
        agent.update(batch)
        kinds[constants(recorded.arguments)] = recorded.arguments
    agent.step = plain
    return list(kinds.values())


def outcome(
    agent: BaseAgent, before: dict[str, Any], arguments: tuple[Any, ...], obs: Tensor
) -> Outcome:
    """The action at `obs` (N, O), and metrics and moves of one step, from the state `before`."""
    agent.load_state_dict(before)
    beginnings = copy.deepcopy(groups(agent))
    action, _ = agent.act(obs)
    metrics = agent.step(*arguments)
    values = {name: metrics[name] for name in metrics if name.startswith(COMPARED)}
    found: Outcome = {
        name: (value.float(), SLOPES, SMALL)
        for name, value in {"the action": action, **values}.items()
    }
    for name, tensors in groups(agent).items():
        moves = [now - then for now, then in zip(tensors, beginnings[name], strict=True)]
        relative = SLOPES if name.endswith("slopes") else MOVES
        absolute = SMALL * torch.stack([move.norm() for move in moves]).norm()
        found |= {f"{name} ({i})": (move, relative, absolute) for i, move in enumerate(moves)}
    return found


def groups(agent: BaseAgent) -> dict[str, list[Tensor]]:
    """What a step changes: the weights of every module, and of every group the mean slopes."""
    found = {}
    for name, module in agent.modules.items():
        state = [value.detach() for value in module.state_dict().values()]
        found[f"{name}'s weights"] = [value for value in state if value.is_floating_point()]
    for name, (means, _) in agent.optimizer.moments.items():
        found[f"{name}'s slopes"] = means
    return {name: tensors for name, tensors in found.items() if tensors}


def require_same(mode: str, found: Outcome, expected: Outcome) -> None:
    """Raises ConfigError, which names the first number that differs from that of the plain code."""
    for name, (plain, relative, absolute) in expected.items():
        value = found[name][0]
        if not torch.isfinite(plain).all():
            continue  # the run itself will tell
        if not (value - plain).norm() <= relative * plain.norm() + absolute:
            sizes = f"{float(value.norm()):.6g} in place of {float(plain.norm()):.6g}"
            raise ConfigError(
                f"accelerate: {mode} makes another update than the plain code, {name} is {sizes}; "
                "use accelerate=none"
            )
