"""The section on tanh and its inverse: what an action still says about the u it was made of."""

import math
from collections.abc import Callable
from decimal import Decimal
from typing import ClassVar

import torch
from torch import Tensor

import policies
from policies import numerics
from policies.numerics import HALF_LOG_2PI
from tools.gallery import controls, reference
from tools.gallery.densities import TOLD, control_row
from tools.gallery.functions import Form, decimal, kind, slopes
from tools.gallery.report import Check, Section
from tools.gallery.statistics import relative_error

ActionForm = Callable[[policies.TanhGaussian, Tensor], Tensor]
EPS = torch.finfo(torch.float32).eps
LAST = 0.5 * math.log((2 - EPS) / EPS)  # atanh(1 - eps), where `log_prob` without latent ends
LOST = 0.01  # an inverse that is further off has lost u


def log_det(u: Tensor) -> list[Tensor]:
    """[log(1 - tanh(u)^2), its slope] to 50 digits."""
    rows = [reference.log_det_tanh(Decimal(point)) for point in u.tolist()]
    return [
        torch.tensor([float(x) for x in column], dtype=torch.float64)
        for column in zip(*rows, strict=True)
    ]


def normal_at(u: Tensor) -> policies.TanhGaussian:
    """tanh of N(u, 1) for each u (S,)."""
    return policies.TanhGaussian(u.unsqueeze(-1), torch.zeros_like(u).unsqueeze(-1))


def log_prob_of_action(policy: policies.TanhGaussian, action: Tensor) -> Tensor:
    return policy.log_prob(action)


def log_prob_unclamped(policy: policies.TanhGaussian, action: Tensor) -> Tensor:
    """The same with atanh(1) as u."""
    return policy.log_prob(action, torch.atanh(action))


class TanhAtanh(Section):
    """tanh, two inverses and three log-determinants."""

    INVERSES: ClassVar[dict[str, Form]] = {
        "atanh": torch.atanh,
        "log form with 1e-8": controls.atanh_by_logs,
    }
    LOG_DETS: ClassVar[dict[str, Form]] = {
        "log_det_tanh": lambda u: numerics.log_det_tanh(u),
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
        errors = []
        for found, exact in zip(slopes(self.LOG_DETS[form], u), log_det(u), strict=True):
            error = (found.double() - exact).abs() / exact.abs().clamp_min(1)
            errors.append(error.nan_to_num(math.inf, math.inf))
        return errors

    def own(self, seed: int) -> list[Check]:
        rows, near, far, limit = [], self.near(), self.far(), self.settings.limit
        for dtype in (torch.float32, torch.float64):
            eps = torch.finfo(dtype).eps
            error = relative_error(
                torch.tanh(near.to(dtype)), decimal(near.to(dtype), reference.tanh)
            )
            rows.append(self.row(f"tanh against 50 digits, {kind(dtype)}", error, 2 * eps))
            for form in self.INVERSES:  # an error da of the action is du = da cosh(u)^2 of u
                bound = (2 * eps + 2e-8 * ("1e-8" in form)) * math.cosh(limit) ** 2
                error = float(self.lost(form, near, dtype).max())
                name = f"{form}: round trip to |u| = {limit:g}, {kind(dtype)}"
                rows.append(self.row(name, error, bound))
        ends = float(far[torch.tanh(far.float()) == 1].min())
        rows.append(self.row("float32 tanh is 1 from |u| =", ends, 9.02))
        for form in self.INVERSES:
            ends = float(far[self.lost(form, far, torch.float32) > LOST].min())
            rows.append(self.row(f"{form}: has lost {LOST:g} in float32 from |u| =", ends, 9.02))
        far = self.far(0.05)
        both_sides = torch.cat([-far.flip(0), far])
        for dtype, bound in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
            errors = self.log_det_errors("log_det_tanh", both_sides, dtype)
            for what, found in zip(("value", "slope"), errors, strict=True):
                name = f"log_det_tanh: {what} to |u| = {far[-1]:g}, {kind(dtype)}"
                rows.append(self.row(name, float(found.max()), bound))
        return [*rows, *self.without_latent()]

    def without_latent(self) -> list[Check]:
        """What `log_prob` of an action alone makes of it, in float32, for N(u, 1) at each u."""
        told, far = self.far(0.05), self.far(0.001)
        told = told[told <= TOLD]
        bound = 2 * EPS * math.cosh(TOLD) ** 2  # eps of the action, at a slope of 2 by u
        ends = float(far[self.nats_off(far) > 1].min())
        as_if = self.beyond(log_prob_of_action)
        return [
            self.row(f"log_prob without latent to |u| = {TOLD:g}: nats, float32",
                     float(self.nats_off(told).max()), bound),
            self.row("log_prob without latent: off by a nat in float32 from |u| =", ends, 9.02),
            self.row(f"log_prob without latent: beyond that as if |u| = {LAST:.2f}", as_if, 1e-5),
        ]  # fmt: skip

    def nats_off(self, points: Tensor) -> Tensor:
        """|log_prob(tanh(u)) - exact| of N(u, 1), where u is exact in float32."""
        u = points.float()
        found = log_prob_of_action(normal_at(u), torch.tanh(u).unsqueeze(-1))
        return (found.double() + HALF_LOG_2PI + log_det(u)[0]).abs()

    def beyond(self, form: ActionForm) -> float:
        """Error where float32's tanh is 1, against the last u that the form can give."""
        u = self.far(0.05).float()
        u = u[torch.tanh(u) == 1]
        found = form(normal_at(torch.full_like(u, LAST)), torch.tanh(u).unsqueeze(-1))
        exact = -HALF_LOG_2PI - float(log_det(torch.tensor([LAST]).double())[0])
        return relative_error(found, torch.full(found.shape, exact, dtype=torch.float64))

    def controls(self, seed: int) -> list[Check]:
        points = torch.arange(0, 20, 0.05, dtype=torch.float64)
        rows = [self.control(form, points) for form in list(self.LOG_DETS)[1:]]
        rejecting = ["value"] if self.beyond(log_prob_unclamped) > 1e-5 else []
        return [*rows, control_row(self.name, "", "atanh_of_one", ("value",), rejecting)]

    def control(self, form: str, points: Tensor) -> Check:
        expected = ("value", "gradient")
        errors = self.log_det_errors(form, points, torch.float32)
        found = zip(expected, errors, strict=True)
        rejecting = [what for what, error in found if float(error.max()) > 1e-6]
        mistake = "epsilon" if "1e-6" in form else "log_of_difference"
        return control_row(self.name, "", mistake, expected, rejecting)
