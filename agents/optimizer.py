"""Gradient steps: all of them are taken here."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

Losses = dict[str, Tensor]
Metrics = dict[str, Tensor]
BETA1, BETA2 = 0.9, 0.999


class Ranks(Protocol):
    """The processes that learn one policy together, each from transitions of its own."""

    size: int

    def average(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor's mean over the ranks, the same on all of them."""

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (B, ...) of all ranks, (size B, ...), in one order everywhere."""


class Alone:
    """The only process of a run."""

    size = 1

    def average(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return list(tensors)

    def gather(self, rows: Tensor) -> Tensor:
        return rows


class Optimizer:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) over named groups; a step is all or nothing.

    Each group descends its own loss and no other, so that a critic evaluated in the actor's loss
    gets no gradient from it. If any loss or gradient norm is not finite, no group is changed, the
    flag `diverged` goes up, and from then on nothing is committed any more. Where several ranks
    learn together, their gradients are averaged here, the temperature's among them.

    Args:
        groups: name -> parameters.
        lr: learning rate.
        max_grad_norm: each group's gradient is scaled down to this norm; None leaves it.
        horizon: updates over which the learning rate falls linearly to 0; None keeps it.
        eps: added to the root of the second moment.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[nn.Parameter]],
        lr: float,
        *,
        max_grad_norm: float | None = None,
        horizon: int | None = None,
        eps: float = 1e-8,
    ) -> None:
        self.groups: dict[str, list[Tensor]] = {name: [*group] for name, group in groups.items()}
        self.base_lr = lr
        self.max_grad_norm = max_grad_norm
        self.horizon = horizon
        self.eps = eps
        self.ranks: Ranks = Alone()
        self.updates = 0
        device = next(iter(self.groups.values()))[0].device
        self.lr = torch.tensor(lr, device=device)
        self.diverged = torch.zeros((), dtype=torch.bool, device=device)
        self.moments: dict[str, tuple[list[Tensor], ...]] = {
            name: tuple([torch.zeros_like(p) for p in parameters] for _ in range(2))
            for name, parameters in self.groups.items()
        }
        self.counts = {
            name: [torch.zeros((), device=device) for _ in parameters]
            for name, parameters in self.groups.items()
        }
        self.betas = torch.tensor([BETA1, BETA2], device=device)
        self.exponents = torch.tensor([-1.0, -0.5], device=device)  # of 1 - beta^t, see `_correct`
        self.corrections = {name: torch.empty(2, device=device) for name in self.groups}
        for name in self.groups:
            self._correct(name)

    def begin_update(self) -> None:
        """Counts an update and sets its learning rate: the part of an update that is not traced."""
        if self.horizon is not None:
            self.lr.fill_(self.base_lr * max(0.0, 1.0 - self.updates / self.horizon))
        self.updates += 1

    def minimise(
        self, loss_fn: Callable[[], tuple[Losses, Metrics]], unless: Tensor | None = None
    ) -> Metrics:
        """Evaluates the losses, {group: loss}, and steps the groups that they name.

        Tensors in, tensors out: it can be traced as a part of one graph.

        Args:
            unless: 0-d bool, read after the losses: where it is up, nothing is changed.

        Returns:
            The metrics of `loss_fn` with `grad_norm/<group>` (before clipping) and `train/lr`.
        """
        losses, metrics = loss_fn()
        last = len(losses) - 1
        grads = {
            name: list(torch.autograd.grad(loss, self.groups[name], retain_graph=i < last))
            for i, (name, loss) in enumerate(losses.items())
        }
        losses, grads = self.averaged(losses, grads)
        norms = {name: total_norm(grad) for name, grad in grads.items()}
        finite = torch.stack([*losses.values(), *norms.values()]).isfinite().all()
        self.diverged |= ~finite
        skip = self.diverged if unless is None else self.diverged | unless
        self._apply(grads, norms, skip)
        metrics.update({f"grad_norm/{name}": norm for name, norm in norms.items()})
        metrics["train/lr"] = self.lr.clone() if self.horizon is not None else self.lr
        return metrics

    def averaged(
        self, losses: Losses, grads: dict[str, list[Tensor]]
    ) -> tuple[Losses, dict[str, list[Tensor]]]:
        """Losses and gradients as of one batch that holds those of all ranks."""
        if self.ranks.size == 1:
            return losses, grads
        rest = iter(self.ranks.average([*losses.values(), *chain.from_iterable(grads.values())]))
        means = {name: next(rest) for name in losses}
        return means, {name: [next(rest) for _ in grad] for name, grad in grads.items()}

    @torch.no_grad()
    def _apply(
        self, grads: Mapping[str, list[Tensor]], norms: Mapping[str, Tensor], skip: Tensor
    ) -> None:
        for name, grad in grads.items():
            if self.max_grad_norm is not None:
                torch._foreach_mul_(grad, (self.max_grad_norm / (norms[name] + 1e-6)).clamp(max=1))
        if torch.compiler.is_compiling():  # the fused kernel is opaque to the tracer
            for name, grad in grads.items():
                self._adam(name, grad, skip)
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
            beta1=BETA1,
            beta2=BETA2,
            lr=self.lr,
            weight_decay=0.0,
            eps=self.eps,
            maximize=False,
        )
        for name in grads:
            self._correct(name)

    def _adam(self, name: str, grad: list[Tensor], skip: Tensor) -> None:
        """Algorithm 1 of the paper, as the fused kernel does it; compiled, it is a few kernels.

        The corrections come from the step before: a compiler takes a formula of 0-d tensors into
        the loop over the weights, where their powers cost more than all else.
        """
        first, second = self.corrections[name].unbind()
        for weight, mean, square, slope in zip(
            self.groups[name], *self.moments[name], grad, strict=True
        ):
            new_mean = mean + (1.0 - BETA1) * (slope - mean)
            new_square = BETA2 * square + (1.0 - BETA2) * slope * slope
            step = (self.lr * first) * new_mean / (new_square.sqrt() * second + self.eps)
            weight.copy_(torch.where(skip, weight, weight - step))
            mean.copy_(torch.where(skip, mean, new_mean))
            square.copy_(torch.where(skip, square, new_square))
        for count in self.counts[name]:
            count.copy_(torch.where(skip, count, count + 1.0))
        self._correct(name)

    def _correct(self, name: str) -> None:
        """Sets the bias corrections of both moments for the group's next step, t.

        1 / (1 - beta1^t), and the square root of 1 / (1 - beta2^t).
        """
        powers = self.betas ** (self.counts[name][0] + 1.0)
        self.corrections[name].copy_((1.0 - powers) ** self.exponents)

    def state_dict(self) -> dict[str, Any]:
        return {
            "updates": self.updates,
            "horizon": self.horizon,
            "lr": self.lr,
            "diverged": self.diverged,
            "moments": {name: list(moments) for name, moments in self.moments.items()},
            "counts": self.counts,
            "corrections": self.corrections,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.horizon = state["horizon"]
        self.lr.copy_(state["lr"])
        self.diverged.copy_(state["diverged"])
        for name, parameters in self.groups.items():
            for moment, saved in zip(self.moments[name], state["moments"][name], strict=True):
                for i in range(len(parameters)):
                    moment[i].copy_(saved[i])
            for count, saved_count in zip(self.counts[name], state["counts"][name], strict=True):
                count.copy_(saved_count)
            self.corrections[name].copy_(state["corrections"][name])


def total_norm(grads: list[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together, 0-d."""
    if torch.compiler.is_compiling():  # plain reductions are fused with their neighbours
        return torch.stack([grad.square().sum() for grad in grads]).sum().sqrt()
    return torch.nn.utils.get_total_norm(grads)
