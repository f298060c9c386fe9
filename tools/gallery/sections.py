"""Sections of the gallery, and the sizes of errors."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tools.gallery.report import Check, rejection

PARTS = ("value", "gradient")


class Section:
    """A part of the gallery: rows for each seed; name and settings as in `settings.SECTIONS`."""

    def __init__(self, name: str, settings: Any) -> None:
        self.name, self.settings = name, settings

    def drawn(self, seed: int) -> Iterable[Check]:
        """Rows about the code that depend on chance."""
        return ()

    def own(self, seed: int) -> Iterable[Check]:
        """All rows about the code, with those of `drawn`."""
        raise NotImplementedError

    def controls(self, seed: int) -> Iterable[Check]:
        """Rows about wrong formulas, at the default settings."""
        return ()

    def row(self, name: str, figure: float, bound: float) -> Check:
        return Check(self.name, name, figure, bound)

    def parts(
        self, name: str, errors: Iterable[Tensor], bound: float, parts: Sequence[str] = PARTS
    ) -> Iterator[Check]:
        """A row for the errors of value and of gradient; {} in the name is which."""
        for part, error in zip(parts, errors, strict=True):
            yield self.row(name.format(part), float(error.max()), bound)

    def rejected(self, mistake: str, errors: Iterable[Tensor], bound: float) -> Check:
        """The row of a wrong formula, by its errors of value and gradient."""
        rows = self.parts("{}", errors, bound)
        return rejection(self.name, mistake, PARTS, [row.name for row in rows if not row.passed])


def joint(log_prob: Tensor, shape: torch.Size) -> Tensor:
    """One number per action; of dimensions too many the mean, as a loss's mean would take it."""
    return log_prob if log_prob.shape == shape else log_prob.flatten(len(shape)).mean(-1)


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
