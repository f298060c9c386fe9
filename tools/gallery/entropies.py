"""The section on entropies: quadrature against draws, integral and 50 digits."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

import policies
from common.seeding import stream
from tools.gallery import reference
from tools.gallery.densities import RAREST, DensitySection, Subject, slopes, to_tensors
from tools.gallery.report import Check, rejection
from tools.gallery.settings import SECTIONS
from tools.gallery.statistics import Case, joint, kind, normal_p_value, relative_error

BOUND = {torch.float32: 1e-5, torch.float64: 1e-6}  # of value and gradient, up to std 3


class Estimate(NamedTuple):
    """The entropy of a policy, and the mean of -log pi over draws with its standard error."""

    label: str
    entropy: float
    mean: float
    standard_error: float

    @property
    def p_value(self) -> float:
        return normal_p_value((self.mean - self.entropy) / self.standard_error)


def estimate(label: str, entropy: float, log_pi: Tensor) -> Estimate:
    values = -log_pi.detach().double()
    variance = float(values.var()) / len(values) + 1e-12  # float32 where all draws are alike
    return Estimate(label, entropy, float(values.mean()), math.sqrt(variance))


def of_draws(subject: Subject, entropy: float) -> Estimate:
    """-log pi of the draws, of which the policy may be a wrong formula."""
    noise = subject.noise
    log_pi = subject.case.policy(len(noise)).rsample_with_log_prob(noise)[1]
    return estimate(subject.case.label, entropy, joint(log_pi, noise.shape[:1]))


def entropy(case: Case, dtype: torch.dtype = torch.float32) -> float:
    """The policy's own, one number."""
    found = case.make(case.mean.to(dtype), case.scale.to(dtype)).entropy()
    return float(joint(found.detach(), torch.Size([])))


class Entropy(DensitySection):
    """Five policies; the discrete one has neither noise that is scored nor an integral."""

    def estimates(self, seed: int) -> Iterator[Estimate]:
        for subject in self.subjects(seed):
            yield of_draws(subject, entropy(subject.case))
        probs = torch.tensor(self.settings.probs).expand(self.settings.samples, -1)
        policy = policies.Categorical(probs.log())
        action, _ = policy.sample(policy.noise(stream(seed, f"{self.name}/Categorical")))
        yield estimate("Categorical", float(policy.entropy()[0]), policy.log_prob(action))

    def drawn(self, seed: int) -> Iterator[Check]:
        text = f"entropy against -log_pi of {self.settings.samples:,} draws, p-value"
        for found in self.estimates(seed):
            yield Check(self.name, f"{found.label}: {text}", found.p_value, RAREST, ">=")

    def own(self, seed: int) -> Iterator[Check]:
        yield from self.drawn(seed)
        for case in self.cases:
            error = abs(entropy(case, torch.float64) - case.grid.entropy)
            yield self.row(f"{case.label}: against the integral of -p log p", error, 1e-6)
            yield from self.against_digits(case)
        yield self.categorical_against_digits()

    def against_digits(self, case: Case) -> Iterator[Check]:
        """Value and gradient in both float types."""
        exact = to_tensors(case, [reference.entropy(*case.exact, case.squashed)])
        for dtype, bound in BOUND.items():
            parameters = case.parameters(1, dtype)
            found = case.make(*parameters).entropy()
            pairs = zip([found, *slopes(case, found, parameters)], exact, strict=True)
            error = max(relative_error(*pair) for pair in pairs)
            name = f"{case.label}: value and gradient against 50 digits, {kind(dtype)}"
            yield self.row(name, error, bound)

    def categorical_against_digits(self) -> Check:
        logits = torch.tensor(self.settings.probs).log().requires_grad_()
        found = policies.Categorical(torch.log_softmax(logits, -1)).entropy()
        (slope,) = torch.autograd.grad(found, logits)
        log_p, p = reference.log_softmax(logits.tolist())
        value = -sum(a * b for a, b in zip(p, log_p, strict=True))
        by_logits = [float(-a * (b + value)) for a, b in zip(p, log_p, strict=True)]
        error = max(relative_error(found, [float(value)]), relative_error(slope, by_logits))
        return self.row("Categorical: value and gradient against 50 digits, float32", error, 1e-6)

    def controls(self, seed: int) -> Iterator[Check]:
        """Wrong formulas of log_pi, and the entropy of u in place of that of the action."""
        for subject in Entropy(self.name, SECTIONS[self.name]()).subjects(seed):
            case, right = subject.case, entropy(subject.case)
            mistakes = ["sigma_for_log_sigma", "sum_forgotten"]
            mistakes += ["jacobian_added", "tanh_twice"] if case.squashed else []
            for mistake in mistakes:
                yield self.control(mistake, subject.gone_wrong(mistake), right)
            if case.squashed:
                base = policies.FullGaussian if case.full else policies.Gaussian
                yield self.control("entropy_of_u", subject, entropy(replace(case, make=base)))

    def control(self, mistake: str, subject: Subject, value: float) -> Check:
        rejected = {
            "draws": of_draws(subject, value).p_value < RAREST,
            "integral": not abs(subject.case.grid.entropy - value) <= BOUND[torch.float32],
        }
        rejecting = [test for test in rejected if rejected[test]]
        return rejection(self.name, mistake, [*rejected], rejecting, subject.case.label)
