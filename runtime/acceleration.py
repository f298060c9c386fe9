"""One graph from batch to new weights: compiled for the CPU, captured on a GPU."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from data import Transition
from runtime.errors import ConfigError

if TYPE_CHECKING:
    from agents.base import BaseAgent

Step = Callable[..., dict[str, Tensor]]  # (batch, tensors and constants ...) -> metrics
EAGER_CALLS = 3  # before a capture: libraries set themselves up at their first calls


def accelerate(agent: "BaseAgent", mode: str, batch: Transition) -> None:
    """Puts `agent.step` into one graph, and makes that graph now.

    A few updates on `batch` are made and undone, so that whatever cannot be compiled is known
    before the run begins, and no time of the run goes into compiling.

    Args:
        agent: fresh or restored; left as it was.
        mode: "none", "compile" or "cudagraph".
        batch: any batch with the shapes of the run's.

    Raises:
        ConfigError: it cannot be compiled here; use accelerate=none.
    """
    if mode == "none":
        return
    if mode == "compile":
        graphs = "two graphs" if agent.cycle > 1 else "one graph"
        print(f"compiling the update, {graphs}: half a minute each the first time, then seconds",
              flush=True)  # fmt: skip
    agent.step = Compiled(agent.step) if mode == "compile" else CudaGraph(agent.step)
    before = copy.deepcopy(agent.state_dict())
    try:
        for _ in range(agent.cycle * (1 if mode == "compile" else EAGER_CALLS + 1)):
            agent.update(batch)
    except ConfigError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"accelerate: {mode} failed, {lines[0]}; use accelerate=none, debug=true shows where"
        ) from error
    agent.load_state_dict(before)


class Compiled:
    """`step` as one compiled graph for each combination of its constants.

    Gradients and optimiser are a part of the graph, and what is compiled stays on disk. Its tensors
    must stay the same objects, changed in place, and a batch must keep its shapes: the compiler's
    own guards against changes, a tenth of the time of a small update, are left out.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self.graphs: dict[tuple[Any, ...], Step] = {}

    def __call__(self, batch: Transition, *arguments: Any) -> dict[str, Tensor]:
        key = constants(arguments)
        if key not in self.graphs:
            self.graphs[key] = one_graph(self.step)
        return self.graphs[key](batch, *arguments)


def one_graph(step: Step) -> Step:
    """Compiles `step` at its first call; raises ConfigError where torch is too old."""
    from torch._dynamo import config
    from torch._inductor.compile_fx import compile_fx

    if not hasattr(config, "trace_autograd_ops"):
        raise ConfigError(f"accelerate: compile needs torch 2.13, this is {torch.__version__}; "
                          "update torch or use none")  # fmt: skip
    config.trace_autograd_ops = True

    def backend(graph: Any, inputs: Any) -> Any:  # a new one each time, so that no two share code
        return compile_fx(graph, inputs, config_patches={"cpp_wrapper": True})

    return torch.compile(
        step,
        fullgraph=True,
        dynamic=False,
        backend=backend,
        options={"guard_filter_fn": torch.compiler.skip_all_guards_unsafe},
    )


def constants(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Those arguments that are no tensors: each combination has a graph of its own."""
    return tuple(argument for argument in arguments if not isinstance(argument, Tensor))


class CudaGraph:
    """Replays `step` as one CUDA graph for each combination of its constants.

    Tensor arguments are copied into the places that the graph reads; what it returns is copied out
    of the places that its next replay overwrites. Nothing waits for the GPU.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self.calls: dict[tuple[Any, ...], int] = {}
        self.graphs: dict[tuple[Any, ...], tuple[Any, list[Tensor], dict[str, Tensor]]] = {}
        self.stream = torch.cuda.Stream()

    def __call__(self, batch: Transition, *arguments: Any) -> dict[str, Tensor]:
        given = [*(row for row in batch if row is not None)]
        given += [argument for argument in arguments if isinstance(argument, Tensor)]
        key = constants(arguments)
        self.calls[key] = self.calls.get(key, 0) + 1
        if self.calls[key] <= EAGER_CALLS:
            return self.aside(batch, arguments)
        if key not in self.graphs:
            self.graphs[key] = self.capture(batch, arguments)
        graph, places, metrics = self.graphs[key]
        for place, value in zip(places, given, strict=True):
            place.copy_(value)
        graph.replay()
        return {name: value.clone() for name, value in metrics.items()}

    def capture(
        self, batch: Transition, arguments: tuple[Any, ...]
    ) -> tuple[Any, list[Tensor], dict[str, Tensor]]:
        """Records the update without running it: (graph, where it reads, where it writes)."""
        held = Transition(*(None if row is None else row.clone() for row in batch))  # type: ignore[arg-type]
        own = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            metrics = self.step(held, *own)
        places = [row for row in held if row is not None]
        return graph, places + [a for a in own if isinstance(a, Tensor)], metrics

    def aside(self, batch: Transition, arguments: tuple[Any, ...]) -> dict[str, Tensor]:
        """The update itself, on a stream of its own, as the calls before a capture need it."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            metrics = self.step(batch, *arguments)
        torch.cuda.current_stream().wait_stream(self.stream)
        return metrics
