"""The sections on functions: logarithms, softmax, and tanh with its inverse."""

import math
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from torch import Tensor

import policies
from audit.checks import chi2_p_value
from common.seeding import stream
from policies import gaussian
from policies.gaussian import HALF_LOG_2PI
from tools.gallery import controls, reference
from tools.gallery.densities import INVERTIBLE, RAREST
from tools.gallery.report import Check, Section, rejection
from tools.gallery.settings import SECTIONS
from tools.gallery.statistics import kind, relative_error, relative_errors

Form = Callable[[Tensor], Tensor]
EPS = torch.finfo(torch.float32).eps
LAST = 0.5 * math.log((2 - EPS) / EPS)  # atanh(1 - eps), where `log_prob` without latent ends
LOST = 0.01  # an inverse that is further off has lost u
PARTS = ("value", "gradient")


def slopes(function: Form, points: Tensor) -> tuple[Tensor, Tensor]:
    """(f, f') at each point."""
    leaf = points.clone().requires_grad_()
    found = function(leaf)
    (slope,) = torch.autograd.grad(found.sum(), leaf)
    return found.detach(), slope


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

    def own(self, seed: int) -> Iterator[Check]:
        for dtype in self.FLOATS:
            error = float(self.errors(dtype).max())
            yield self.row(f"exp(log X) / X - 1, {kind(dtype)}", error, self.bound(dtype))
            matrix = self.matrix(dtype)
            log, slope = slopes(torch.log, matrix)
            exact = reference.each(matrix, reference.mp.log)
            error = max(relative_error(log, exact), relative_error(slope, 1 / matrix.double()))
            name = f"log X and its slope against 50 digits, {kind(dtype)}"
            yield self.row(name, error, torch.finfo(dtype).eps)


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
        by_class = [
            torch.autograd.grad(found[:, k].sum(), logits, retain_graph=True)[0] for k in range(5)
        ]
        rows = [reference.log_softmax(row) for row in logits.tolist()]
        log_p, p = map(reference.tensor, zip(*rows, strict=True))
        jacobian = torch.eye(5, dtype=torch.float64) - p.unsqueeze(1)  # d log_p_k / d z_j
        of_gradient = relative_errors(torch.stack(by_class, 1), jacobian)
        return relative_errors(found, log_p).amax(1), of_gradient.flatten(1).amax(1)

    def frequencies(self, seed: int) -> Tensor:
        """How often each class was drawn, (K,)."""
        probs = torch.tensor(self.settings.probs)
        policy = policies.Categorical(probs.log().expand(self.settings.samples, -1))
        action, _ = policy.sample(policy.noise(stream(seed, self.name)))
        return torch.bincount(action, minlength=len(probs))

    def drawn(self, seed: int) -> Iterator[Check]:
        probs = torch.tensor(self.settings.probs, dtype=torch.float64)
        p_value = chi2_p_value(self.frequencies(seed), probs)
        name = f"chi-square of {self.settings.samples:,} draws of the categorical, p-value"
        yield Check(self.name, name, p_value, RAREST, ">=")

    def own(self, seed: int) -> Iterator[Check]:
        yield from self.drawn(seed)
        for dtype in self.FLOATS:
            for what, found in zip(PARTS, self.errors("log_softmax", dtype), strict=True):
                name = f"log_softmax: {what} to +-{self.settings.size:g}, {kind(dtype)}"
                yield self.row(name, float(found.max()), 2 * torch.finfo(dtype).eps)

    def controls(self, seed: int) -> Iterator[Check]:
        """Also uniform noise where exponential belongs, for unequal probabilities."""
        default = LogSoftmax(self.name, SECTIONS[self.name]())
        for dtype in self.FLOATS:
            errors = zip(PARTS, default.errors("log(softmax)", dtype), strict=True)
            rejecting = [what for what, error in errors if float(error.max()) > 0.01]
            yield rejection(self.name, f"log_of_softmax, {kind(dtype)}", PARTS, rejecting)
        probs = torch.tensor([0.7, 0.2, 0.1])
        noise = torch.rand(10_000, 3, generator=stream(seed, "uniform clocks"))
        action, _ = policies.Categorical(probs.log().expand(10_000, -1)).sample(noise)
        p_value = chi2_p_value(torch.bincount(action, minlength=3), probs)
        rejecting = ["chi-square"] if p_value < RAREST else []
        yield rejection(self.name, "uniform_clocks", ["chi-square"], rejecting)


def log_det(u: Tensor) -> list[Tensor]:
    """[log(1 - tanh(u)^2), its slope] to 50 digits."""
    rows = [reference.log_det_tanh(point) for point in u.tolist()]
    return list(reference.tensor(rows).unbind(-1))


