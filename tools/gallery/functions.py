"""The sections on logarithms and softmax, and what sections without a density share."""

import math
from collections.abc import Callable
from decimal import Context, Decimal, localcontext
from typing import ClassVar

import torch
from torch import Tensor

import policies
from audit.checks import chi2_p_value
from common.seeding import stream
from tools.gallery import controls, reference
from tools.gallery.densities import RAREST, control_row
from tools.gallery.report import Check, Section, at_least
from tools.gallery.settings import SECTIONS
from tools.gallery.statistics import relative_error

Form = Callable[[Tensor], Tensor]


def decimal(values: Tensor, function: Callable[[Decimal], Decimal]) -> Tensor:
    """`function` of each number to 50 digits, rounded to float64 at the end."""
    with localcontext(Context(prec=reference.DIGITS)):
        exact = [float(function(Decimal(value))) for value in values.flatten().tolist()]
    return torch.tensor(exact, dtype=torch.float64).reshape(values.shape)


def slopes(function: Form, points: Tensor) -> tuple[Tensor, Tensor]:
    """(f, f') at each point."""
    leaf = points.clone().requires_grad_()
    found = function(leaf)
    (slope,) = torch.autograd.grad(found.sum(), leaf)
    return found.detach(), slope


def kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class LogExp(Section):
    """exp(log X) = X: exp makes a relative error of the absolute one that log X has."""

    FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return torch.tensor(self.settings.values, dtype=torch.float64).to(dtype)

    def errors(self, dtype: torch.dtype) -> Tensor:
        """|exp(log X) / X - 1|, computed in one float type."""
        matrix = self.matrix(dtype)
        return (torch.exp(torch.log(matrix)).double() / matrix.double() - 1).abs()

    def bound(self, dtype: torch.dtype) -> float:
        largest = float(self.matrix(dtype).double().log().abs().max())
        return (1 + largest) * torch.finfo(dtype).eps

    def own(self, seed: int) -> list[Check]:
        rows = []
        for dtype in self.FLOATS:
            error = float(self.errors(dtype).max())
            rows.append(self.row(f"exp(log X) / X - 1, {kind(dtype)}", error, self.bound(dtype)))
            matrix = self.matrix(dtype)
            log, slope = slopes(torch.log, matrix)
            error = max(relative_error(log, decimal(matrix, Decimal.ln)),
                        relative_error(slope, 1 / matrix.double()))  # fmt: skip
            name = f"log X and its slope against 50 digits, {kind(dtype)}"
            rows.append(self.row(name, error, torch.finfo(dtype).eps))
        return rows


class LogSoftmax(Section):
    """log_softmax, and the categorical policy that is made of it."""

    FORMS: ClassVar[dict[str, Form]] = {
        "log_softmax": lambda logits: torch.log_softmax(logits, -1),
        "log(softmax)": controls.log_of_softmax,
    }
    FLOATS = (torch.float16, torch.float32)

    def logits(self) -> Tensor:
        """Rows of five logits, the last `size` apart from their middle."""
        scales = torch.logspace(0, math.log10(self.settings.size), 25, dtype=torch.float64)
        return scales.unsqueeze(-1) * torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]).double()

    def errors(self, form: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Of log p over max(1, |log p|), and of its gradient: the largest in each row of logits."""
        logits = self.logits().to(dtype).requires_grad_()
        found = self.FORMS[form](logits)
        by_class = [torch.autograd.grad(found[:, k].sum(), logits, retain_graph=True)[0]
                    for k in range(5)]  # fmt: skip
        rows = [reference.log_softmax([Decimal(z) for z in row]) for row in logits.tolist()]
        log_p = torch.tensor([[float(x) for x in row[0]] for row in rows], dtype=torch.float64)
        p = torch.tensor([[float(x) for x in row[1]] for row in rows], dtype=torch.float64)
        value = (found.detach().double() - log_p).abs() / log_p.abs().clamp_min(1)
        jacobian = torch.eye(5, dtype=torch.float64) - p.unsqueeze(1)  # d log p_k / d z_j
        gradient = (torch.stack(by_class, 1).double() - jacobian).abs().flatten(1)
        return value.nan_to_num(math.inf, math.inf).amax(1), gradient.nan_to_num(
            math.inf, math.inf
        ).amax(1)

    def frequencies(self, seed: int) -> Tensor:
        """How often each class was drawn, (K,)."""
        probs = torch.tensor(self.settings.probs)
        policy = policies.Categorical(probs.log().expand(self.settings.samples, -1))
        action, _ = policy.sample(policy.noise(stream(seed, self.name)))
        return torch.bincount(action, minlength=len(probs))

    def drawn(self, seed: int) -> list[Check]:
        probs = torch.tensor(self.settings.probs, dtype=torch.float64)
        p_value = chi2_p_value(self.frequencies(seed), probs)
        name = f"chi-square of {self.settings.samples:,} draws of the categorical, p-value"
        return [at_least(self.name, name, p_value, RAREST)]

    def own(self, seed: int) -> list[Check]:
        rows = self.drawn(seed)
        for dtype in self.FLOATS:
            bound = 2 * torch.finfo(dtype).eps
            errors = self.errors("log_softmax", dtype)
            for what, found in zip(("value", "gradient"), errors, strict=True):
                name = f"log_softmax: {what} to +-{self.settings.size:g}, {kind(dtype)}"
                rows.append(self.row(name, float(found.max()), bound))
        return rows

    def controls(self, seed: int) -> list[Check]:
        rows, default = [], LogSoftmax(self.name, SECTIONS[self.name]())
        for dtype in self.FLOATS:
            pairs = zip(("value", "gradient"), default.errors("log(softmax)", dtype), strict=True)
            rejecting = [what for what, error in pairs if float(error.max()) > 0.01]
            mistake = f"log_of_softmax, {kind(dtype)}"
            rows.append(control_row(self.name, "", mistake, ("value", "gradient"), rejecting))
        return [*rows, self.uniform_clocks(seed)]

    def uniform_clocks(self, seed: int) -> Check:
        """Uniform noise where exponential belongs, for unequal probabilities."""
        probs = torch.tensor([0.7, 0.2, 0.1])
        clocks = torch.rand(10_000, 3, generator=stream(seed, "uniform clocks"))
        action, _ = policies.Categorical(probs.log().expand(10_000, -1)).sample(clocks)
        p_value = chi2_p_value(torch.bincount(action, minlength=3), probs)
        rejecting = ["chi-square"] if p_value < RAREST else []
        return control_row(self.name, "", "uniform_clocks", ("chi-square",), rejecting)
