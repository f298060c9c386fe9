"""Which mistake of `audit.forms` is it? Each is fitted to what was claimed.

Under a mistake the claim is log N(u; mean, tril tril^T) plus its error, both with the same mean and
tril. They are found by Gauss-Newton, from those of the draws on; the mistake fits if nothing but
rounding is left, and if they are those of the draws.
"""

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from audit.checks import chi2_p_value
from audit.forms import FORMS, Base, Choices, Form

Delta = Callable[[Base], Tensor]
POINTS = 400  # at which a mistake is fitted, at most: half of them the farthest out
STEPS = 8  # of Gauss-Newton; it has converged after three or four
SHIFT = 1e-6  # for the derivatives
DEVIATIONS = 6.0  # standard errors
ROUNDING = 1e-10  # of the claim's size, at least
P_MIN = 1e-5  # of the counts, under a mistake that fits
EPSILON = 1e-8  # of log(p + EPSILON)
FITTED = ("temperature", "exploration_forgotten")  # have a free parameter: only if no other fits
CORRELATED = 8  # dimensions, at most, whose correlations are fitted


def recognise(base: Base, claim: Tensor, slack: Tensor, draws: int) -> tuple[str, ...]:
    """Names of the mistakes that explain a claimed density; several where no one is likelier.

    Args:
        base: `mean` and `tril` of the draws; `u` (N, A), the draws, and points farther out where
            the density can be evaluated.
        claim: (N,) log_prob + log|da/du| in nats, the claimed density of u.
        slack: (N,) nats that rounding may add to it; infinite where nothing is left of u.
        draws: their number.

    Returns:
        Keys of FORMS, or "one + another" for two mistakes at once, for which is looked where no
        single one fits. Empty where none does, or where no mistake is needed.
    """
    forms = [f for f in FORMS.values() if f.kind in ORDER and f.applies(base)]
    if bool((undefined := claim.isnan()).any()):
        return tuple(f.name for f in forms if agree(f.delta(base).isnan(), undefined))
    fit = Fit(base, claim, slack, draws)
    if fit.explains(lambda base: torch.zeros_like(base.right)):
        return ()
    if single := tuple(form.name for form in forms if fit.explains(form.delta)):
        return single
    pairs = [
        (one, two)
        for one, two in product(forms, forms)
        if ORDER[one.kind] < ORDER[two.kind] or two.name == "affine_forgotten" != one.name
    ]
    return tuple(f"{one.name} + {two.name}" for one, two in pairs if fit.explains(both(one, two)))


ORDER = {"jacobian": 0, "inverse": 0, "scale": 1, "constant": 1}


def agree(one: Tensor, two: Tensor) -> bool:
    """Whether two are the same but for points on the border, (N,) bool each."""
    return float((one != two).double().mean()) < 2e-3


def both(one: Form, two: Form) -> Delta:
    return lambda base: one.delta(base) + two.delta(base)


