"""An update, or an action, as compiled code."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from common.metrics import Function
from runtime.accelerate.captured import constants, tensors
from runtime.accelerate.products import options

OPTIONS = {"cpp_wrapper": True}  # not "memory_planning": it gives away memory that is still read


class Compiled:
    """`function` as compiled code for each combination of its constants.

    Of an update, gradients and optimiser are a part of it. What is compiled stays on disk. After
    the first call the code is called directly, so weights must stay the same tensors, changed in
    place, and arguments must keep their shapes. What stands between the two in torch looks up every
    weight: even with its checks left out (`guard_filter_fn`) an update of SAC took 18 % more time
    with 2x64 units, 5 % with 2x256, and an action 2.5 times as much.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self.codes: dict[tuple[Any, ...], Callable[[list[Tensor]], Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        kind, given = constants(arguments), tensors(arguments)
        if kind in self.codes:
            return self.codes[kind](given)
        result, self.codes[kind] = trace(self.function, arguments, given)
        return result


def trace(
    function: Function, arguments: tuple[Any, ...], given: list[Tensor]
) -> tuple[Any, Callable[[list[Tensor]], Any]]:
    """(the function's result, its compiled code as a function of such tensors as are `given`)."""
    from torch._dynamo import config
    from torch._inductor.output_code import CompiledFxGraph

    if not hasattr(config, "trace_autograd_ops"):
        raise RuntimeError(f"it needs torch 2.13, this is {torch.__version__}")
    config.trace_autograd_ops = True
    compiler: Any = torch.compile  # whose type does not have all of these
    compiled = compiler(
        function,
        fullgraph=True,
        dynamic=False,
        isolate_recompiles=True,  # another agent of this process has other weights
        options=OPTIONS | options(),
    )
    call, noted = CompiledFxGraph.__call__, []

    def note(graph: Any, inputs: list[Any]) -> Any:
        taken = inputs.copy()  # the code empties the list
        outputs = call(graph, inputs)
        noted.append((graph.current_callable, taken, list(outputs)))
        return outputs

    CompiledFxGraph.__call__ = note  # type: ignore
    try:
        result = compiled(*arguments)
    finally:
        CompiledFxGraph.__call__ = call  # type: ignore
    ((code, inputs, made),) = noted
    names = list(result) if isinstance(result, dict) else None
    where = {id(value): index for index, value in enumerate(made)}
    results = [where[id(value)] for value in (result.values() if names else result)]
    read = [(i, n) for n, value in enumerate(given) for i, one in enumerate(inputs) if one is value]
    for index, _ in read:
        inputs[index] = None  # nothing is kept alive

    def again(given: list[Tensor]) -> Any:
        filled = inputs.copy()
        for index, number in read:
            filled[index] = given[number]
        outputs = code(filled)
        values = [outputs[index] for index in results]
        return dict(zip(names, values, strict=True)) if names else tuple(values)

    return result, again
