"""Which mistake of `audit.forms` is it? Each is fitted to what was claimed.

Under a mistake the claim is log N(u; mean, tril tril^T) plus its error, both with the same mean and
tril. They are found by Gauss-Newton, from those of the draws on; the mistake fits if nothing but
rounding is left, and if they are those of the draws. Its constant, where it has one, is free.
"""

import math
from collections.abc import Iterable
from itertools import product

import torch
from torch import Tensor

from audit.chance import chi2_p_value
from audit.checks import quadratic_terms
from audit.forms import FORMS, Base, Choices, Form

NONE = Form("", "", "", "", lambda base: torch.zeros_like(base.right))
POINTS = 400  # at which a mistake is fitted, at most: half of them the farthest out
STEPS = 10  # of Gauss-Newton; it has converged after three or four
FARTHEST = 0.3  # largest step of a constant's logarithm: half the distance between CONSTANTS
CONVERGED = 1e-3  # of what a parameter may be off, and its square of a constant
SHIFT = 1e-6  # for the derivatives
DEVIATIONS = 6.0  # standard errors
ROUNDING = 1e-10  # of the claim's size, at least
P_MIN = 1e-5  # of the counts, under a mistake that fits
EPSILON = 1e-8  # of log(p + EPSILON)
FITTED = ("temperature", "exploration_forgotten")  # have a free parameter: only if no other fits
FOUND = ("mask_zeroed", "mask_not_drawn", "log_with_epsilon")  # otherwise than by their errors
CORRELATED = 8  # dimensions, at most, whose correlations are fitted
CONSTANTS = 10.0 ** torch.arange(-16.0, -1.0, 0.25, dtype=torch.float64)  # that are tried first
KNOWN = 0.1  # the largest relative error of a constant
EQUAL, EXACT = 2.0, 0.1  # times what the best leaves unexplained, or of what rounding may do
ROUNDED = 0.05  # relative: in float32, 1 - 1e-6 is 1 - 9.5e-7


def recognise(base: Base, claim: Tensor, slack: Tensor, draws: int) -> tuple[Form, ...]:
    """The mistakes that explain a claimed density; several where no one is likelier.

    Args:
        base: `mean` and `tril` of the draws; `u` (N, A), the draws, and points farther out where
            the density can be evaluated.
        claim: (N,) log_prob + log|da/du| in nats, the claimed density of u.
        slack: (N,) nats that rounding may add to it; infinite where nothing is left of u.
        draws: their number.

    Returns:
        Those of FORMS, with the constants that were found, or sums of two, tried where no single
        one fits. Empty where none does, or where no mistake is needed.
    """
    forms = [f for f in FORMS.values() if f.kind in ORDER and f.applies(base)]
    if bool((undefined := claim.isnan()).any()):
        return tuple(f for f in forms if agree(f.delta(base).isnan(), undefined))
    fit = Fit(base, claim, slack, draws)
    if none := fit.explains(NONE):
        # No larger than rounding may be at any point, but seen at many of them together?
        return fit.explained(form for form in forms if form.free) if none[1] > EXACT else ()
    return fit.explained(forms) or fit.explained(
        one + two
        for one, two in product(forms, forms)
        if ORDER[one.kind] < ORDER[two.kind] or two.name == "affine_forgotten" != one.name
    )


ORDER = {"jacobian": 0, "inverse": 0, "scale": 1, "constant": 1}


