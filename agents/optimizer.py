"""The gradient step of all agents."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim.adam import adam
from torch.utils._pytree import tree_map_

from common import traced

Losses = dict[str, Tensor]
Metrics = dict[str, Tensor]
BETAS = 0.9, 0.999
TENSORS = ("lr", "diverged", "moments", "counts", "corrections")  # of an optimiser's state


class Peers:
    """The processes that learn one policy together; here one."""

    size = 1

    def average(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor's mean over the processes, the same in all of them."""
        return list(tensors)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (B, ...) of all processes, (size B, ...), in one order everywhere."""
        return rows


class Optimizer:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) over named groups; a step is all or nothing.

    Each group descends its own loss and no other, so that a critic evaluated in the actor's loss
    gets no gradient from it. If any loss or gradient norm is not finite, no group is changed, the
    flag `diverged` is set, and no later step changes anything. Gradients, that of the temperature
    too, are averaged over the processes that learn together.

    Args:
        max_grad_norm: each group's gradient is scaled down to this norm; None: never.
        horizon: updates over which the learning rate falls linearly to 0; None: constant.
        eps: added to the root of the second moment.
    """

    def __init__(
        self,
        groups: Mapping[str, Iterable[Tensor]],
        lr: float,
        max_grad_norm: float | None = None,
        horizon: int | None = None,
        eps: float = 1e-8,
    ) -> None:
        self.groups = {name: list(group) for name, group in groups.items()}
        self.base_lr, self.horizon = lr, horizon
        self.max_grad_norm, self.eps = max_grad_norm, eps
        self.ranks = Peers()
        self.updates = 0
        device = next(iter(self.groups.values()))[0].device
        self.lr = torch.tensor(lr, device=device)
        self.diverged = torch.zeros((), dtype=torch.bool, device=device)
        self.moments = {
            name: [[torch.zeros_like(weight) for weight in group] for _ in range(2)]
            for name, group in self.groups.items()
        }
        self.counts = {
            name: [w.new_zeros(()) for w in group] for name, group in self.groups.items()
        }
        self.betas = torch.tensor(BETAS, device=device)
        self.exponents = torch.tensor([-1.0, -0.5], device=device)
        self.corrections = {name: self.correction(name) for name in self.groups}

    def begin_update(self) -> None:
        """Counts an update and sets its learning rate, outside the graph."""
        if self.horizon is not None:
            self.lr.fill_(self.base_lr * max(0.0, 1.0 - self.updates / self.horizon))
        self.updates += 1

    def minimise(
        self, loss_fn: Callable[[], tuple[Losses, Metrics]], unless: Tensor | None = None
    ) -> Metrics:
        """Evaluates the losses, {group: loss}, and steps the groups that they name.

        Args:
            unless: 0-d bool, read after the losses; if it is true, nothing is changed.

        Returns:
            The metrics of `loss_fn` with `grad_norm/<group>` (before clipping) and `train/lr`.
        """
        losses, metrics = loss_fn()
        grads = {
            name: list(torch.autograd.grad(loss, self.groups[name], retain_graph=True))
            for name, loss in losses.items()
        }
        means = iter(self.ranks.average([*losses.values(), *chain(*grads.values())]))
        losses = {name: next(means) for name in losses}
        grads = {name: [next(means) for _ in grad] for name, grad in grads.items()}
        total_norm = traced.total_norm if torch.compiler.is_compiling() else get_total_norm
        norms = {name: total_norm(grad) for name, grad in grads.items()}
        self.diverged |= ~torch.stack([*losses.values(), *norms.values()]).isfinite().all()
        skip = self.diverged if unless is None else self.diverged | unless
        with torch.no_grad():
            if self.max_grad_norm is not None:
                for name, grad in grads.items():
                    scale = (self.max_grad_norm / (norms[name] + 1e-6)).clamp(max=1)
                    torch._foreach_mul_(grad, scale)
            self.adam(grads, skip)
            for name in grads:
                self.corrections[name].copy_(self.correction(name))
        metrics |= {f"grad_norm/{name}": norm for name, norm in norms.items()}
        metrics["train/lr"] = self.lr.clone() if self.horizon is not None else self.lr
        return metrics

    def adam(self, grads: Mapping[str, list[Tensor]], skip: Tensor) -> None:
        """Algorithm 1 of the paper, for the groups with gradients."""
        if torch.compiler.is_compiling():  # it cannot trace into the call below
            for name, grad in grads.items():
                state = self.moments[name], self.counts[name], self.corrections[name]
                traced.adam(self.groups[name], grad, *state, self.lr, BETAS, self.eps, skip)
            return
        moments = [self.moments[name] for name in grads]
        adam(
            [weight for name in grads for weight in self.groups[name]],
            [slope for grad in grads.values() for slope in grad],
            [mean for means, _ in moments for mean in means],
            [square for _, squares in moments for square in squares],
            [],
            [count for name in grads for count in self.counts[name]],
            fused=True,
            found_inf=skip.float(),
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self.lr,
            weight_decay=0.0,
            eps=self.eps,
            maximize=False,
        )

    def correction(self, name: str) -> Tensor:
        """Bias corrections of the next step t: 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t)."""
        return (1.0 - self.betas ** (self.counts[name][0] + 1.0)) ** self.exponents

    def state_dict(self) -> dict[str, Any]:
        tensors = {name: getattr(self, name) for name in TENSORS}
        return {"updates": self.updates, "horizon": self.horizon, **tensors}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates, self.horizon = state["updates"], state["horizon"]
        for name in TENSORS:
            tree_map_(Tensor.copy_, getattr(self, name), state[name])
