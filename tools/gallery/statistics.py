"""One policy in one state, and the sizes of errors."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from audit.checks import Grid
from audit.support import Support, support_between
from tools.gallery.reference import mp


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

    @property
    def support(self) -> Support:
        return support_between(len(self.mean), 1.0 if self.squashed else math.inf)

    def density(self, latent: Tensor) -> Tensor:
        """Log-density of latents that `log_prob` claims, (*, A) -> (*,)."""
        return self.log_prob(self.squash(latent), latent) + self.support.log_slope(latent)

    @cached_property
    def grid(self) -> Grid:
        return Grid(self.density, self.support, self.mean, self.tril)

    def whitened(self, latent: Tensor) -> Tensor:
        """The noise of draws (S, A), float64."""
        centred = (latent.double() - self.mean.double()).T
        return torch.linalg.solve_triangular(self.tril, centred, upper=False).T

    @cached_property
    def exact(self) -> tuple[list[float], list[list[Any]]]:
        """Mean and Cholesky factor, to 50 digits."""
        scale = self.scale.tolist()
        tril = scale if self.full else mp.diag([mp.exp(log_std) for log_std in scale]).tolist()
        return self.mean.tolist(), tril


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
