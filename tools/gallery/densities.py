"""The checks of a continuous density: draws, integral, value, gradient; right or wrong."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Context, Decimal, localcontext
from functools import cached_property, partial

import torch
from torch import Tensor

from tools.gallery import reference
from tools.gallery.controls import WRONG
from tools.gallery.report import Check, at_least, at_most
from tools.gallery.statistics import (
    Case,
    Draws,
    Grid,
    joint,
    p_values,
    relative_error,
    vector_error,
)

RAREST = 1e-6  # a smaller p-value is a failure; 30 tests: 3 false alarms in 100,000 galleries
INTEGRAL = 1e-6
TOLD = 7.0  # beyond, a float32 action hardly tells which u it is the tanh of
REFERENCES = 64  # draws that are held against 50 digits
VALUE = {torch.float32: 1e-5, torch.float64: 1e-12}
GRADIENT = {torch.float32: 2e-5, torch.float64: 1e-11}


@dataclass(frozen=True)
class Exact:
    """To 50 digits: values (R,), slopes by the mean (R, A) and by the scale (R, A) or (R, A, A)."""

    value: Tensor
    by_mean: Tensor
    by_scale: Tensor


class Subject:
    """A case with its grid, its draws and what is exact of them, in a section of the gallery."""

    def __init__(self, section: str, case: Case, grid: Grid, draws: Draws) -> None:
        self.section, self.case, self.grid, self.draws = section, case, grid, draws

    @cached_property
    def exact(self) -> list["Exact"]:
        return exact(self.case, self.draws)

    def name(self, text: str) -> str:
        return f"{self.case.label}: {text}" if self.case.label else text

    def gone_wrong(self, mistake: str) -> "Subject":
        """The same draws and references, scored by a wrong formula."""
        make = partial(WRONG[mistake], squashed=self.case.squashed)
        case = replace(self.case, make=make)
        wrong = Subject(self.section, case, Grid(case), self.draws)
        wrong.exact = self.exact
        return wrong


def exact(case: Case, draws: Draws) -> list[Exact]:
    """[of log_prob at the latents, of log_pi from the noise], for the first draws."""
    mean, tril = decimals(case)
    found = []
    for score, points in ((reference.log_prob, draws.latent), (reference.log_pi, draws.noise)):
        rows = [
            score(mean, tril, [Decimal(x) for x in point], case.squashed)
            for point in points[:REFERENCES].tolist()
        ]
        found.append(to_tensors(case, rows))
    return found


def decimals(case: Case) -> tuple[list[Decimal], list[list[Decimal]]]:
    """Mean and Cholesky factor, to 50 digits."""
    with localcontext(Context(prec=reference.DIGITS)):
        mean = [Decimal(x) for x in case.mean.tolist()]
        if case.full:
            return mean, [[Decimal(x) for x in row] for row in case.scale.tolist()]
        std = [Decimal(x).exp() for x in case.scale.tolist()]
        return mean, [[s * (i == j) for j in range(len(std))] for i, s in enumerate(std)]


def to_tensors(case: Case, rows: list[reference.Score]) -> Exact:
    def tensor(values: list[object]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    by_scale = tensor([[[float(x) for x in line] for line in row.by_tril] for row in rows])
    if case.full:
        by_scale = by_scale.tril()
    else:  # d L_ii / d log_std_i = L_ii
        by_scale = by_scale.diagonal(dim1=-2, dim2=-1) * case.tril.diagonal()
    by_mean = tensor([[float(x) for x in row.by_mean] for row in rows])
    return Exact(tensor([float(row.value) for row in rows]), by_mean, by_scale)


def pit(subject: Subject) -> list[Check]:
    """Do the draws follow the integral of the density?"""
    found = p_values(subject.case, subject.grid, subject.draws.latent)
    draws = f"KS of {len(subject.draws.latent):,} draws"
    return [
        at_least(subject.section, subject.name(f"{draws}{which}, p-value"), p, RAREST)
        for which, p in found.items()
    ]


def integral(subject: Subject) -> list[Check]:
    """Is it a density?"""
    error = abs(subject.grid.integral - 1)
    return [
        at_most(subject.section, subject.name("integral over the actions - 1"), error, INTEGRAL)
    ]


def errors(subject: Subject, dtype: torch.dtype) -> tuple[float, float]:
    """(of the value, of the gradient), largest over log_prob and log_pi, over max(1, |exact|)."""
    case, count = subject.case, len(subject.exact[0].value)
    latent = subject.draws.latent[:count].to(dtype)
    noise = subject.draws.noise[:count].to(dtype)
    values, gradients = [], []
    for target, own in zip(subject.exact, (False, True), strict=True):
        parameters = case.parameters(count, dtype)
        policy = case.make(*parameters)
        if own:
            found = policy.rsample_with_log_prob(noise)[1]
        else:
            found = policy.log_prob(case.squash(latent), latent)
        one_each = joint(found, torch.Size([count]))
        by_mean, by_scale = torch.autograd.grad(
            one_each.sum(), parameters, allow_unused=True, materialize_grads=True
        )
        right_shape = found.shape == (count,) and found.dtype == dtype
        values.append(relative_error(found, target.value) if right_shape else math.inf)
        slopes = [by_mean, by_scale.tril() if case.full else by_scale]
        gradients.append(vector_error(slopes, [target.by_mean, target.by_scale]))
    return max(values), max(gradients)


def error_rows(subject: Subject, dtype: torch.dtype) -> list[Check]:
    """[of the value, of the gradient] in one float type."""
    of_value, of_gradient = errors(subject, dtype)
    name = f"against 50 digits, {str(dtype).removeprefix('torch.')}"
    return [
        at_most(subject.section, subject.name(f"log_prob and log_pi {name}"),
                of_value, VALUE[dtype]),
        at_most(subject.section, subject.name(f"their gradients {name}"),
                of_gradient, GRADIENT[dtype]),
    ]  # fmt: skip


def terms(subject: Subject, dtype: torch.dtype = torch.float32) -> list[Check]:
    """[each term of log_pi to 50 digits, their sum against log_pi] in one float type."""
    case, noise = subject.case, subject.draws.noise[:REFERENCES].to(dtype)
    policy = case.make(*case.parameters(len(noise), dtype))
    found, log_pi = policy.terms(noise), policy.rsample_with_log_prob(noise)[1]
    sizes = torch.stack(list(found.values())).abs().sum((0, -1)).clamp_min(1.0)
    off = (torch.stack(list(found.values())).sum((0, -1)) - joint(log_pi, sizes.shape)) / sizes
    error = max(relative_error(found[name], part) if name in found else math.inf
                for name, part in exact_terms(subject).items())  # fmt: skip
    kind = str(dtype).removeprefix("torch.")
    return [
        at_most(subject.section, subject.name(f"each of the terms of log_pi against 50 digits, "
                f"{kind}"), error, VALUE[dtype]),
        at_most(subject.section, subject.name(f"(sum of the terms - log_pi) / their sizes, {kind}"),
                relative_error(off, torch.zeros(len(off))), VALUE[dtype]),
    ]  # fmt: skip


def exact_terms(subject: Subject) -> dict[str, Tensor]:
    """The terms of the first draws by the noise, {name: (R, A)} to 50 digits."""
    mean, tril = decimals(subject.case)
    rows = []
    for point in subject.draws.noise[:REFERENCES].tolist():
        noise = [Decimal(x) for x in point]
        rows.append(reference.terms(tril, noise, reference.latent(mean, tril, noise),
                                    subject.case.squashed))  # fmt: skip
    return {
        name: torch.tensor([[float(x) for x in row[name]] for row in rows], dtype=torch.float64)
        for name in rows[0]
    }


def without_latent(subject: Subject) -> list[Check]:
    """What `log_prob` makes of the action alone, where float32 still tells u: up to |u| = 7.

    An action that is off by eps gives a u that is off by d = eps cosh(u)^2, and that a log-density
    that is off by (|its slope by u| + 2) d + (d / std)^2 / 2.
    """
    case, latent = subject.case, subject.draws.latent[:REFERENCES]
    told = (latent.abs() <= TOLD).all(-1)
    if not case.squashed or not bool(told.any()):
        return []
    policy = case.make(*(p.detach() for p in case.parameters(len(latent), torch.float32)))
    found, exact = joint(policy.log_prob(case.squash(latent)), told.shape), subject.exact[0]
    lost = torch.finfo(torch.float32).eps * latent.double().cosh().square()
    curved = (lost @ torch.linalg.inv(case.tril).abs().T).square().sum(-1) / 2
    bound = (lost * (exact.by_mean.abs() + 2)).sum(-1) + curved
    ratio = (found.double() - exact.value).abs() / (
        bound + VALUE[torch.float32] * exact.value.abs()
    )
    name = f"log_prob without latent to |u| = {TOLD:g}, float32: error / what the action lost"
    return [at_most(subject.section, subject.name(name), float(ratio[told].max()), 1.0)]


def exact_rows(subject: Subject) -> list[Check]:
    """All that does not depend on chance, in both float types, and the action itself."""
    rows = integral(subject)
    for dtype in (torch.float32, torch.float64):
        rows += error_rows(subject, dtype)
        rows += terms(subject, dtype)
    rows += without_latent(subject)
    if subject.case.squashed:
        action, latent = subject.draws.action, subject.draws.latent
        error = relative_error(action, torch.tanh(latent.double()))
        rows.append(at_most(subject.section, subject.name("action - tanh(latent)"), error, 3e-7))
    return rows


TESTS: dict[str, Callable[[Subject], list[Check]]] = {
    "pit": pit,
    "integral": integral,
    "value": lambda subject: error_rows(subject, torch.float32)[:1],
    "gradient": lambda subject: error_rows(subject, torch.float32)[1:],
    "terms": terms,
}


def control(subject: Subject, mistake: str, expected: tuple[str, ...]) -> Check:
    """A wrong formula, which every check named in `expected` must reject."""
    wrong = subject.gone_wrong(mistake)
    rejecting = [test for test in expected if not all(row.passed for row in TESTS[test](wrong))]
    return control_row(subject.section, subject.name(""), mistake, expected, rejecting)


def control_row(
    section: str, label: str, mistake: str, expected: tuple[str, ...], rejecting: list[str]
) -> Check:
    """The row of a negative control: how many of the checks declared beforehand reject it."""
    missing = [test for test in expected if test not in rejecting]
    said = f"rejected by {', '.join(rejecting) or 'nothing'}"
    said += f", NOT by {', '.join(missing)}" if missing else ""
    return at_least(section, f"{label}control {mistake}: {said}", len(rejecting), len(expected))
