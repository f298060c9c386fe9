"""Large matrix products by oneDNN, where MKL leaves half of the processor's width unused.

MKL takes its code for AVX2 on every processor that is not Intel's. oneDNN, which comes with torch,
too, asks for the instructions alone: docs/performance_amd.md has what that saves.
"""

from functools import cache
from typing import Any

import torch

LARGE = 2**22  # multiply-adds of a product, from which on the dearer call is repaid


def options() -> dict[str, Any]:
    """What Inductor is to be told here: a rule on the processor, never a timing."""
    can = torch.cpu.get_capabilities()
    amd = can.get("sse4a", False)  # which Intel never built
    if amd and can.get("avx512_f", False) and torch.backends.mkldnn.is_available():
        return {"post_grad_custom_post_pass": large_products()}
    return {}


@cache
def large_products() -> Any:
    """A pass over a graph, after which its large `mm` and `bmm` are products of oneDNN."""
    from torch._inductor import ir, mkldnn_ir
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
    from torch._inductor.lowering import permute, register_lowering

    torch.library.define("logpi::product", "(Tensor left, Tensor right) -> Tensor")
    product = torch.ops.logpi.product.default
    aten = torch.ops.aten

    @torch.library.register_fake("logpi::product")  # type: ignore
    def shape(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
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

    def large(node: Any) -> bool:
        left = node.args[0].meta["val"]
        rows, columns = node.meta["val"].shape[-2:]
        return left.dtype == torch.float32 and rows * columns * left.shape[-1] >= LARGE

    class LargeProducts(CustomGraphPass):
        def __call__(self, graph: Any) -> None:
            for node in list(graph.nodes):
                if node.target is aten.mm.default and large(node):
                    node.target = product
                elif node.target is aten.bmm.default and large(node):
                    with graph.inserting_before(node):
                        node.replace_all_uses_with(one_by_one(graph, node))
                    graph.erase_node(node)

        def uuid(self) -> Any:
            return get_hash_for_files((__file__,)), LARGE

    def one_by_one(graph: Any, node: Any) -> Any:
        """The products of a `bmm`, (B, I, J) by (B, J, K), put together again."""

        def call(target: Any, *arguments: Any) -> Any:
            made = graph.call_function(target, arguments)
            values = torch.fx.node.map_arg(arguments, lambda given: given.meta["val"])
            made.meta["val"] = target(*values)
            return made

        sides = [
            [call(aten.select.int, side, 0, index) for side in node.args]
            for index in range(node.meta["val"].shape[0])
        ]
        parts = [call(aten.unsqueeze.default, call(product, *pair), 0) for pair in sides]
        return call(aten.cat.default, parts)

    return LargeProducts()
