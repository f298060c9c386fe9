"""The sections that have a continuous density: draws, integral, value, gradient; right or wrong."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import policies
from audit.chance import bartlett, ks_p_value, ks_statistic
from audit.checks import Grid, line_pit
from audit.support import Support, support_between
from common.seeding import stream
from tools.gallery import reference
from tools.gallery.controls import WRONG
from tools.gallery.report import Check, rejection
from tools.gallery.sections import Section, joint, kind, relative_error, vector_error
from tools.gallery.settings import TABLES

RAREST = 1e-6  # a smaller p-value is a failure; 30 tests: 3 false alarms in 100,000 galleries
INTEGRAL = 1e-6
INVERTIBLE = 7.0  # |u|; beyond, a float32 action hardly determines the u it is the tanh of
REFERENCES = 64  # draws that are held against 50 digits
VALUE = {torch.float32: 1e-5, torch.float64: 1e-12}
GRADIENT = {torch.float32: 2e-5, torch.float64: 1e-11}
TWO_PI = 2 * torch.pi


@dataclass(frozen=True)
class Case:
    """A continuous policy for one state."""

    policy: type[policies.Gaussian]
    mean: Tensor  # (A,) float32
    scale: Tensor  # log_std (A,) or scale_tril (A, A), float32
    label: str = ""  # among the cases of a section
    mistake: str = ""  # one of `controls.WRONG`

    def make(self, mean: Tensor, scale: Tensor) -> Any:
        """The policy, or a wrong formula of it."""
        if self.mistake:
            return WRONG[self.mistake](mean, scale, squashed=self.policy.squashed)
        return self.policy(mean, scale)

    @cached_property
    def tril(self) -> Tensor:
        """Cholesky factor of the covariance of the latent, (A, A) float64."""
        scale = self.scale.double()
        return scale if self.policy.correlated else torch.diag(scale.exp())

    def parameters(self, count: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """Mean and scale for `count` draws, a leaf each, so that gradients come per draw."""
        expanded = [p.to(dtype).expand(count, *p.shape) for p in (self.mean, self.scale)]
        return [p.clone().requires_grad_() for p in expanded]

    def slopes(self, found: Tensor, parameters: list[Tensor]) -> list[Tensor]:
        """Of the sum of `found`, by the mean and by the scale."""
        by_mean, by_scale = torch.autograd.grad(
            found.sum(), parameters, allow_unused=True, materialize_grads=True
        )
        return [by_mean, by_scale.tril() if self.policy.correlated else by_scale]

    def log_prob(self, action: Tensor, latent: Tensor | None = None) -> Tensor:
        """Joint log-density in float64; the parameters broadcast over the leading dimensions."""
        policy = self.make(self.mean.double(), self.scale.double())
        return joint(policy.log_prob(action, latent), action.shape[:-1])

    def squash(self, latent: Tensor) -> Tensor:
        return torch.tanh(latent) if self.policy.squashed else latent

    @property
    def support(self) -> Support:
        return support_between(len(self.mean), 1.0 if self.policy.squashed else math.inf)

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
    def digits(self) -> tuple[list[float], list[list[Any]]]:
        """Mean and Cholesky factor, to 50 digits."""
        scale, mp = self.scale.tolist(), reference.mp
        if not self.policy.correlated:
            scale = mp.diag([mp.exp(log_std) for log_std in scale]).tolist()
        return self.mean.tolist(), scale

    def exact(self, score: reference.Score) -> list[Tensor]:
        """[value (*,), slopes by the mean (*, A), by the scale (*, A[, A])] of a score."""
        value, by_mean, by_scale = map(reference.tensor, score)
        if self.policy.correlated:
            return [value, by_mean, by_scale.tril()]
        # d L_ii / d log_std_i = L_ii
        return [value, by_mean, by_scale.diagonal(dim1=-2, dim2=-1) * self.tril.diagonal()]


@dataclass(eq=False)
class Subject:
    """A case in a section of the gallery, with draws, (S, A) each, and what is exact of them."""

    section: str
    case: Case
    noise: Tensor
    action: Tensor
    latent: Tensor

    @cached_property
    def exact(self) -> list[list[Tensor]]:
        """[of log_prob at the latents, of log_pi from the noise], for the first draws."""
        (mean, tril), squashed = self.case.digits, self.case.policy.squashed
        scored = ((reference.log_prob, self.latent), (reference.log_pi, self.noise))
        return [
            self.case.exact(score(mean, tril, draws[:REFERENCES].tolist(), squashed))
            for score, draws in scored
        ]

    def check(self, text: str, figure: float, bound: float, relation: str = "<=") -> Check:
        name = f"{self.case.label}: {text}" if self.case.label else text
        return Check(self.section, name, figure, bound, relation)

    def p_value(self, text: str, figure: float) -> Check:
        return self.check(f"{text}, p-value", figure, RAREST, ">=")

    def gone_wrong(self, mistake: str) -> "Subject":
        """The same draws, scored by a wrong formula."""
        return replace(self, case=replace(self.case, mistake=mistake))


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


def of_chance(subject: Subject) -> Iterator[Check]:
    """All rows that depend on chance."""
    yield from pit(subject)
    if subject.section == "multivariate_normal":
        p_value = bartlett(subject.case.whitened(subject.latent))
        yield subject.p_value("sample covariance, Bartlett's decomposition", p_value)


def integral(subject: Subject) -> Iterator[Check]:
    """Is it a density?"""
    error = abs(subject.case.grid.integral - 1)
    yield subject.check("integral over the actions - 1", error, INTEGRAL)


def value_and_gradient(subject: Subject, dtype: torch.dtype = torch.float32) -> list[Check]:
    """[of the value, of the gradient] in one float type, largest over log_prob and log_pi."""
    case, count = subject.case, len(subject.exact[0][0])
    latent, noise = (draws[:count].to(dtype) for draws in (subject.latent, subject.noise))
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
        of_gradient.append(vector_error(case.slopes(one_each, parameters), gradient))
    name = f"against 50 digits, {kind(dtype)}"
    return [
        subject.check(f"log_prob and log_pi {name}", max(of_value), VALUE[dtype]),
        subject.check(f"their gradients {name}", max(of_gradient), GRADIENT[dtype]),
    ]


def terms(subject: Subject, dtype: torch.dtype = torch.float32) -> Iterator[Check]:
    """[each term of log_pi to 50 digits, their sum against log_pi] in one float type."""
    case, noise = subject.case, subject.noise[:REFERENCES].to(dtype)
    policy, (mean, tril) = case.make(*case.parameters(len(noise), dtype)), case.digits
    found, log_pi = policy.terms(noise), policy.rsample_with_log_prob(noise)[1]
    all_terms = torch.stack(list(found.values()))
    sizes = all_terms.abs().sum((0, -1)).clamp_min(1.0)
    off = (all_terms.sum((0, -1)) - joint(log_pi, sizes.shape)) / sizes
    drawn = subject.noise[:REFERENCES].tolist()
    latent = reference.latent_of(mean, tril, drawn)
    exact = reference.terms(tril, drawn, latent, case.policy.squashed)
    of_each = [
        relative_error(found[name], reference.tensor(part)) if name in found else math.inf
        for name, part in exact.items()
    ]
    each = f"each of the terms of log_pi against 50 digits, {kind(dtype)}"
    total = f"(sum of the terms - log_pi) / their sizes, {kind(dtype)}"
    yield subject.check(each, max(of_each), VALUE[dtype])
    yield subject.check(total, relative_error(off, torch.zeros(len(off))), VALUE[dtype])


def without_latent(subject: Subject) -> Iterator[Check]:
    """`log_prob` of the action alone, where float32 determines u: |u| <= 7.

    An action that is off by eps gives a u that is off by d = eps cosh(u)^2, and that a log-density
    that is off by (|its slope by u| + 2) d + (d / std)^2 / 2.
    """
    case, latent = subject.case, subject.latent[:REFERENCES]
    inside = (latent.abs() <= INVERTIBLE).all(-1)
    if not case.policy.squashed or not bool(inside.any()):
        return
    policy = case.make(*case.parameters(len(latent)))
    found = joint(policy.log_prob(case.squash(latent)), inside.shape).detach()
    value, by_mean, _ = subject.exact[0]
    lost = torch.finfo(torch.float32).eps * latent.double().cosh().square()
    curved = (lost @ torch.linalg.inv(case.tril).abs().T).square().sum(-1) / 2
    bound = (lost * (by_mean.abs() + 2)).sum(-1) + curved + VALUE[torch.float32] * value.abs()
    ratio = (found.double() - value).abs() / bound
    name = f"log_prob without latent to |u| = {INVERTIBLE:g}, float32: error / what the action lost"
    yield subject.check(name, float(ratio[inside].max()), 1.0)


def by_hand(subject: Subject) -> Iterator[Check]:
    """The density as it stands in textbooks, and torch.distributions, in float64."""
    action, mean, tril = subject.action.double(), subject.case.mean.double(), subject.case.tril
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


def exact_rows(subject: Subject) -> Iterator[Check]:
    """All that does not depend on chance, in both float types, and the action itself."""
    yield from integral(subject)
    for dtype in VALUE:
        yield from value_and_gradient(subject, dtype)
        yield from terms(subject, dtype)
    yield from without_latent(subject)
    if subject.case.policy.squashed:
        error = relative_error(subject.action, torch.tanh(subject.latent.double()))
        yield subject.check("action - tanh(latent)", error, 3e-7)
    if subject.section in ("normal", "multivariate_normal"):
        yield from by_hand(subject)


TESTS: dict[str, Callable[[Subject], Iterable[Check]]] = {
    "pit": pit,
    "integral": integral,
    "value": lambda subject: value_and_gradient(subject)[:1],
    "gradient": lambda subject: value_and_gradient(subject)[1:],
    "terms": terms,
}


def control(subject: Subject, mistake: str, expected: list[str]) -> Check:
    """A wrong formula, which every check named in `expected` must reject."""
    wrong = subject.gone_wrong(mistake)
    rejecting = [test for test in expected if not all(row.passed for row in TESTS[test](wrong))]
    return rejection(subject.section, mistake, expected, rejecting, subject.case.label)


class DensitySection(Section):
    """The checks of one section on its cases; drawing with another seed costs no new grid."""

    def __init__(self, name: str, settings: Any) -> None:
        super().__init__(name, settings)
        self.cases = CASES[name](settings)

    def subjects(self, seed: int) -> Iterator[Subject]:
        for case in self.cases:
            policy = case.make(*case.parameters(self.settings.samples))
            noise = policy.noise(stream(seed, f"{self.name}/{case.label}"))
            yield Subject(self.name, case, noise, *policy.sample(noise))

    def drawn(self, seed: int) -> Iterator[Check]:
        for subject in self.subjects(seed):
            yield from of_chance(subject)

    def own(self, seed: int) -> Iterator[Check]:
        for subject in self.subjects(seed):
            yield from of_chance(subject)
            yield from exact_rows(subject)

    def controls(self, seed: int) -> Iterator[Check]:
        for subject in self.subjects(seed):
            form = "tanh" if subject.case.policy.squashed else "gaussian"
            expected = TABLES["controls"][f"{form} {len(subject.case.mean)}"]
            yield from (control(subject, mistake, expected[mistake]) for mistake in expected)


def case(
    policy: type[policies.Gaussian], mean: list[float], scale: list[Any], label: str = ""
) -> Case:
    """A case, where covariance is diagonal by the standard deviations."""
    given = torch.tensor(scale, dtype=torch.float64)
    own = given if policy.correlated else given.log()
    return Case(policy, torch.tensor(mean), own.float(), label)


CASES: dict[str, Callable[[Any], list[Case]]] = {
    "normal": lambda s: [
        case(policies.Gaussian, [s.mean], [s.std], f"N({s.mean:g}, {s.std:g})"),
        case(policies.Gaussian, [0.0], [1.0], "N(0, 1)"),
    ],
    "multivariate_normal": lambda s: [
        case(policies.Gaussian, s.mean, s.std, "diagonal"),
        case(policies.FullGaussian, s.mean, s.scale_tril, "full"),
    ],
    "normal_log_prob": lambda s: [case(policies.Gaussian, [s.mean], [s.std])],
    "tanh_normal": lambda s: [case(policies.TanhGaussian, [s.mean], [s.std])],
    "diagonal_log_prob": lambda s: [case(policies.Gaussian, s.mean, s.std)],
    "tanh_diagonal": lambda s: [case(policies.TanhGaussian, s.mean, s.std)],
    "tanh_full": lambda s: [case(policies.TanhFullGaussian, s.mean, s.scale_tril)],
    "entropy": lambda s: [
        case(policies.Gaussian, s.mean, s.std, "Gaussian"),
        case(policies.TanhGaussian, s.mean, s.std, "TanhGaussian"),
        case(policies.FullGaussian, s.mean, s.scale_tril, "FullGaussian"),
        case(policies.TanhFullGaussian, s.mean, s.scale_tril, "TanhFullGaussian"),
    ],
}
