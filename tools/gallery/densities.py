"""The sections that have a continuous density: draws, integral, value, gradient; right or wrong."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import policies
from audit.chance import bartlett, ks_p_value, ks_statistic
from audit.checks import line_pit
from common.seeding import stream
from tools.gallery import reference
from tools.gallery.controls import WRONG
from tools.gallery.report import Check, Section, rejection
from tools.gallery.settings import SECTIONS
from tools.gallery.statistics import Case, joint, kind, relative_error, vector_error

RAREST = 1e-6  # a smaller p-value is a failure; 30 tests: 3 false alarms in 100,000 galleries
INTEGRAL = 1e-6
INVERTIBLE = 7.0  # |u|; beyond, a float32 action hardly determines the u it is the tanh of
REFERENCES = 64  # draws that are held against 50 digits
VALUE = {torch.float32: 1e-5, torch.float64: 1e-12}
GRADIENT = {torch.float32: 2e-5, torch.float64: 1e-11}
TWO_PI = 2 * torch.pi
Exact = tuple[Tensor, Tensor, Tensor]  # value (R,), slopes by mean (R, A), by scale (R, A[, A])


@dataclass(eq=False)
class Subject:
    """A case in a section of the gallery, with draws, (S, A) each, and what is exact of them."""

    section: str
    case: Case
    noise: Tensor
    action: Tensor
    latent: Tensor

    @cached_property
    def exact(self) -> list[Exact]:
        """[of log_prob at the latents, of log_pi from the noise], for the first draws."""
        scored = ((reference.log_prob, self.latent), (reference.log_pi, self.noise))
        exact = []
        for score, points in scored:
            first = points[:REFERENCES].tolist()
            rows = [score(*self.case.exact, point, self.case.squashed) for point in first]
            exact.append(to_tensors(self.case, rows))
        return exact

    def check(self, text: str, figure: float, bound: float, relation: str = "<=") -> Check:
        name = f"{self.case.label}: {text}" if self.case.label else text
        return Check(self.section, name, figure, bound, relation)

    def p_value(self, text: str, figure: float) -> Check:
        return self.check(f"{text}, p-value", figure, RAREST, ">=")

    def gone_wrong(self, mistake: str) -> "Subject":
        """The same draws, scored by a wrong formula."""
        make = partial(WRONG[mistake], squashed=self.case.squashed)
        return replace(self, case=replace(self.case, make=make))


def to_tensors(case: Case, rows: list[reference.Score]) -> Exact:
    value, by_mean, by_scale = map(reference.tensor, zip(*rows, strict=True))
    if case.full:
        return value, by_mean, by_scale.tril()
    # d L_ii / d log_std_i = L_ii
    return value, by_mean, by_scale.diagonal(dim1=-2, dim2=-1) * case.tril.diagonal()


def slopes(case: Case, found: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """Of the sum of `found`, by the mean and by the scale."""
    by_mean, by_scale = torch.autograd.grad(
        found.sum(), parameters, allow_unused=True, materialize_grads=True
    )
    return [by_mean, by_scale.tril() if case.full else by_scale]


def pit(subject: Subject) -> Iterator[Check]:
    """Do the draws follow the integral of the density?"""
    case, latent = subject.case, subject.latent
    found = {"": case.grid.pit(latent)}
    if len(case.mean) > 1:  # each component given those before it: the transform of Rosenblatt
        second = line_pit(case.density, latent, 1)
        found = {" of the first component": found[""], " of the second given the first": second}
    for which, z in found.items():
        p_value = ks_p_value(ks_statistic(z), len(z))
        yield subject.p_value(f"KS of {len(z):,} draws{which}", p_value)


def covariance(subject: Subject) -> Iterator[Check]:
    p_value = bartlett(subject.case.whitened(subject.latent))
    yield subject.p_value("sample covariance, Bartlett's decomposition", p_value)


def integral(subject: Subject) -> Iterator[Check]:
    """Is it a density?"""
    error = abs(subject.case.grid.integral - 1)
    yield subject.check("integral over the actions - 1", error, INTEGRAL)


def error_rows(subject: Subject, dtype: torch.dtype) -> list[Check]:
    """[of the value, of the gradient] in one float type, largest over log_prob and log_pi."""
    case, count = subject.case, len(subject.exact[0][0])
    latent = subject.latent[:count].to(dtype)
    noise = subject.noise[:count].to(dtype)
    of_value, of_gradient = [], []
    for (value, *gradient), own in zip(subject.exact, (False, True), strict=True):
        parameters = case.parameters(count, dtype)
        policy = case.make(*parameters)
        if own:
            found = policy.rsample_with_log_prob(noise)[1]
        else:
            found = policy.log_prob(case.squash(latent), latent)
        right_shape = found.shape == (count,) and found.dtype == dtype
        of_value.append(relative_error(found, value) if right_shape else math.inf)
        one_each = joint(found, torch.Size([count]))
        of_gradient.append(vector_error(slopes(case, one_each, parameters), gradient))
    name = f"against 50 digits, {kind(dtype)}"
    return [
        subject.check(f"log_prob and log_pi {name}", max(of_value), VALUE[dtype]),
        subject.check(f"their gradients {name}", max(of_gradient), GRADIENT[dtype]),
    ]


def terms(subject: Subject, dtype: torch.dtype = torch.float32) -> Iterator[Check]:
    """[each term of log_pi to 50 digits, their sum against log_pi] in one float type."""
    case, noise = subject.case, subject.noise[:REFERENCES].to(dtype)
    policy = case.make(*case.parameters(len(noise), dtype))
    found, log_pi = policy.terms(noise), policy.rsample_with_log_prob(noise)[1]
    all_terms = torch.stack(list(found.values()))
    sizes = all_terms.abs().sum((0, -1)).clamp_min(1.0)
    off = (all_terms.sum((0, -1)) - joint(log_pi, sizes.shape)) / sizes
    mean, tril = case.exact
    exact = [
        reference.terms(tril, e, reference.latent_of(mean, tril, e), case.squashed)
        for e in subject.noise[:REFERENCES].tolist()
    ]
    error = max(
        relative_error(found[name], reference.tensor([row[name] for row in exact]))
        if name in found
        else math.inf
        for name in exact[0]
    )
    each = f"each of the terms of log_pi against 50 digits, {kind(dtype)}"
    total = f"(sum of the terms - log_pi) / their sizes, {kind(dtype)}"
    yield subject.check(each, error, VALUE[dtype])
    yield subject.check(total, relative_error(off, torch.zeros(len(off))), VALUE[dtype])


def without_latent(subject: Subject) -> Iterator[Check]:
    """`log_prob` of the action alone, where float32 determines u: |u| <= 7.

    An action that is off by eps gives a u that is off by d = eps cosh(u)^2, and that a log-density
    that is off by (|its slope by u| + 2) d + (d / std)^2 / 2.
    """
    case, latent = subject.case, subject.latent[:REFERENCES]
    inside = (latent.abs() <= INVERTIBLE).all(-1)
    if not case.squashed or not bool(inside.any()):
        return
    policy = case.make(*(p.detach() for p in case.parameters(len(latent), torch.float32)))
    found = joint(policy.log_prob(case.squash(latent)), inside.shape)
    value, by_mean, _ = subject.exact[0]
    lost = torch.finfo(torch.float32).eps * latent.double().cosh().square()
    curved = (lost @ torch.linalg.inv(case.tril).abs().T).square().sum(-1) / 2
    bound = (lost * (by_mean.abs() + 2)).sum(-1) + curved + VALUE[torch.float32] * value.abs()
    ratio = (found.double() - value).abs() / bound
    name = f"log_prob without latent to |u| = {INVERTIBLE:g}, float32: error / what the action lost"
    yield subject.check(name, float(ratio[inside].max()), 1.0)


def exact_rows(subject: Subject) -> Iterator[Check]:
    """All that does not depend on chance, in both float types, and the action itself."""
    yield from integral(subject)
    for dtype in VALUE:
        yield from error_rows(subject, dtype)
        yield from terms(subject, dtype)
    yield from without_latent(subject)
    if subject.case.squashed:
        error = relative_error(subject.action, torch.tanh(subject.latent.double()))
        yield subject.check("action - tanh(latent)", error, 3e-7)


def by_hand(subject: Subject) -> Iterator[Check]:
    """The density as it stands in textbooks, and torch.distributions, in float64."""
    action, mean, tril = (
        subject.action.double(),
        subject.case.mean.double(),
        subject.case.tril,
    )
    log_prob = subject.case.log_prob(action, action)
    std = tril.square().sum(-1).sqrt()
    z = (action - mean) / std
    if len(mean) == 1:
        formula = torch.exp(-(z[:, 0] ** 2) / 2) / (std * TWO_PI**0.5)
    else:
        rho = tril[1, 0] / std[1]
        square = z[:, 0] ** 2 - 2 * rho * z[:, 0] * z[:, 1] + z[:, 1] ** 2
        area = TWO_PI * std[0] * std[1] * (1 - rho**2).sqrt()
        formula = torch.exp(-square / (2 * (1 - rho**2))) / area
    hand = relative_error(log_prob.exp() / formula, torch.ones_like(formula))
    other = relative_error(log_prob, MultivariateNormal(mean, scale_tril=tril).log_prob(action))
    yield subject.check("exp(log_prob) / the density by hand - 1", hand, 1e-11)
    yield subject.check("log_prob - torch.distributions", other, 1e-11)


Test = Callable[[Subject], Iterable[Check]]
TESTS: dict[str, Test] = {
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
    return rejection(subject.section, mistake, expected, rejecting, subject.case.label)


@dataclass(frozen=True)
class Kind:
    """A section: its cases, the checks that must reject each mistake, and its rows."""

    cases: Callable[[Any], list[Case]]
    controls: dict[str, tuple[str, ...]]  # wrong formula -> the checks that must reject it
    of_chance: tuple[Test, ...] = (pit,)
    exact: tuple[Test, ...] = (exact_rows,)


class DensitySection(Section):
    """The checks of one section on its cases; drawing with another seed costs no new grid."""

    def __init__(self, name: str, settings: Any) -> None:
        super().__init__(name, settings)
        self.kind = KINDS[name]
        self.cases = self.kind.cases(settings)

    def subjects(self, seed: int) -> Iterator[Subject]:
        for case in self.cases:
            policy = case.policy(self.settings.samples)
            noise = policy.noise(stream(seed, f"{self.name}/{case.label}"))
            yield Subject(self.name, case, noise, *policy.sample(noise))

    def rows(self, seed: int, *tests: Test) -> Iterator[Check]:
        return (row for subject in self.subjects(seed) for test in tests for row in test(subject))

    def drawn(self, seed: int) -> Iterator[Check]:
        return self.rows(seed, *self.kind.of_chance)

    def own(self, seed: int) -> Iterator[Check]:
        return self.rows(seed, *self.kind.of_chance, *self.kind.exact)

    def controls(self, seed: int) -> Iterator[Check]:
        for subject in DensitySection(self.name, SECTIONS[self.name]()).subjects(seed):
            for mistake, expected in self.kind.controls.items():
                yield control(subject, mistake, expected)


def diagonal(mean: list[float], std: list[float], label: str = "", squashed: bool = False) -> Case:
    make = policies.TanhGaussian if squashed else policies.Gaussian
    log_std = torch.tensor(std, dtype=torch.float64).log().float()
    return Case(make, torch.tensor(mean), log_std, squashed, label)


def full(
    mean: list[float], tril: list[list[float]], label: str = "", squashed: bool = False
) -> Case:
    make = policies.TanhFullGaussian if squashed else policies.FullGaussian
    return Case(make, torch.tensor(mean), torch.tensor(tril), squashed, label)


ALL = tuple(TESTS)
GAUSSIAN = {
    "sigma_for_log_sigma": ("pit", "integral", "value", "terms"),
    "sum_forgotten": ("value",),  # (S, 1) in place of (S,): the same number in another shape
}
PLANE = {"sigma_for_log_sigma": ALL, "sum_forgotten": ALL}
SQUASHED = {
    "jacobian_added": ALL,
    "sigma_for_log_sigma": ALL,
    "epsilon": ("integral", "gradient"),  # too small for the draws to tell
    "tanh_twice": ALL,
    "sum_forgotten": ALL,
}
SQUASHED_LINE = SQUASHED | {
    "epsilon": ("integral", "value", "gradient", "terms"),
    "sum_forgotten": ("value",),
}
KINDS: dict[str, Kind] = {
    "normal": Kind(
        lambda s: [
            diagonal([s.mean], [s.std], f"N({s.mean:g}, {s.std:g})"),
            diagonal([0.0], [1.0], "N(0, 1)"),
        ],
        GAUSSIAN,
        exact=(exact_rows, by_hand),
    ),
    "multivariate_normal": Kind(
        lambda s: [diagonal(s.mean, s.std, "diagonal"), full(s.mean, s.scale_tril, "full")],
        PLANE,
        of_chance=(pit, covariance),
        exact=(exact_rows, by_hand),
    ),
    "normal_log_prob": Kind(lambda s: [diagonal([s.mean], [s.std])], GAUSSIAN),
    "tanh_normal": Kind(
        lambda s: [diagonal([s.mean], [s.std], squashed=True)],
        SQUASHED_LINE,
    ),
    "diagonal_log_prob": Kind(lambda s: [diagonal(s.mean, s.std)], PLANE),
    "tanh_diagonal": Kind(lambda s: [diagonal(s.mean, s.std, squashed=True)], SQUASHED),
    "tanh_full": Kind(lambda s: [full(s.mean, s.scale_tril, squashed=True)], SQUASHED),
    "entropy": Kind(
        lambda s: [
            diagonal(s.mean, s.std, "Gaussian"),
            diagonal(s.mean, s.std, "TanhGaussian", squashed=True),
            full(s.mean, s.scale_tril, "FullGaussian"),
            full(s.mean, s.scale_tril, "TanhFullGaussian", squashed=True),
        ],
        {},
    ),
}
