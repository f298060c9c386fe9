"""The matrix products of one SAC update, counted and run with nothing around them."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.benchmark.contestants import Spec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Product:
    """`count` products (members, rows, inner) x (members, inner, columns).

    `transposed` names the factor, left or right, that lies in memory the other way round.
    """

    members: int
    rows: int
    inner: int
    columns: int
    count: int = 1
    transposed: str = ""

    @property
    def flops(self) -> int:
        return 2 * self.members * self.rows * self.inner * self.columns * self.count


def network(
    batch: int, widths: list[int], members: int, *, forward: int, weights: int, inputs: int
) -> list[Product]:
    """The products of a network that is run `forward` times.

    Args:
        batch: rows of the input.
        widths: of the input, every hidden layer, and the output.
        members: networks evaluated together.
        forward: times that the network is evaluated.
        weights: times that the gradient of its weights is taken.
        inputs: of these and further times, how often the gradient of its own input is needed; the
            inputs of its later layers need theirs in both cases.
    """
    products = []
    for layer, (width_in, width_out) in enumerate(pairwise(widths)):
        back = inputs if layer == 0 else max(weights, inputs)
        products += [
            Product(members, batch, width_in, width_out, forward),
            Product(members, width_in, batch, width_out, weights, "left"),
            Product(members, batch, width_out, width_in, back, "right"),
        ]
    return [product for product in products if product.count]


def sac_update(
    batch: int, hidden: list[int], obs_dim: int, action_dim: int, critics: int
) -> list[Product]:
    """All matrix products of one SAC update: critic, target, and actor through the critic."""
    q_widths = [obs_dim + action_dim, *hidden, 1]
    pi_widths = [obs_dim, *hidden, 2 * action_dim]  # mean and log_std
    return [
        *network(batch, q_widths, critics, forward=1, weights=1, inputs=0),  # regression
        *network(batch, q_widths, critics, forward=1, weights=0, inputs=0),  # target
        *network(batch, q_widths, critics, forward=1, weights=0, inputs=1),  # for the actor
        *network(batch, pi_widths, 1, forward=1, weights=0, inputs=0),  # next action
        *network(batch, pi_widths, 1, forward=1, weights=1, inputs=0),  # action
    ]


def flops(products: list[Product]) -> int:
    return sum(product.flops for product in products)


class Floor:
    """A contestant that runs the products; a step is the products of one update.

    With `square` it runs one product of that size over and over, the machine's own rate, and a step
    is as much arithmetic as one update; by the library that our large products go through.
    """

    def __init__(self, spec: Spec, folder: Path) -> None:
        import torch

        from runtime.accelerate.products import options

        torch.set_num_threads(spec["threads"])
        names = ("batch", "hidden", "obs_dim", "action_dim", "critics")
        products = sac_update(**{name: spec[name] for name in names})
        self.about = {"threads": spec["threads"], "flops": flops(products)}
        self.work = [tensors(product) for product in products for _ in range(product.count)]
        self.updates = 1.0  # as much arithmetic as in all of `work`
        if size := spec.get("square"):
            square = Product(1, size, size, size)
            self.work, self.updates = [tensors(square)], square.flops / flops(products)
        self.multiply = by_onednn if size and options() else torch.mm

    def run(self, steps: int) -> dict[str, Any]:
        import torch

        rounds = max(1, round(steps / self.updates))
        for _ in range(rounds):
            for left, right, out in self.work:
                if left.ndim == 2:
                    self.multiply(left, right, out=out)
                else:
                    torch.bmm(left, right, out=out)
        return {"steps": rounds * self.updates, "updates": rounds * self.updates}

    def close(self) -> None:
        self.work.clear()


def by_onednn(left: "Tensor", right: "Tensor", out: "Tensor") -> None:
    """`torch.mm`, but for `out`, which oneDNN takes anew at each call."""
    import torch

    torch.ops.mkldnn._linear_pointwise(left, right.mT, None, "none", [], "")


def tensors(product: Product) -> tuple["Tensor", "Tensor", "Tensor"]:
    """(left, right, out) for a product; without the leading dimension where it has one member."""
    import torch

    def factor(rows: int, columns: int, transposed: bool) -> "Tensor":
        shape = (columns, rows) if transposed else (rows, columns)
        made = torch.randn(product.members, *shape)
        made = made.transpose(1, 2) if transposed else made
        return made[0] if product.members == 1 else made

    return (
        factor(product.rows, product.inner, product.transposed == "left"),
        factor(product.inner, product.columns, product.transposed == "right"),
        factor(product.rows, product.columns, False),
    )
