"""The section on masks: categorical policies with fewer actions."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

import policies
from networks.discrete import masked_log_softmax
from tools.gallery import controls, reference
from tools.gallery.functions import LogSoftmax
from tools.gallery.report import Check
from tools.gallery.sections import kind, relative_error, relative_errors

BOUND = {torch.float16: 1e-3, torch.float32: 1e-6, torch.float64: 1e-14}


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
        permitted = (~self.forbidden).nonzero().flatten()
        values, slopes = [], []
        for row in self.logits().to(dtype)[:, permitted].tolist():
            log_p, p = reference.log_softmax(row)
            entropy, by_logits = reference.choice_entropy(row)
            values.append([*log_p, entropy, reference.mp.log(len(row)) - entropy])
            of_log_p = [[(i == j) - p[j] for j in range(len(row))] for i in range(len(row))]
            slopes.append([*of_log_p, by_logits, [-slope for slope in by_logits]])
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
        for dtype in BOUND:
            name = f"log p, entropy, divergence: {{}} against 50 digits, {kind(dtype)}"
            yield from self.parts(name, self.errors("masked_log_softmax", dtype), BOUND[dtype])
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
