"""Large matrix products by oneDNN, where MKL leaves half of the processor's width unused.

MKL takes its code for AVX2 on every processor that is not Intel's. oneDNN, which comes with torch,
too, asks for the instructions alone: docs/performance_amd.md has what that saves.
"""

from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

LARGE = 2**22  # multiply-adds of a product, from which on the dearer call is repaid


def options() -> dict[str, Any]:
    """Settings of Inductor for this processor: a rule, never a timing."""
    can = torch.cpu.get_capabilities()
    amd = can.get("sse4a", False)  # which Intel never built
    if amd and can.get("avx512_f", False) and torch.backends.mkldnn.is_available():
        return {"post_grad_custom_post_pass": large_products()}
    return {}


@cache
def large_products() -> Any:
    """A pass over a graph, after which its large `mm` and `bmm` are products of oneDNN."""
    from torch._inductor import ir, mkldnn_ir
    from torch._inductor import pattern_matcher as patterns
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
    from torch._inductor.lowering import permute, register_lowering

    torch.library.define("logpi::product", "(Tensor left, Tensor right) -> Tensor")
    product, aten = torch.ops.logpi.product.default, torch.ops.aten

    @torch.library.register_fake("logpi::product")  # type: ignore
    def shape(left: Tensor, right: Tensor) -> Tensor:
        return left.new_empty(left.shape[0], right.shape[1])

    @register_lowering(product, type_promotion_kind=None)
    def lower(left: Any, right: Any) -> Any:
        # Inductor's own lowering wants weights that never change. The right side may be transposed.
        left = ir.ExternKernel.require_contiguous(ir.ExternKernel.realize_input(left))
        right = ir.ExternKernel.realize_input(permute(right, [1, 0]))
        size = [left.get_size()[0], right.get_size()[0]]
        layout = ir.FixedLayout(left.get_device(), left.get_dtype(), size)
        no_bias_nor_function = (None, "none", [-1], "")
        return ir.TensorBox.create(
            mkldnn_ir.LinearUnary(layout, [left, right], no_bias_nor_function)
        )

    def one_by_one(left: Tensor, right: Tensor) -> Tensor:
        return torch.stack([product(*pair) for pair in zip(left, right, strict=True)])

    def large(match: Any) -> bool:
        node = match.output_node()
        left, size = node.args[0].meta["val"], node.meta["val"].shape[-2:].numel()
        return left.dtype == torch.float32 and size * left.shape[-1] >= LARGE

    def replace(function: Any, match: Any, *sides: Any) -> None:
        match.replace_by_example(function, sides)

    replacements = patterns.PatternMatcherPass()
    for old, new in ((aten.mm.default, product), (aten.bmm.default, one_by_one)):
        pattern = patterns.CallFunction(old, patterns.Arg(), patterns.Arg())
        register = patterns.register_graph_pattern(pattern, large, pass_dict=replacements)
        register(partial(replace, new))

    class LargeProducts(CustomGraphPass):
        def __call__(self, graph: Any) -> None:
            replacements.apply(graph)

        def uuid(self) -> Any:
            return get_hash_for_files((__file__,)), LARGE

    return LargeProducts()