def agree(one: Tensor, two: Tensor) -> bool:
    """Whether two are the same but for points on the border, (N,) bool each."""
    return float((one != two).double().mean()) < 2e-3


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
        outwards = self.u.abs().amax(-1).argsort()  # a clip hides what rounding does beyond it
        self.slack[outwards] = self.slack[outwards].cummax(0).values
        self.size = size = len(base.mean)
        self.error = 1.0 / math.sqrt(draws)
        errors = [1.0] * size + [0.7] * size
        std = base.tril.square().sum(-1).sqrt()
        related = float((base.tril / std.unsqueeze(-1)).tril(-1).abs().max()) > 6.0 * self.error
        if related and size <= CORRELATED:
            errors += [1.0] * (size * (size - 1) // 2)
        self.tril = base.tril if related else torch.diag(std)
        self.starts: dict[str, Tensor] = {}
        self.limits = DEVIATIONS * self.error * torch.tensor(errors, dtype=torch.float64)

    def at(self, parameters: Tensor) -> Base:
        size, base = self.size, self.base
        factor = torch.diag(parameters[size : 2 * size].exp())
        if (count := len(self.limits)) > 2 * size:
            rows, columns = torch.tril_indices(size, size, -1)
            factor[rows, columns] = parameters[2 * size : count]
        mean = base.mean + self.tril @ parameters[:size]
        return Base(self.u, mean, self.tril @ factor, base.low, base.high)

    def left(self, form: Form, parameters: Tensor) -> Tensor:
        """What is not explained, over what rounding may do, (N,)."""
        base = self.at(parameters)
        error = self.with_constant(form, parameters).delta(base)
        return (self.claim - base.normal(base.z) - error) / self.slack

    def explained(self, forms: Iterable[Form]) -> tuple[Form, ...]:
        """Those that explain it best; of several, those with a constant that people write."""
        found = [one for form in forms if (one := self.explains(form))]
        best = max(EQUAL * min((left for _, left in found), default=0.0), EXACT)
        likely = [form for form, left in found if left <= best]
        return tuple([form for form in likely if form.usual] or likely)

    def explains(self, form: Form) -> tuple[Form, float] | None:
        """The mistake with its constant, and the root mean square of what it leaves."""
        limits, parameters = self.limits, torch.zeros_like(self.limits)
        if form.free:
            limits = torch.cat([limits, torch.tensor([math.inf])])
            parameters = torch.cat([parameters, self.start(form)])
        if len(self.claim) < 2 * len(parameters):
            return None
        if not self.possible(self.with_constant(form, parameters)):
            return None
        size = moved = math.inf
        for _ in range(STEPS):
            left = self.left(form, parameters)
            before, size = size, float(left.abs().max())
            if size <= 1.0 and moved < CONVERGED:
                break
            if not (size <= 1.0 or size < 0.5 * before):  # also if it is no number
                return None
            # What the claim leaves open stays near the draws' own.
            slope = torch.cat([self.slope(form, parameters), torch.diag(1.0 / limits)])
            error = torch.cat([left, parameters / limits])
            step = torch.linalg.lstsq(slope, error.unsqueeze(-1)).solution[:, 0]
            step[len(self.limits) :].clamp_(-FARTHEST, FARTHEST)
            parameters = parameters - step
            moved = float((step / limits.nan_to_num(posinf=CONVERGED)).abs().max())
        else:
            return None
        if not bool((parameters.abs() <= limits).all()):
            return None
        if form.free:
            spread = float(size / torch.linalg.qr(slope, mode="r").R[-1, -1].abs())
            form = self.with_constant(form, parameters, max(ROUNDED, 3.0 * spread))
            if spread > KNOWN or not form.applies(self.at(parameters)):
                return None
        return form, float(left.square().mean().sqrt())

    def slope(self, form: Form, parameters: Tensor) -> Tensor:
        """Derivatives of what is not explained, (N, P)."""
        shifts = SHIFT * torch.eye(len(parameters), dtype=torch.float64)
        slopes = [
            self.left(form, parameters + shift) - self.left(form, parameters - shift)
            for shift in shifts
        ]
        return torch.stack(slopes, -1) / (2.0 * SHIFT)

    def with_constant(self, form: Form, parameters: Tensor, error: float = 0.0) -> Form:
        return form.at(parameters[-1].exp(), error) if form.free else form

    def start(self, form: Form) -> Tensor:
        """Logarithm of the constant that leaves least but for what is quadratic, (1,).

        That of two mistakes is that of the first: the error of the second is quadratic, too.
        """
        name, *_ = form.name.split(" + ")
        if name not in self.starts:
            base, delta = self.at(torch.zeros_like(self.limits)), FORMS[name].delta
            errors = torch.stack([delta(base, constant=one) for one in CONSTANTS], -1)
            left = (self.claim - base.normal(base.z)).unsqueeze(-1) - errors.nan_to_num(0.0)
            terms, left = (x / self.slack.unsqueeze(-1) for x in (quadratic_terms(base.z), left))
            left = left - terms @ torch.linalg.lstsq(terms, left).solution
            self.starts[name] = CONSTANTS[left.square().sum(0).argmin()].log().view(1)
        return self.starts[name]

    def possible(self, form: Form) -> bool:
        """Whether it is roughly so with the parameters of the draws: cheap to find out."""
        base = self.at(torch.zeros_like(self.limits))
        near = base.z.abs().amax(-1) < 3.0
        error = form.delta(base)[near]
        left = (self.claim - base.normal(base.z))[near] - error
        bound = DEVIATIONS * self.error * self.size * (1.0 + 4.0 * error.abs()) + self.slack[near]
        return bool((left.abs() / bound).median() < 1.0)


def recognise_entropy(base: Base, gap: float, error: float) -> tuple[Form, ...]:
    """The mistakes that explain an entropy `gap` nats above that of the draws.

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
                found.append(form)
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
        forbidden, rest = log_probs[~mask], log_probs.masked_fill(~mask, -math.inf).softmax(0)
        if bool(forbidden.exp().sum() == 0) and chi2_p_value(counts * mask, rest) > P_MIN:
            return ("mask_not_drawn",)
        return ("mask_zeroed",) if bool((forbidden == forbidden[0]).all()) else ()
    probs = log_probs.exp()
    if abs(float(probs.sum()) - 1.0 - EPSILON * len(probs)) < 0.1 * EPSILON:
        return ("log_with_epsilon",)
    if chi2_p_value(counts, probs) > P_MIN:
        return ()
    found = []
    for form in FORMS.values():
        if form.kind == "discrete" and form.name not in FOUND:
            probs = torch.exp(log_probs - form.delta(given)).nan_to_num(0.0)
            if chi2_p_value(counts, probs) > P_MIN:
                found.append(form.name)
    simple = tuple(name for name in found if name not in FITTED)
    return simple or tuple(found)
