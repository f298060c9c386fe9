"""The sections that have a continuous density: draws, integral, value, gradient; right or wrong."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

import policies
from common.seeding import stream
from tools.gallery import reference
from tools.gallery.controls import WRONG
from tools.gallery.report import Check, Section, at_least, at_most
from tools.gallery.settings import SECTIONS
from tools.gallery.statistics import (
    Case,
    Draws,
    Grid,
    bartlett_p_value,
    joint,
    kind,
    p_values,
    relative_error,
    vector_error,
)

RAREST = 1e-6  # a smaller p-value is a failure; 30 tests: 3 false alarms in 100,000 galleries
INTEGRAL = 1e-6
INVERTIBLE = 7.0  # |u|; beyond, a float32 action hardly determines the u it is the tanh of
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

    def at_most(self, text: str, figure: float, bound: float) -> Check:
        return at_most(self.section, self.name(text), figure, bound)

    def gone_wrong(self, mistake: str) -> "Subject":
        """The same draws and references, scored by a wrong formula."""
        make = partial(WRONG[mistake], squashed=self.case.squashed)
        case = replace(self.case, make=make)
        wrong = Subject(self.section, case, Grid(case), self.draws)
        wrong.exact = self.exact
        return wrong


def exact(case: Case, draws: Draws) -> list[Exact]:
    """[of log_prob at the latents, of log_pi from the noise], for the first draws."""
    mean, tril = exact_parameters(case)
    return [
        to_tensors(case, [score(mean, tril, point, case.squashed) for point in points.tolist()])
        for score, points in (
            (reference.log_prob, draws.latent[:REFERENCES]),
            (reference.log_pi, draws.noise[:REFERENCES]),
        )
    ]


def exact_parameters(case: Case) -> tuple[list[float], list[list[Any]]]:
    """Mean and Cholesky factor, to 50 digits."""
    mean, scale = case.mean.tolist(), case.scale.tolist()
    if case.full:
        return mean, scale
    return mean, reference.mp.diag([reference.mp.exp(x) for x in scale]).tolist()


def to_tensors(case: Case, rows: list[reference.Score]) -> Exact:
    value, by_mean, by_scale = map(reference.tensor, zip(*rows, strict=True))
    if case.full:
        by_scale = by_scale.tril()
    else:  # d L_ii / d log_std_i = L_ii
        by_scale = by_scale.diagonal(dim1=-2, dim2=-1) * case.tril.diagonal()
    return Exact(value, by_mean, by_scale)


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
    return [subject.at_most("integral over the actions - 1", error, INTEGRAL)]


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
    name = f"against 50 digits, {kind(dtype)}"
    return [
        subject.at_most(f"log_prob and log_pi {name}", of_value, VALUE[dtype]),
        subject.at_most(f"their gradients {name}", of_gradient, GRADIENT[dtype]),
    ]


def terms(subject: Subject, dtype: torch.dtype = torch.float32) -> list[Check]:
    """[each term of log_pi to 50 digits, their sum against log_pi] in one float type."""
    case, noise = subject.case, subject.draws.noise[:REFERENCES].to(dtype)
    policy = case.make(*case.parameters(len(noise), dtype))
    found, log_pi = policy.terms(noise), policy.rsample_with_log_prob(noise)[1]
    sizes = torch.stack(list(found.values())).abs().sum((0, -1)).clamp_min(1.0)
    off = (torch.stack(list(found.values())).sum((0, -1)) - joint(log_pi, sizes.shape)) / sizes
    error = max(
        relative_error(found[name], part) if name in found else math.inf
        for name, part in exact_terms(subject).items()
    )
    each = f"each of the terms of log_pi against 50 digits, {kind(dtype)}"
    total = f"(sum of the terms - log_pi) / their sizes, {kind(dtype)}"
    return [
        subject.at_most(each, error, VALUE[dtype]),
        subject.at_most(total, relative_error(off, torch.zeros(len(off))), VALUE[dtype]),
    ]


def exact_terms(subject: Subject) -> dict[str, Tensor]:
    """The terms of the first draws by the noise, {name: (R, A)} to 50 digits."""
    mean, tril = exact_parameters(subject.case)
    rows = [
        reference.terms(tril, e, reference.latent_of(mean, tril, e), subject.case.squashed)
        for e in subject.draws.noise[:REFERENCES].tolist()
    ]
    return {name: reference.tensor([row[name] for row in rows]) for name in rows[0]}


def without_latent(subject: Subject) -> list[Check]:
    """What `log_prob` makes of the action alone, where float32 still determines u: |u| <= 7.

    An action that is off by eps gives a u that is off by d = eps cosh(u)^2, and that a log-density
    that is off by (|its slope by u| + 2) d + (d / std)^2 / 2.
    """
    case, latent = subject.case, subject.draws.latent[:REFERENCES]
    inside = (latent.abs() <= INVERTIBLE).all(-1)
    if not case.squashed or not bool(inside.any()):
        return []
    policy = case.make(*(p.detach() for p in case.parameters(len(latent), torch.float32)))
    found, exact = joint(policy.log_prob(case.squash(latent)), inside.shape), subject.exact[0]
    lost = torch.finfo(torch.float32).eps * latent.double().cosh().square()
    curved = (lost @ torch.linalg.inv(case.tril).abs().T).square().sum(-1) / 2
    bound = (lost * (exact.by_mean.abs() + 2)).sum(-1) + curved
    ratio = (found.double() - exact.value).abs() / (
        bound + VALUE[torch.float32] * exact.value.abs()
    )
    name = f"log_prob without latent to |u| = {INVERTIBLE:g}, float32: error / what the action lost"
    return [subject.at_most(name, float(ratio[inside].max()), 1.0)]


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
        rows.append(subject.at_most("action - tanh(latent)", error, 3e-7))
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
    result = f"rejected by {', '.join(rejecting) or 'nothing'}"
    result += f", NOT by {', '.join(missing)}" if missing else ""
    return at_least(section, f"{label}control {mistake}: {result}", len(rejecting), len(expected))


ALL = ("pit", "integral", "value", "gradient", "terms")
Controls = dict[str, tuple[str, ...]]  # wrong formula -> the checks that must reject it


@dataclass(frozen=True)
class Kind:
    """A section: its cases, the checks that must reject each mistake, and rows of its own."""

    cases: Callable[[Any], list[Case]]
    controls: Controls
    compared: Callable[[Subject], list[Check]] = field(default=lambda subject: [])
    covariance: bool = False


class DensitySection(Section):
    """The checks of one section on its cases; drawing with another seed costs no new grid."""

    def __init__(self, name: str, settings: Any) -> None:
        super().__init__(name, settings)
        self.kind = KINDS[name]
        self.cases = [(case, Grid(case)) for case in self.kind.cases(settings)]

    def subjects(self, seed: int) -> Iterator[Subject]:
        for case, grid in self.cases:
            generator = stream(seed, f"{self.name}/{case.label}")
            yield Subject(self.name, case, grid, case.draw(self.settings.samples, generator))

    def drawn(self, seed: int) -> list[Check]:
        return [row for subject in self.subjects(seed) for row in self.of_chance(subject)]

    def of_chance(self, subject: Subject) -> list[Check]:
        rows = pit(subject)
        if self.kind.covariance:
            p_value = bartlett_p_value(subject.case, subject.draws.latent)
            name = subject.name("sample covariance, Bartlett's decomposition, p-value")
            rows.append(at_least(self.name, name, p_value, RAREST))
        return rows

    def own(self, seed: int) -> list[Check]:
        rows = []
        for subject in self.subjects(seed):
            rows += [*self.of_chance(subject), *exact_rows(subject), *self.kind.compared(subject)]
        return rows

    def controls(self, seed: int) -> list[Check]:
        default = DensitySection(self.name, SECTIONS[self.name]())
        return [
            control(subject, mistake, expected)
            for subject in default.subjects(seed)
            for mistake, expected in self.kind.controls.items()
        ]


def diagonal(mean: list[float], std: list[float], label: str = "", squashed: bool = False) -> Case:
    make = policies.TanhGaussian if squashed else policies.Gaussian
    log_std = torch.tensor(std, dtype=torch.float64).log().float()
    return Case(make, torch.tensor(mean), log_std, squashed, label)


def full(
    mean: list[float], tril: list[list[float]], label: str = "", squashed: bool = False
) -> Case:
    make = policies.TanhFullGaussian if squashed else policies.FullGaussian
    return Case(make, torch.tensor(mean), torch.tensor(tril), squashed, label)


def by_hand(subject: Subject) -> list[Check]:
    """The density as it stands in textbooks, and torch.distributions, in float64."""
    case = subject.case
    action = subject.draws.action.double()
    mean, tril = case.mean.double(), case.tril
    log_prob = case.log_prob(action, action)
    std = tril.square().sum(-1).sqrt()
    z = (action - mean) / std
    if len(mean) == 1:
        formula = torch.exp(-(z[:, 0] ** 2) / 2) / (std * TWO_PI**0.5)
        oracle: Any = Normal(mean[0], std[0]).log_prob(action[:, 0])
    else:
        rho = tril[1, 0] / std[1]
        square = z[:, 0] ** 2 - 2 * rho * z[:, 0] * z[:, 1] + z[:, 1] ** 2
        area = TWO_PI * std[0] * std[1] * (1 - rho**2).sqrt()
        formula = torch.exp(-square / (2 * (1 - rho**2))) / area
        oracle = MultivariateNormal(mean, scale_tril=tril).log_prob(action)
    hand = relative_error(log_prob.exp() / formula, torch.ones_like(formula))
    return [
        subject.at_most("exp(log_prob) / the density by hand - 1", hand, 1e-11),
        subject.at_most("log_prob - torch.distributions", relative_error(log_prob, oracle), 1e-11),
    ]


TWO_PI = 2 * torch.pi
GAUSSIAN: Controls = {
    "sigma_for_log_sigma": ("pit", "integral", "value", "terms"),
    "sum_forgotten": ("value",),  # (S, 1) in place of (S,): the same number in another shape
}
PLANE: Controls = {"sigma_for_log_sigma": ALL, "sum_forgotten": ALL}
SQUASHED: Controls = {
    "jacobian_added": ALL,
    "sigma_for_log_sigma": ALL,
    "epsilon": ("integral", "gradient"),  # too small for the draws to tell
    "tanh_twice": ALL,
    "sum_forgotten": ALL,
}

KINDS: dict[str, Kind] = {
    "normal": Kind(
        lambda s: [
            diagonal([s.mean], [s.std], f"N({s.mean:g}, {s.std:g})"),
            diagonal([0.0], [1.0], "N(0, 1)"),
        ],
        GAUSSIAN,
        by_hand,
    ),
    "multivariate_normal": Kind(
        lambda s: [
            diagonal(s.mean, s.std, "diagonal"),
            full(s.mean, s.scale_tril, "full"),
        ],
        PLANE,
        by_hand,
        covariance=True,
    ),
    "normal_log_prob": Kind(lambda s: [diagonal([s.mean], [s.std])], GAUSSIAN),
    "tanh_normal": Kind(
        lambda s: [diagonal([s.mean], [s.std], squashed=True)],
        SQUASHED
        | {"epsilon": ("integral", "value", "gradient", "terms"), "sum_forgotten": ("value",)},
    ),
    "diagonal_log_prob": Kind(lambda s: [diagonal(s.mean, s.std)], PLANE),
    "tanh_diagonal": Kind(lambda s: [diagonal(s.mean, s.std, squashed=True)], SQUASHED),
    "tanh_full": Kind(lambda s: [full(s.mean, s.scale_tril, squashed=True)], SQUASHED),
}
