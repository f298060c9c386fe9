"""One policy in one state: its draws, its integral, and how well the first fit the second."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tools.gallery.reference import mp

REACH = 9.0  # standard deviations on each side; 2e-19 lies beyond


def joint(log_prob: Tensor, shape: torch.Size) -> Tensor:
    """One number per action; of dimensions too many the mean, as a loss's mean would take it."""
    return log_prob if log_prob.shape == shape else log_prob.flatten(len(shape)).mean(-1)


@dataclass(frozen=True)
class Case:
    """A continuous policy for one state."""

    make: Callable[[Tensor, Tensor], Any]  # (mean, scale) -> policy, or one of `controls`
    mean: Tensor  # (A,) float32
    scale: Tensor  # log_std (A,) or scale_tril (A, A), float32
    squashed: bool  # whether actions are tanh of the latent
    label: str = ""  # among the cases of a section

    @property
    def full(self) -> bool:
        return self.scale.ndim == 2

    @cached_property
    def tril(self) -> Tensor:
        """Cholesky factor of the covariance of the latent, (A, A) float64."""
        return self.scale.double() if self.full else torch.diag(self.scale.double().exp())

    def parameters(self, count: int, dtype: torch.dtype) -> list[Tensor]:
        """Mean and scale for `count` draws, a leaf each, so that gradients come per draw."""
        expanded = [p.to(dtype).expand(count, *p.shape) for p in (self.mean, self.scale)]
        return [p.clone().requires_grad_() for p in expanded]

    def log_prob(self, action: Tensor, latent: Tensor | None = None) -> Tensor:
        """Joint log-density in float64; the parameters broadcast over the leading dimensions."""
        policy = self.make(self.mean.double(), self.scale.double())
        return joint(policy.log_prob(action, latent), action.shape[:-1])

    def squash(self, latent: Tensor) -> Tensor:
        return torch.tanh(latent) if self.squashed else latent

    def policy(self, count: int) -> Any:
        """For `count` draws in float32, as in training."""
        mean = self.mean.expand(count, -1)
        return self.make(mean, self.scale.expand(count, *self.scale.shape))

    @cached_property
    def grid(self) -> "Grid":
        return Grid(self)

    @cached_property
    def exact(self) -> tuple[list[float], list[list[Any]]]:
        """Mean and Cholesky factor, to 50 digits."""
        scale = self.scale.tolist()
        tril = scale if self.full else mp.diag([mp.exp(log_std) for log_std in scale]).tolist()
        return self.mean.tolist(), tril


def difference_of_tanh(upper: Tensor, lower: Tensor) -> Tensor:
    """tanh(upper) - tanh(lower), without cancellation at saturation."""
    return torch.sinh(upper - lower) / (torch.cosh(upper) * torch.cosh(lower))


class Grid:
    """exp(log_prob) of a case on a grid of actions, with the cell of each: what it integrates to.

    Nodes are mean + L t for t on a regular grid of whitened coordinates, mapped into action units;
    a cell's width is a difference of neighbouring actions (of sixth order in the step), so that no
    derivative of tanh is written down here. Nothing is renormalised.
    """

    def __init__(self, case: Case) -> None:
        size = len(case.mean)
        coarsest = 0.02 if size == 1 else 0.1  # the sum converges far earlier than `pit`
        largest = float(case.tril.abs().max())
        self.step = min(coarsest, 0.06 / largest) if case.squashed else coarsest
        half = math.ceil(REACH / self.step)
        ticks = self.step * torch.arange(-half, half + 1, dtype=torch.float64)
        whitened = torch.stack(torch.meshgrid(*[ticks] * size, indexing="ij"), -1)  # (n, .., A)
        latent = case.mean.double() + whitened @ case.tril.T
        widths = case.tril.diagonal() * self.step
        if case.squashed:
            near, far, farther = (
                difference_of_tanh(latent + k * widths, latent - k * widths)
                for k in (0.5, 1.0, 1.5)
            )
            widths = (45 * near - 9 * far + farther) / 30
        log_prob = case.log_prob(case.squash(latent), latent)
        mass = log_prob.exp() * widths.prod(-1)
        self.case, self.first = case, float(ticks[0])
        self.integral, self.entropy = float(mass.sum()), -float((mass * log_prob).sum())
        marginal = mass.flatten(1).sum(1) if size > 1 else mass
        self.below = marginal.cumsum(0) - marginal / 2  # of the first component, at its nodes

    def pit(self, latent: Tensor) -> Tensor:
        """P(first component <= that of each draw) by the density's own integral, (S,).

        By the trapezoid rule, and linear between nodes: off by 2e-5 in one dimension, 5e-4 in two.
        """
        case = self.case
        place = (latent[:, 0].double() - case.mean[0].double()) / case.tril[0, 0]
        place = ((place - self.first) / self.step).clamp(0, len(self.below) - 1 - 1e-9)
        left = place.long()
        return torch.lerp(self.below[left], self.below[left + 1], place - left)


def bartlett(case: Case, latent: Tensor) -> float:
    """Of the sample covariance about the true mean, exact for Gaussian draws.

    Whitened draws E have E^T E = T T^T with independent T_11^2 ~ chi2(S), T_21 ~ N(0, 1),
    T_22^2 ~ chi2(S - 1); the smallest of the two-sided p-values, times their number.
    """
    centred = (latent.double() - case.mean.double()).T
    whitened = torch.linalg.solve_triangular(case.tril, centred, upper=False)
    factor = torch.linalg.cholesky(whitened @ whitened.T)
    found = []
    for i in range(len(factor)):
        half, tail = torch.tensor([(len(latent) - i) / 2]).double(), factor[i, i].square() / 2
        above = float(torch.special.gammaincc(half, tail))
        found += [2 * min(above, 1 - above)]
        found += [normal_p_value(float(entry)) for entry in factor[i, :i]]
    return min(1.0, len(found) * min(found))


def normal_p_value(deviation: float) -> float:
    """Two-sided, of a standard normal."""
    return math.erfc(abs(deviation) / math.sqrt(2))


def relative_errors(found: Tensor, exact: Tensor | Sequence[float]) -> Tensor:
    """|found - exact| / max(1, |exact|) of each; infinite where something is no number."""
    target = torch.as_tensor(exact, dtype=torch.float64)
    error = (found.detach().double() - target).abs() / target.abs().clamp_min(1.0)
    return error.nan_to_num(math.inf, math.inf)


def relative_error(found: Tensor, exact: Tensor | Sequence[float]) -> float:
    """The largest of them."""
    return float(relative_errors(found, exact).max())


def vector_error(found: list[Tensor], exact: list[Tensor]) -> float:
    """The same of vectors, one per draw, given in parts (S, ...), by their largest components.

    A small component next to large ones may be what cancellation has left of them.
    """
    target = torch.cat([part.flatten(1) for part in exact], 1)
    error = torch.cat([part.flatten(1) for part in found], 1).double() - target
    relative = error.abs().amax(1) / target.abs().amax(1).clamp_min(1.0)
    return float(relative.nan_to_num(math.inf, math.inf).max())


def kind(dtype: torch.dtype) -> str:
    """A float type's name."""
    return str(dtype).removeprefix("torch.")
