"""The section on entropies: quadrature against draws, integral and 50 digits."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

import policies
from common.seeding import stream
from tools.gallery import reference
from tools.gallery.controls import WRONG
from tools.gallery.densities import (
    RAREST,
    control_row,
    diagonal,
    exact_parameters,
    full,
    to_tensors,
)
from tools.gallery.report import Check, Section, at_least
from tools.gallery.settings import SECTIONS
from tools.gallery.statistics import Case, Grid, joint, kind, normal_p_value, relative_error

BOUND = {torch.float32: 1e-5, torch.float64: 1e-6}  # of value and gradient, up to std 3
EXPECTED = ("draws", "integral")


class Estimate(NamedTuple):
    """The mean of -log pi over draws, and its standard error."""

    mean: float
    standard_error: float

    def p_value(self, entropy: float) -> float:
        return normal_p_value((self.mean - entropy) / self.standard_error)


def estimate(log_pi: Tensor) -> Estimate:
    values = -log_pi.detach().double()
    variance = float(values.var()) / len(values) + 1e-12  # float32 where all draws are alike
    return Estimate(float(values.mean()), math.sqrt(variance))


class Entropy(Section):
    """Five policies; the discrete one has neither noise that is scored nor an integral."""

    def cases(self) -> list[Case]:
        given = self.settings
        return [
            diagonal(given.mean, given.std, "Gaussian"),
            diagonal(given.mean, given.std, "TanhGaussian", squashed=True),
            full(given.mean, given.scale_tril, "FullGaussian"),
            full(given.mean, given.scale_tril, "TanhFullGaussian", squashed=True),
        ]

    def of_draws(self, case: Case, seed: int) -> Estimate:
        """-log pi of fresh draws; `case` may be a wrong formula."""
        count = self.settings.samples
        generator = stream(seed, f"{self.name}/{case.label}")
        noise = torch.empty(count, len(case.mean)).normal_(generator=generator)
        scale = case.scale.expand(count, *case.scale.shape)
        log_pi = case.make(case.mean.expand(count, -1), scale).rsample_with_log_prob(noise)[1]
        return estimate(joint(log_pi, noise.shape[:1]))

    def categorical(self, seed: int) -> tuple[policies.Categorical, Estimate]:
        probs = torch.tensor(self.settings.probs).expand(self.settings.samples, -1)
        policy = policies.Categorical(probs.log())
        action, _ = policy.sample(policy.noise(stream(seed, f"{self.name}/Categorical")))
        return policy, estimate(policy.log_prob(action))

    def all(self, seed: int) -> Iterator[tuple[str, float, Estimate]]:
        """(label, entropy, estimate) of every policy."""
        for case in self.cases():
            yield case.label, entropy(case), self.of_draws(case, seed)
        policy, found = self.categorical(seed)
        yield "Categorical", float(policy.entropy()[0]), found

    def drawn(self, seed: int) -> list[Check]:
        text = f"entropy against -log_pi of {self.settings.samples:,} draws, p-value"
        return [
            at_least(self.name, f"{label}: {text}", found.p_value(value), RAREST)
            for label, value, found in self.all(seed)
        ]

    def own(self, seed: int) -> list[Check]:
        rows = self.drawn(seed)
        for case in self.cases():
            error = abs(entropy(case, torch.float64) - Grid(case).entropy)
            rows.append(self.row(f"{case.label}: against the integral of -p log p", error, 1e-6))
            rows += self.against_digits(case)
        return [*rows, self.categorical_against_digits()]

    def controls(self, seed: int) -> list[Check]:
        default = Entropy(self.name, SECTIONS[self.name]())
        return [row for case in default.cases() for row in default.controls_of(case, seed)]

    def against_digits(self, case: Case) -> Iterator[Check]:
        """Value and gradient in both float types."""
        exact = to_tensors(case, [reference.entropy(*exact_parameters(case), case.squashed)])
        for dtype, bound in BOUND.items():
            parameters = case.parameters(1, dtype)
            found = case.make(*parameters).entropy()
            by_mean, by_scale = torch.autograd.grad(
                found.sum(), parameters, allow_unused=True, materialize_grads=True
            )
            pairs = (
                (found, exact.value),
                (by_mean, exact.by_mean),
                (by_scale.tril() if case.full else by_scale, exact.by_scale),
            )
            error = max(relative_error(*pair) for pair in pairs)
            name = f"{case.label}: value and gradient against 50 digits, {kind(dtype)}"
            yield self.row(name, error, bound)

    def categorical_against_digits(self) -> Check:
        logits = torch.tensor(self.settings.probs).log().requires_grad_()
        found = policies.Categorical(torch.log_softmax(logits, -1)).entropy()
        (slope,) = torch.autograd.grad(found, logits)
        log_p, p = reference.log_softmax(logits.tolist())
        value = -sum(a * b for a, b in zip(p, log_p, strict=True))
        slopes = [float(-a * (b + value)) for a, b in zip(p, log_p, strict=True)]
        error = max(relative_error(found, [float(value)]), relative_error(slope, slopes))
        return self.row("Categorical: value and gradient against 50 digits, float32", error, 1e-6)

    def controls_of(self, case: Case, seed: int) -> Iterator[Check]:
        """Wrong formulas of log_pi, and the entropy of u in place of that of the action."""
        mistakes = ["sigma_for_log_sigma", "sum_forgotten"]
        mistakes += ["jacobian_added", "tanh_twice"] if case.squashed else []
        for mistake in mistakes:
            make = partial(WRONG[mistake], squashed=case.squashed)
            yield self.control(mistake, replace(case, make=make), entropy(case), seed)
        if case.squashed:
            base = policies.FullGaussian if case.full else policies.Gaussian
            of_u = entropy(replace(case, make=base))
            yield self.control("entropy_of_u", case, of_u, seed)

    def control(self, mistake: str, case: Case, value: float, seed: int) -> Check:
        rejected = {
            "draws": self.of_draws(case, seed).p_value(value) < RAREST,
            "integral": not abs(Grid(case).entropy - value) <= BOUND[torch.float32],
        }
        rejecting = [test for test in EXPECTED if rejected[test]]
        return control_row(self.name, f"{case.label}: ", mistake, EXPECTED, rejecting)


def entropy(case: Case, dtype: torch.dtype = torch.float32) -> float:
    """The policy's own, one number."""
    found = case.make(case.mean.to(dtype), case.scale.to(dtype)).entropy()
    return float(joint(found.detach(), torch.Size([])))