def log_prob_of_tanh(u: Tensor, mean: Tensor, latent: Tensor | None = None) -> Tensor:
    """`log_prob` of tanh(u), without its latent or with one, where u is of N(mean, 1), (S,)."""
    policy = policies.TanhGaussian(mean.unsqueeze(-1), torch.zeros_like(u).unsqueeze(-1))
    given = None if latent is None else latent.unsqueeze(-1)
    return policy.log_prob(torch.tanh(u).unsqueeze(-1), given)


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
        """Where the round trip is held against u, float64."""
        count = int(self.settings.limit / self.settings.step + 1e-9)
        return self.settings.step * torch.arange(-count, count + 1, dtype=torch.float64)

    def far(self, step: float = 0.001) -> Tensor:
        """From 0 to where everything but the stable form has broken, float64."""
        return torch.arange(0, self.settings.far + 1e-9, step, dtype=torch.float64)

    def lost(self, form: str, points: Tensor, dtype: torch.dtype) -> Tensor:
        """|inverse(tanh(u)) - u|."""
        u = points.to(dtype)
        return (self.INVERSES[form](torch.tanh(u)).double() - u.double()).abs()

    def log_det_errors(self, form: str, points: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """[|value - exact|, |slope - exact|] over max(1, |exact|)."""
        u = points.to(dtype)
        pairs = zip(slopes(self.LOG_DETS[form], u), log_det(u), strict=True)
        return [relative_errors(*pair) for pair in pairs]

    def own(self, seed: int) -> Iterator[Check]:
        near, far, limit = self.near(), self.far(), self.settings.limit
        for dtype in (torch.float32, torch.float64):
            eps = torch.finfo(dtype).eps
            exact = reference.each(near.to(dtype), reference.mp.tanh)
            error = relative_error(torch.tanh(near.to(dtype)), exact)
            yield self.row(f"tanh against 50 digits, {kind(dtype)}", error, 2 * eps)
            for form in self.INVERSES:  # an error da of the action is du = da cosh(u)^2 of u
                bound = (2 * eps + 2e-8 * ("1e-8" in form)) * math.cosh(limit) ** 2
                error = float(self.lost(form, near, dtype).max())
                yield self.row(
                    f"{form}: round trip to |u| = {limit:g}, {kind(dtype)}", error, bound
                )
        yield self.from_on("float32 tanh is 1", torch.tanh(far.float()) == 1)
        for form in self.INVERSES:
            lost = self.lost(form, far, torch.float32) > LOST
            yield self.from_on(f"{form}: has lost {LOST:g} in float32", lost)
        few = self.far(0.05)
        for dtype, bound in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
            errors = self.log_det_errors("log_det_tanh", torch.cat([-few.flip(0), few]), dtype)
            for what, found in zip(("value", "slope"), errors, strict=True):
                name = f"log_det_tanh: {what} to |u| = {few[-1]:g}, {kind(dtype)}"
                yield self.row(name, float(found.max()), bound)
        # What `log_prob` of an action alone makes of it, in float32, for N(u, 1) at each u.
        bound = 2 * EPS * math.cosh(INVERTIBLE) ** 2  # eps of the action, at a slope of 2 by u
        error = float(self.nats_off(few[few <= INVERTIBLE]).max())
        name = "log_prob without latent"
        yield self.row(f"{name} to |u| = {INVERTIBLE:g}: nats, float32", error, bound)
        yield self.from_on(f"{name}: off by a nat in float32", self.nats_off(far) > 1)
        yield self.row(f"{name}: beyond that as if |u| = {LAST:.2f}", self.beyond(None), 1e-5)

    def from_on(self, name: str, broken: Tensor) -> Check:
        """Where something breaks first, of `far`: where float32's tanh is 1, at the latest."""
        return self.row(f"{name} from |u| =", float(self.far()[broken].min()), 9.02)

    def nats_off(self, points: Tensor) -> Tensor:
        """|log_prob(tanh(u)) - exact| of N(u, 1), where u is exact in float32."""
        u = points.float()
        return (log_prob_of_tanh(u, u).double() + HALF_LOG_2PI + log_det(u)[0]).abs()

    def beyond(self, inverse: Form | None) -> float:
        """Error where float32's tanh is 1, against the last u; of `log_prob` with an inverse."""
        u = self.far(0.05).float()
        u = u[torch.tanh(u) == 1]
        latent = inverse(torch.tanh(u)) if inverse else None
        found = log_prob_of_tanh(u, torch.full_like(u, LAST), latent)
        exact = -HALF_LOG_2PI - float(log_det(torch.tensor([LAST]).double())[0])
        return relative_error(found, torch.full(found.shape, exact, dtype=torch.float64))

    def controls(self, seed: int) -> Iterator[Check]:
        points = torch.arange(0, 20, 0.05, dtype=torch.float64)
        wrong = {"epsilon": "log(1 - tanh² + 1e-6)", "log_of_difference": "log(1 - tanh²)"}
        for mistake, form in wrong.items():
            errors = zip(PARTS, self.log_det_errors(form, points, torch.float32), strict=True)
            rejecting = [what for what, error in errors if float(error.max()) > 1e-6]
            yield rejection(self.name, mistake, PARTS, rejecting)
        rejecting = ["value"] if self.beyond(torch.atanh) > 1e-5 else []
        yield rejection(self.name, "atanh_of_one", ["value"], rejecting)
