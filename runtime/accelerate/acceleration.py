"""One graph from batch to new weights: compiled for the CPU, captured on a GPU."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from common.errors import ConfigError
from data import Batch
from data.metrics import Packed, packing
from runtime.accelerate.agreement import outcome, require_same
from runtime.accelerate.captured import (
    EAGER_CALLS,
    CudaGraph,
    Function,
    constants,
    replays,
    tensors,
)
from runtime.accelerate.products import options

if TYPE_CHECKING:
    from agents.base import BaseAgent

OPTIONS = {"cpp_wrapper": True}  # not "memory_planning": it gives away memory that is still read


def accelerate(agent: "BaseAgent", mode: str, batch: Batch, obs: Tensor) -> None:
    """Puts `agent.step` and `agent.draw` into one graph each, and makes them now.

    A few updates on `batch` are made and undone, so that whatever cannot be compiled is known
    before the run begins, and no time of the run goes into compiling. Each graph has to do with it
    what the plain code does.

    Args:
        agent: fresh or restored; left as it was.
        mode: "compile" or "cudagraph".
        batch: any batch with the shapes of the run's; of numbers that differ, or little is shown.
        obs: any observations (N, O) of the run's number of environments.

    Raises:
        ConfigError: it cannot be compiled here, or does something else; use accelerate=none.
    """
    before = copy.deepcopy(agent.state_dict())
    steps = kinds_of_steps(agent, batch)
    agent.load_state_dict(before)
    expected = [outcome(agent, arguments, obs) for arguments in steps]
    compiled = mode == "compile"
    if compiled:
        graphs = "two graphs" if len(steps) > 1 else "one graph"
        print(
            f"compiling the update, {graphs}: half a minute each the first time, then seconds",
            flush=True,
        )
    step, draw = packing(agent.step), agent.draw
    agent.step = Packed(Compiled(step) if compiled else CudaGraph(step))  # type: ignore
    agent.draw = For(obs.shape, Graph(draw) if compiled else CudaGraph(draw), draw)  # type: ignore
    try:
        for arguments, one in zip(steps, expected, strict=True):
            for _ in range(0 if compiled else EAGER_CALLS):
                agent.step(*arguments)
                agent.act(obs)
            agent.load_state_dict(before)
            require_same(mode, outcome(agent, arguments, obs), one)
    except ConfigError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"accelerate: {mode} failed, {lines[0]}; use accelerate=none, debug=true shows where"
        ) from error
    agent.load_state_dict(before)


def kinds_of_steps(agent: "BaseAgent", batch: Batch) -> list[tuple[Any, ...]]:
    """Arguments of `agent.step`, one for each combination of constants; makes updates for them.

    Off-policy there are two where the actor learns in some of the updates: the first two show both.
    """
    plain, kinds = agent.step, {}

    def step(*arguments: Any) -> dict[str, Tensor]:
        kinds[constants(arguments)] = arguments
        return plain(*arguments)

    agent.step = step
    try:
        for _ in range(1 if agent.on_policy else 2):
            agent.update(batch)
    finally:
        agent.step = plain
    return list(kinds.values())


class For:
    """`fast` for observations of this shape, `other` for all else: evaluation has its own."""

    def __init__(self, shape: torch.Size, fast: Function, other: Function) -> None:
        self.shape, self.fast, self.other = shape, fast, other

    def __call__(self, obs: Tensor, *arguments: Any) -> Any:
        return (self.fast if obs.shape == self.shape else self.other)(obs, *arguments)


class Compiled:
    """`function` as one compiled graph for each combination of its constants.

    Of an update, gradients and optimiser are a part of the graph. What is compiled stays on disk.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self.graphs: dict[tuple[Any, ...], Graph] = {}

    def __call__(self, *arguments: Any) -> Any:
        key = (*constants(arguments), *(rows.obs.shape for rows in replays(arguments)))
        if key not in self.graphs:
            self.graphs[key] = Graph(self.function)
        return self.graphs[key](*arguments)


class Graph:
    """`function`, compiled at its first call; after that the compiled code itself is called.

    What stands between the two in torch looks up every weight and checks that nothing changed: a
    sixth of the time of a small update, most of that of an action. So weights must stay the same
    tensors, changed in place, and arguments must keep their shapes.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self.code: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        given = tensors(arguments)
        if self.code is None:
            return self.trace(arguments, given)
        inputs = self.inputs.copy()
        for place, value in zip(self.places, given, strict=True):
            if isinstance(place, int):
                inputs[place] = value
        outputs = self.code(inputs)
        values = [outputs[i] if isinstance(i, int) else i for i in self.results]
        return dict(zip(self.names, values, strict=True)) if self.names else tuple(values)

    def trace(self, arguments: tuple[Any, ...], given: list[Tensor]) -> Any:
        """The first call: compiles, runs, and notes where arguments go in and results come out."""
        from torch._dynamo import config
        from torch._dynamo.eval_frame import remove_from_cache
        from torch._inductor.compile_fx import compile_fx

        if not hasattr(config, "trace_autograd_ops"):
            raise ConfigError(
                f"accelerate: compile needs torch 2.13, this is {torch.__version__}; "
                "update torch or use accelerate=none"
            )
        config.trace_autograd_ops = True
        outputs: list[Any] = []

        def backend(graph: Any, inputs: Any) -> Any:
            code: Any = compile_fx(graph, inputs, config_patches=OPTIONS | options())

            def first(*real: Any) -> Any:
                result, (self.code, self.inputs, made) = watched(code, real)
                outputs.extend(made)
                return result

            return first

        result = torch.compile(self.function, fullgraph=True, dynamic=False, backend=backend)(
            *arguments
        )
        remove_from_cache(self.function)  # the tracer's, whose number of entries is limited
        self.names = list(result) if isinstance(result, dict) else None
        values = list(result.values()) if isinstance(result, dict) else list(result)
        self.results = [index_of(value, outputs, self.inputs) for value in values]
        self.places = [index_of(value, self.inputs, given) for value in given]
        for place in self.places:
            if isinstance(place, int):
                self.inputs[place] = None  # nothing is kept alive
        return result


def watched(code: Function, real: tuple[Any, ...]) -> tuple[Any, tuple[Any, list[Any], list[Any]]]:
    """Calls `code`, which torch compiled.

    Returns:
        Its result; and of the function in C++ inside it: the function, the list that it was given
        (and emptied), and what it returned.
    """
    from torch._inductor.output_code import CompiledFxGraph

    call, noted = CompiledFxGraph.__call__, []

    def note(graph: Any, given: list[Any]) -> Any:
        inputs = given.copy()
        outputs = call(graph, given)
        noted.append((graph.current_callable, inputs, list(outputs)))
        return outputs

    CompiledFxGraph.__call__ = note  # type: ignore
    try:
        result = code(*real)
    finally:
        CompiledFxGraph.__call__ = call  # type: ignore
    (inside,) = noted
    return result, inside


def index_of(value: Any, values: list[Any], others: list[Any]) -> Any:
    """Where this very object is among the values; itself, if it is only among the others."""
    for index, one in enumerate(values):
        if one is value:
            return index
    if not any(other is value for other in others):
        raise RuntimeError("a result is neither of the graph nor a weight")
    return value
