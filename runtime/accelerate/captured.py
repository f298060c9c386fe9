"""An update, or an action, as one CUDA graph."""

import copy
import gc
from typing import Any

import torch
from torch import Tensor

from common.metrics import Function
from data import Rows, Transition

EAGER_CALLS = 3  # before a capture: libraries set themselves up at their first calls


class CudaGraph:
    """Replays `function` as one CUDA graph for each combination of its constants.

    Tensor arguments are copied into the places that the graph reads, but for a replay's arrays, of
    which it reads where they lie; what it returns is copied out of the places that its next replay
    overwrites. Nothing waits for the GPU.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self.calls: dict[tuple[Any, ...], int] = {}
        self.graphs: dict[tuple[Any, ...], tuple[Any, list[Tensor], Any]] = {}
        self.stream = torch.cuda.Stream()

    def __call__(self, *arguments: Any) -> Any:
        kind = constants(arguments)
        self.calls[kind] = self.calls.get(kind, 0) + 1
        if self.calls[kind] <= EAGER_CALLS:
            return self.aside(arguments)
        replays = [argument.obs for argument in arguments if isinstance(argument, Rows)]
        key = (*kind, *((array.data_ptr(), array.shape) for array in replays))
        if key not in self.graphs:
            self.graphs[key] = self.capture(arguments)
        graph, read, results = self.graphs[key]
        for place, value in zip(read, moving(arguments), strict=True):
            place.copy_(value)
        graph.replay()
        if isinstance(results, dict):
            return {name: value.clone() for name, value in results.items()}
        return tuple(value.clone() for value in results)

    def capture(self, arguments: tuple[Any, ...]) -> tuple[Any, list[Tensor], Any]:
        """Records the function without running it: (graph, where it reads, where it writes)."""
        own = tuple(
            a._replace(row=a.row.clone()) if isinstance(a, Rows) else copy.deepcopy(a)
            for a in arguments
        )
        graph = torch.cuda.CUDAGraph()
        gc.collect()  # an older graph that is freed meanwhile would spoil this one
        with torch.cuda.graph(graph):
            results = self.function(*own)
        return graph, moving(own), results

    def aside(self, arguments: tuple[Any, ...]) -> Any:
        """The function itself, on a stream of its own, as the calls before a capture need it."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            results = self.function(*arguments)
        torch.cuda.current_stream().wait_stream(self.stream)
        return results


def constants(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments without tensors; each combination of them has its own graph."""
    return tuple(a for a in arguments if not isinstance(a, (Tensor, Transition, Rows)))


def tensors(arguments: tuple[Any, ...]) -> list[Tensor]:
    """All tensors among the arguments, in their transitions and in a replay."""
    flat: list[Any] = []
    for argument in arguments:
        flat += argument if isinstance(argument, (Transition, Rows)) else [argument]
    return [value for value in flat if isinstance(value, Tensor)]


def moving(arguments: tuple[Any, ...]) -> list[Tensor]:
    """The tensors that differ from call to call."""
    return tensors(tuple(a.row if isinstance(a, Rows) else a for a in arguments))