class Fit:
    """Some points of a claimed density, and whether a mistake explains it there.

    Parameters are the mean in units of the draws' std, the logarithm of the std in terms of theirs,
    and where they are correlated, the rest of the factor; all of them 0 for the draws' own.
    """

    def __init__(self, base: Base, claim: Tensor, slack: Tensor, draws: int) -> None:
        slack = torch.maximum(slack, ROUNDING * (1.0 + claim.abs()))
        kept = torch.nonzero(claim.isfinite() & slack.isfinite()).squeeze(-1)
        if len(kept) > POINTS:
            order = kept[base.u[kept].abs().amax(-1).argsort()]
            kept = torch.cat([order[:: 2 * len(order) // POINTS], order[-POINTS // 2 :]]).unique()
        self.base, self.u = base, base.u[kept]
        self.claim, self.slack = claim[kept], slack[kept]
        self.size = size = len(base.mean)
        self.error = 1.0 / math.sqrt(draws)
        errors = [1.0] * size + [0.7] * size
        std = base.tril.square().sum(-1).sqrt()
        related = float((base.tril / std.unsqueeze(-1)).tril(-1).abs().max()) > 6.0 * self.error
        if related and size <= CORRELATED:
            errors += [1.0] * (size * (size - 1) // 2)
        self.tril = base.tril if related else torch.diag(std)
        self.limits = DEVIATIONS * self.error * torch.tensor(errors, dtype=torch.float64)

    def at(self, parameters: Tensor) -> Base:
        size, base = self.size, self.base
        factor = torch.diag(parameters[size : 2 * size].exp())
        if len(parameters) > 2 * size:
            rows, columns = torch.tril_indices(size, size, -1)
            factor[rows, columns] = parameters[2 * size :]
        mean = base.mean + self.tril @ parameters[:size]
        return Base(self.u, mean, self.tril @ factor, base.low, base.high)

    def left(self, delta: Delta, parameters: Tensor) -> Tensor:
        """What is not explained, over what rounding may do, (N,)."""
        base = self.at(parameters)
        return (self.claim - base.normal(base.z) - delta(base)) / self.slack

    def explains(self, delta: Delta) -> bool:
        parameters = torch.zeros_like(self.limits)
        shifts = SHIFT * torch.eye(len(parameters), dtype=torch.float64)
        if len(self.claim) < 2 * len(parameters) or not self.possible(delta):
            return False
        size = math.inf
        for _ in range(STEPS):
            left = self.left(delta, parameters)
            before, size = size, float(left.abs().max())
            if size <= 1.0:
                return bool((parameters.abs() <= self.limits).all())
            if not size < 0.5 * before:  # also if it is no number
                return False
            slopes = [
                (self.left(delta, parameters + shift) - self.left(delta, parameters - shift))
                for shift in shifts
            ]
            # What the claim leaves open stays near the draws' own.
            slope = torch.stack(slopes, -1) / (2.0 * SHIFT)
            slope = torch.cat([slope, torch.diag(1.0 / self.limits)])
            error = torch.cat([left, parameters / self.limits])
            parameters = parameters - torch.linalg.lstsq(slope, error.unsqueeze(-1)).solution[:, 0]
        return False

    def possible(self, delta: Delta) -> bool:
        """Whether it is roughly so with the parameters of the draws: cheap to find out."""
        base = self.at(torch.zeros_like(self.limits))
        near = base.z.abs().amax(-1) < 3.0
        error = delta(base)[near]
        left = (self.claim - base.normal(base.z))[near] - error
        bound = DEVIATIONS * self.error * self.size * (1.0 + 4.0 * error.abs()) + self.slack[near]
        return bool((left.abs() / bound).median() < 1.0)


def recognise_entropy(base: Base, gap: float, error: float) -> tuple[str, ...]:
    """Names of the mistakes that explain an entropy `gap` nats above that of the draws.

    Args:
        base: the draws, and their mean and tril.
        gap: what entropy() returns, plus the mean log_prob of the draws.
        error: its standard error.
    """
    found = []
    for form in FORMS.values():
        if form.kind == "entropy" and form.applies(base):
            delta = form.delta(base)
            chance = math.hypot(error, float(delta.std()) / math.sqrt(len(delta)))
            if abs(float(delta.mean()) - gap) <= DEVIATIONS * chance + 1e-9:
                found.append(form.name)
    return tuple(found)


def recognise_choices(
    log_probs: Tensor, counts: Tensor, mask: Tensor | None = None
) -> tuple[str, ...]:
    """Names of the mistakes that explain claimed log-probabilities (K,) of draws counted (K,).

    Without a mask, what was never drawn counts as forbidden if it should have been drawn.
    """
    log_probs, counts = log_probs.double(), counts.double()
    total = counts.sum()
    if mask is None:
        mask = (counts > 0) | (log_probs.exp() * total < 30.0)
    given = Choices(log_probs, counts, mask)
    if bool(counts[~mask].sum() > 0):
        forbidden = log_probs[~mask]
        return ("mask_zeroed",) if bool((forbidden == forbidden[0]).all()) else ()
    probs = log_probs.exp()
    if abs(float(probs.sum()) - 1.0 - EPSILON * len(probs)) < 0.1 * EPSILON:
        return ("log_with_epsilon",)
    if chi2_p_value(counts, probs) > P_MIN:
        return ()
    found = []
    for form in FORMS.values():
        if form.kind == "discrete" and form.name not in ("mask_zeroed", "log_with_epsilon"):
            probs = torch.exp(log_probs - form.delta(given)).nan_to_num(0.0)
            if chi2_p_value(counts, probs) > P_MIN:
                found.append(form.name)
    simple = tuple(name for name in found if name not in FITTED)
    return simple or tuple(found)
