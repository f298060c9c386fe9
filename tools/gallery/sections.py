"""The sections that have a continuous density: their policies, and which checks reject what."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.distributions import MultivariateNormal, Normal

import policies
from common.seeding import stream
from tools.gallery.densities import RAREST, Subject, control, exact_rows, pit
from tools.gallery.report import Check, Section, at_least, at_most
from tools.gallery.settings import SECTIONS
from tools.gallery.statistics import Case, Grid, bartlett_p_value, relative_error

ALL = ("pit", "integral", "value", "gradient", "terms")
Controls = dict[str, tuple[str, ...]]


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
    named = subject.name
    return [
        at_most(subject.section, named("exp(log_prob) / the density by hand - 1"), hand, 1e-11),
        at_most(subject.section, named("log_prob - torch.distributions"),
                relative_error(log_prob, oracle), 1e-11),
    ]  # fmt: skip


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
