"""The sections on functions (logarithms, softmax, masks, tanh with its inverse) and entropies."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import starmap
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

import policies
from audit.chance import chi2_p_value, normal_p_value
from common.seeding import stream
from networks.discrete import masked_log_softmax
from policies import gaussian
from policies.gaussian import HALF_LOG_2PI
from tools.gallery import controls, reference
from tools.gallery.densities import INVERTIBLE, RAREST, Case, DensitySection, Subject
from tools.gallery.report import Check, rejection
from tools.gallery.sections import Section, joint, kind, relative_error, relative_errors

Form = Callable[[Tensor], Tensor]
EPS = torch.finfo(torch.float32).eps
LAST = 0.5 * math.log((2 - EPS) / EPS)  # atanh(1 - eps), the clamp of `log_prob` without latent
LOST = 0.01  # error of an inverse that has lost u
MASKED = {torch.float16: 1e-3, torch.float32: 1e-6, torch.float64: 1e-14}
ENTROPY = {torch.float32: 1e-5, torch.float64: 1e-6}  # bounds of value and gradient, up to std 3


def with_slope(function: Form, points: Tensor) -> tuple[Tensor, Tensor]:
    """(f, f') at each point."""
    leaf = points.clone().requires_grad_()
    found = function(leaf)
    return found.detach(), torch.autograd.grad(found.sum(), leaf)[0]


def counts(log_probs: Tensor, count: int, noise: Tensor | torch.Generator) -> Tensor:
    """How often each action of the categorical policy was drawn, (K,)."""
    policy = policies.Categorical(log_probs.expand(count, -1))
    given = noise if isinstance(noise, Tensor) else policy.noise(noise)
    return torch.bincount(policy.sample(given)[0], minlength=len(log_probs))


class LogExp(Section):
    """exp(log X) = X: the relative error of exp is the absolute error of log X."""

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

    def own(self, seed: int) -> Iterator[Check]:
        for dtype in self.FLOATS:
            error = float(self.errors(dtype).max())
            yield self.row(f"exp(log X) / X - 1, {kind(dtype)}", error, self.bound(dtype))
            matrix = self.matrix(dtype)
            exact = reference.tensor(reference.log(matrix.tolist())), 1 / matrix.double()
            pairs = zip(with_slope(torch.log, matrix), exact, strict=True)
            name = f"log X and its slope against 50 digits, {kind(dtype)}"
            yield self.row(name, max(starmap(relative_error, pairs)), torch.finfo(dtype).eps)


class LogSoftmax(Section):
    """log_softmax, and the categorical policy that is made of it."""

    FORMS: ClassVar[dict[str, Callable[..., Any]]] = {
        "log_softmax": lambda logits: torch.log_softmax(logits, -1),
        "log(softmax)": controls.log_of_softmax,
    }
    FLOATS = (torch.float16, torch.float32)
    OF = " of the categorical"

    def logits(self) -> Tensor:
        """Rows of five logits, up to `size` from their middle."""
        scales = torch.logspace(0, math.log10(self.settings.size), 25, dtype=torch.float64)
        return scales.unsqueeze(-1) * torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]).double()

    def errors(self, form: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Of log p over max(1, |log p|), and of its gradient: the largest in each row of logits."""
        logits, function = self.logits().to(dtype), self.FORMS[form]
        jacobian = torch.func.vmap(torch.func.jacrev(function))(logits)  # (rows, class, logit)
        log_p, p = map(reference.tensor, reference.log_softmax(logits.tolist()))
        exact = torch.eye(5, dtype=torch.float64) - p.unsqueeze(1)  # d log_p_k / d z_j
        of_gradient = relative_errors(jacobian, exact).flatten(1)
        return relative_errors(function(logits), log_p).amax(1), of_gradient.amax(1)

    def log_probs(self) -> Tensor:
        """Those that are drawn from, (K,)."""
        return torch.tensor(self.settings.probs).log()

    def draws(self, seed: int) -> tuple[Tensor, Tensor]:
        """(how often each action was drawn, its probability), (K,)."""
        log_probs = self.log_probs()
        drawn = counts(log_probs, self.settings.samples, stream(seed, self.name))
        return drawn, log_probs.exp()

    def drawn(self, seed: int) -> Iterator[Check]:
        name = f"chi-square of {self.settings.samples:,} draws{self.OF}, p-value"
        yield Check(self.name, name, chi2_p_value(*self.draws(seed)), RAREST, ">=")

    def own(self, seed: int) -> Iterator[Check]:
        yield from self.drawn(seed)
        for dtype in self.FLOATS:
            name = f"log_softmax: {{}} to +-{self.settings.size:g}, {kind(dtype)}"
            errors = self.errors("log_softmax", dtype)
            yield from self.parts(name, errors, 2 * torch.finfo(dtype).eps)

    def controls(self, seed: int) -> Iterator[Check]:
        """Also uniform noise in place of exponential noise, at unequal probabilities."""
        for dtype in self.FLOATS:
            errors = self.errors("log(softmax)", dtype)
            yield self.rejected(f"log_of_softmax, {kind(dtype)}", errors, 0.01)
        probs = torch.tensor([0.7, 0.2, 0.1])
        noise = torch.rand(10_000, 3, generator=stream(seed, "uniform clocks"))
        p_value = chi2_p_value(counts(probs.log(), 10_000, noise), probs)
        rejecting = ["chi-square"] * (p_value < RAREST)
        yield rejection(self.name, "uniform_clocks", ["chi-square"], rejecting)


class ActionMask(LogSoftmax):
    """log p, entropy and divergence of what is permitted; nothing of what is not."""

    OF = ""
    FORMS: ClassVar[dict[str, Callable[..., Any]]] = {
        "masked_log_softmax": lambda *given: controls.scored(masked_log_softmax(*given)),
        **controls.MASKED,
    }

    @property
    def forbidden(self) -> Tensor:
        return torch.tensor(self.settings.mask) == 0

    def logits(self) -> Tensor:
        """Those of `probs`, and up to 1,000 times as large, (R, K) float64."""
        scales = torch.logspace(0, 3, 25, dtype=torch.float64)
        return scales.unsqueeze(-1) * torch.tensor(self.settings.probs).double().log()

    def found(self, form: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(log p, entropy, divergence from uniform draws), (R, K + 2), and slopes (R, K + 2, K)."""
        logits = self.logits().to(dtype).requires_grad_()
        log_probs, entropy = self.FORMS[form](logits, self.forbidden)
        uniform = masked_log_softmax(torch.zeros_like(log_probs), self.forbidden)
        divergence = policies.Categorical(log_probs).expectation(log_probs - uniform)
        values = torch.cat([log_probs, entropy[:, None], divergence[:, None]], -1)
        slopes = [torch.autograd.grad(v.sum(), logits, retain_graph=True)[0] for v in values.T]
        return values.detach(), torch.stack(slopes, 1)

    def exact(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The same of the permitted actions alone, to 50 digits."""
        logits = self.logits().to(dtype)[:, ~self.forbidden].tolist()
        log_p, p = reference.log_softmax(logits)
        entropy, by_logits = (part[:, None] for part in reference.choice_entropy(logits))
        count = p.shape[-1]
        values = np.concatenate([log_p, entropy, reference.mp.log(count) - entropy], 1)
        slopes = np.concatenate([np.eye(count) - p[:, None], by_logits, -by_logits], 1)
        return reference.tensor(values), reference.tensor(slopes)

    def errors(self, form: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Of values and of slopes, the largest in each row; infinite where p is not exactly 0."""
        values, slopes = self.found(form, dtype)
        there = torch.cat([~self.forbidden, torch.ones(2, dtype=torch.bool)])
        exact = self.exact(dtype)
        of_value = relative_errors(values[:, there], exact[0]).amax(-1)
        possible = (values[:, ~there] > -torch.inf).any(-1)
        of_slope = relative_errors(slopes[:, there][..., ~self.forbidden], exact[1])
        return of_value.masked_fill(possible, torch.inf), of_slope.flatten(1).amax(-1)

    def shown(self, form: str) -> tuple[torch.dtype, tuple[Tensor, Tensor]]:
        """The float type in which a form is shown, and its errors."""
        dtype = torch.float16 if "1e8" in form else torch.float32
        return dtype, self.errors(form, dtype)

    def log_probs(self) -> Tensor:
        return masked_log_softmax(super().log_probs(), self.forbidden)

    def own(self, seed: int) -> Iterator[Check]:
        yield from self.drawn(seed)
        for dtype in MASKED:
            name = f"log p, entropy, divergence: {{}} against 50 digits, {kind(dtype)}"
            yield from self.parts(name, self.errors("masked_log_softmax", dtype), MASKED[dtype])
            nothing = self.found("masked_log_softmax", dtype)[1][..., self.forbidden]
            name = f"their gradient by what is forbidden, {kind(dtype)}"
            yield self.row(name, float(nothing.abs().amax()) if nothing.numel() else 0.0, 0.0)
        yield self.row("MultiCategorical: log_prob and entropy, float32", self.several(), 1e-6)

    def several(self) -> float:
        """The error of two choices at once, the second in reverse order."""
        log_probs = masked_log_softmax(self.logits().float(), self.forbidden)
        policy = policies.MultiCategorical(torch.stack([log_probs, log_probs.flip(-1)], 1))
        last, count = len(self.forbidden) - 1, len(log_probs)
        pairs = [torch.tensor([k, last - k]) for k in range(last + 1) if not self.forbidden[k]]
        found = [policy.log_prob(pair.expand(count, -1)) for pair in pairs]
        exact = 2 * self.exact(torch.float32)[0][:, :-1]
        return relative_error(torch.stack([*found, policy.entropy()], -1), exact)

    def controls(self, seed: int) -> Iterator[Check]:
        for form in controls.MASKED:
            dtype, errors = self.shown(form)
            yield self.rejected(f"{form}, {kind(dtype)}", errors, 0.01)


def log_det(u: Tensor) -> list[Tensor]:
    """[log(1 - tanh(u)^2), its slope] to 50 digits."""
    return [reference.tensor(part) for part in reference.log_det_tanh(u.tolist())]


def scored(u: Tensor, mean: Tensor, latent: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(`log_prob` of tanh(u) under N(mean, 1), exact `log_prob` of tanh(mean)), (S,) float64."""
    policy = policies.TanhGaussian(mean.unsqueeze(-1), torch.zeros_like(u).unsqueeze(-1))
    given = None if latent is None else latent.unsqueeze(-1)
    found = policy.log_prob(torch.tanh(u).unsqueeze(-1), given)
    return found.double(), -HALF_LOG_2PI - log_det(mean)[0]


class TanhAtanh(Section):
    """tanh, two inverses and three log-determinants."""

    INVERSES: ClassVar[dict[str, Form]] = {
        "atanh": torch.atanh,
        "log form with 1e-8": controls.atanh_by_logs,
    }
    LOG_DETS: ClassVar[dict[str, Form]] = {
        "log_det_tanh": lambda u: gaussian.log_det_tanh(u),
        "log(1 - tanh² + 1e-6)": controls.log_det_epsilon,
        "log(1 - tanh²)": controls.log_det_plain,
    }

    def near(self) -> Tensor:
        """Points of the round trip, float64."""
        count = int(self.settings.limit / self.settings.step + 1e-9)
        return self.settings.step * torch.arange(-count, count + 1, dtype=torch.float64)

    def far(self, step: float = 0.001) -> Tensor:
        """From 0 to where all but the stable form break, float64."""
        return torch.arange(0, self.settings.far + 1e-9, step, dtype=torch.float64)

    def lost(self, form: str, points: Tensor, dtype: torch.dtype) -> Tensor:
        """|inverse(tanh(u)) - u|."""
        u = points.to(dtype)
        return (self.INVERSES[form](torch.tanh(u)).double() - u.double()).abs()

    def log_det_errors(self, form: str, points: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """[|value - exact|, |slope - exact|] over max(1, |exact|)."""
        u = points.to(dtype)
        pairs = zip(with_slope(self.LOG_DETS[form], u), log_det(u), strict=True)
        return [relative_errors(*pair) for pair in pairs]

    def own(self, seed: int) -> Iterator[Check]:
        near, far, limit = self.near(), self.far(), self.settings.limit
        for dtype in (torch.float32, torch.float64):
            eps = torch.finfo(dtype).eps
            exact = reference.tensor(reference.tanh(near.to(dtype).tolist()))
            error = relative_error(torch.tanh(near.to(dtype)), exact)
            yield self.row(f"tanh against 50 digits, {kind(dtype)}", error, 2 * eps)
            for form in self.INVERSES:  # an error da of the action is du = da cosh(u)^2 of u
                bound = (2 * eps + 2e-8 * ("1e-8" in form)) * math.cosh(limit) ** 2
                error = float(self.lost(form, near, dtype).max())
                name = f"{form}: round trip to |u| = {limit:g}, {kind(dtype)}"
                yield self.row(name, error, bound)
        yield self.from_on("float32 tanh is 1", torch.tanh(far.float()) == 1)
        for form in self.INVERSES:
            lost = self.lost(form, far, torch.float32) > LOST
            yield self.from_on(f"{form}: has lost {LOST:g} in float32", lost)
        few = self.far(0.05)
        for dtype, bound in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
            errors = self.log_det_errors("log_det_tanh", torch.cat([-few.flip(0), few]), dtype)
            name = f"log_det_tanh: {{}} to |u| = {few[-1]:g}, {kind(dtype)}"
            yield from self.parts(name, errors, bound, ("value", "slope"))
        # `log_prob` of an action alone, in float32, under N(u, 1) at each u.
        bound = 2 * EPS * math.cosh(INVERTIBLE) ** 2  # eps of the action, at a slope of 2 by u
        error = float(self.nats_off(few[few <= INVERTIBLE]).max())
        name = "log_prob without latent"
        yield self.row(f"{name} to |u| = {INVERTIBLE:g}: nats, float32", error, bound)
        yield self.from_on(f"{name}: off by a nat in float32", self.nats_off(far) > 1)
        yield self.row(f"{name}: beyond that as if |u| = {LAST:.2f}", self.beyond(None), 1e-5)

    def from_on(self, name: str, broken: Tensor) -> Check:
        """The first of the `far` points that is broken, at the latest where float32 tanh is 1."""
        return self.row(f"{name} from |u| =", float(self.far()[broken].min()), 9.02)

    def nats_off(self, points: Tensor) -> Tensor:
        """|log_prob(tanh(u)) - exact| under N(u, 1), for u rounded to float32."""
        found, exact = scored(points.float(), points.float())
        return (found - exact).abs()

    def beyond(self, inverse: Form | None) -> float:
        """Error, against u = LAST, where float32 tanh is 1; of `log_prob` with an inverse."""
        u = self.far(0.05).float()
        u = u[torch.tanh(u) == 1]
        latent = inverse(torch.tanh(u)) if inverse else None
        return relative_error(*scored(u, torch.full_like(u, LAST), latent))

    def controls(self, seed: int) -> Iterator[Check]:
        points = torch.arange(0, 20, 0.05, dtype=torch.float64)
        wrong = {"epsilon": "log(1 - tanh² + 1e-6)", "log_of_difference": "log(1 - tanh²)"}
        for mistake, form in wrong.items():
            yield self.rejected(mistake, self.log_det_errors(form, points, torch.float32), 1e-6)
        rejecting = ["value"] * (self.beyond(torch.atanh) > 1e-5)
        yield rejection(self.name, "atanh_of_one", ["value"], rejecting)


# entropies, in nats


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean and standard error of draws (S,), also where float32 makes them all alike."""
    values = values.detach().double()
    return float(values.mean()), math.sqrt(float(values.var()) / len(values) + 1e-12)


def of_draws(subject: Subject) -> tuple[float, float]:
    """(mean of -log pi over the draws, its standard error), by a policy or by a wrong formula."""
    case, noise = subject.case, subject.noise
    log_pi = case.make(*case.parameters(len(noise))).rsample_with_log_prob(noise)[1]
    return mean_and_error(-joint(log_pi, noise.shape[:1]))


def entropy(case: Case, dtype: torch.dtype = torch.float32) -> float:
    """The entropy that the policy returns."""
    found = case.make(case.mean.to(dtype), case.scale.to(dtype)).entropy()
    return float(joint(found.detach(), torch.Size([])))


class Entropy(DensitySection):
    """Four continuous policies, and the categorical one."""

    def estimates(self, seed: int) -> Iterator[tuple[str, float, float, float]]:
        """Of each policy (its name, its entropy, mean of -log pi of the draws, standard error)."""
        for subject in self.subjects(seed):
            yield subject.case.label, entropy(subject.case), *of_draws(subject)
        probs = torch.tensor(self.settings.probs).expand(self.settings.samples, -1)
        policy = policies.Categorical(probs.log())
        action, _ = policy.sample(policy.noise(stream(seed, f"{self.name}/Categorical")))
        yield "Categorical", float(policy.entropy()[0]), *mean_and_error(-policy.log_prob(action))

    def drawn(self, seed: int) -> Iterator[Check]:
        text = f"entropy against -log_pi of {self.settings.samples:,} draws, p-value"
        for label, value, mean, error in self.estimates(seed):
            p_value = normal_p_value((mean - value) / error)
            yield Check(self.name, f"{label}: {text}", p_value, RAREST, ">=")

    def own(self, seed: int) -> Iterator[Check]:
        yield from self.drawn(seed)
        for case in self.cases:
            error = abs(entropy(case, torch.float64) - case.grid.entropy)
            yield self.row(f"{case.label}: against the integral of -p log p", error, 1e-6)
            exact = case.exact(reference.entropy(*case.digits, case.policy.squashed))
            for dtype, bound in ENTROPY.items():
                parameters = case.parameters(1, dtype)
                found = case.make(*parameters).entropy()
                pairs = zip([found, *case.slopes(found, parameters)], exact, strict=True)
                name = f"{case.label}: value and gradient against 50 digits, {kind(dtype)}"
                yield self.row(name, max(starmap(relative_error, pairs)), bound)
        logits = torch.tensor(self.settings.probs).log().requires_grad_()
        found = policies.Categorical(torch.log_softmax(logits, -1)).entropy()
        (slope,) = torch.autograd.grad(found, logits)
        value, by_logits = map(reference.tensor, reference.choice_entropy(logits.tolist()))
        error = max(relative_error(found, value), relative_error(slope, by_logits))
        name = "Categorical: value and gradient against 50 digits, float32"
        yield self.row(name, error, 1e-6)

    def controls(self, seed: int) -> Iterator[Check]:
        """Wrong formulas of log_pi, and the entropy of u in place of the action's."""
        for subject in self.subjects(seed):
            case, right = subject.case, entropy(subject.case)
            mistakes = ["sigma_for_log_sigma", "sum_forgotten"]
            mistakes += ["jacobian_added", "tanh_twice"] if case.policy.squashed else []
            for mistake in mistakes:
                yield self.control(mistake, subject.gone_wrong(mistake), right)
            if case.policy.squashed:
                base = policies.FullGaussian if case.policy.correlated else policies.Gaussian
                yield self.control("entropy_of_u", subject, entropy(replace(case, policy=base)))

    def control(self, mistake: str, subject: Subject, value: float) -> Check:
        mean, error = of_draws(subject)
        rejected = {
            "draws": normal_p_value((mean - value) / error) < RAREST,
            "integral": not abs(subject.case.grid.entropy - value) <= ENTROPY[torch.float32],
        }
        rejecting = [test for test in rejected if rejected[test]]
        return rejection(self.name, mistake, [*rejected], rejecting, subject.case.label)
