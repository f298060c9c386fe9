"""From tests that failed to words: by how much log_prob is wrong, and what that looks like."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from audit.chance import bartlett, ks_bound, ks_statistic, mean_p_value
from audit.checks import Quadratic, factor, quadratic
from audit.density import DEVIATIONS, P_MIN, Curve, Trial
from audit.forms import FORMS, Base, Form
from audit.recognition import recognise, recognise_entropy
from audit.report import Report
from audit.support import Support

OFFSET = 1e-4  # nats
SLOPE = 1e-3  # relative
PARAMETERS = 1e-6  # nats, for a scale and its logarithm that are float32
NEAR = 5.0  # |u| of draws near a bound
TOWARDS = 15.0  # |u| out to which a density is judged towards the bounds
ENDS = 40.0  # draws whose mass may lie beyond all of them
ATOM, AROUND, NEXT = 5.0, 100, 16.0  # draws of one value, of others near; units between them
CERTAIN = 0.1  # of an error, that rounding may be
SMALLEST = 1e-6  # nats; an error everywhere below is none
LEAST = 2e-7  # a constant above what float32 rounds off an action
CUT, FEW = 1e-3, 30  # share of draws left out that changes moments; they count as so many draws
INEXACT = 4.0  # times the median: what rounding may do to points that a Gaussian is fitted to
OUTER = 0.03  # share of the draws whose density may be anything: KS and the mean see no less
VAGUE = 0.3  # the bound of an integral, beyond which 1 is not told from 1.3
EXACT = ("jacobian", "inverse")  # kinds whose errors leave no doubt, however small
KNOWN = (*EXACT, "scale", "constant")  # whose errors are of each draw
SLIPS = {  # shapes of log_prob, and what it gives
    "sum_forgotten": "{0} numbers for each action, one for each component",
    "broadcast": "N numbers for each of N actions",
    "summed_over_batch": "one number for all actions together",
}
FAILED = {  # of a test, where the error in nats is not known
    "KS of": "the draws do not follow exp({1}), Kolmogorov-Smirnov {0:.2g} > {2:.2g}",
    "pit_ks": "the draws do not follow exp({1}), Kolmogorov-Smirnov {0:.2g} > {2:.2g}",
    "|normaliser": "exp({1}) integrates to {3:.3g}",
    "mean over": "{1} is off by {0:.2g} nat on average, over the draws against over exp({1})",
    "share beyond": "exp({1}) is off by {0:.2g} of the draws beyond a plane",
    "|log of": "",
    "|entropy_gap|": "entropy() is too {4} by {0:.2g} nat",
    "points": "{1} is not finite at {0:.0f} points near the bounds",
    "|log_pi - ": "log_pi and log_prob differ by {0:.2g} nat at the same draw",
    "gaps": "exp({1}) integrates to about {3:.3g} over the draws",
    "|E[q": "exp({1}) integrates to about {3:.3g} over the draws",
    "-log10 p of the draws": "too many or too few draws lie far out for exp({1})",
    "slope of log_pi by": "the gradient of log_pi by the noise is not the slope of its values",
    "slope": "the gradient of {1} is not the slope of its values",
    "draws at which": "{1} is not finite at {0:.0f} draws {5}",
}


@dataclass(eq=False)
class Scores:
    """Claimed log-densities of latents, and what rounding may do to each."""

    latent: Tensor  # (N, A)
    claim: Tensor  # (N,)
    slack: Tensor  # (N,)

    def __add__(self, other: "Scores") -> "Scores":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Scores(*(torch.cat(pair) for pair in pairs))

    def __getitem__(self, rows: Tensor | slice) -> "Scores":
        return Scores(self.latent[rows], self.claim[rows], self.slack[rows])


@dataclass(eq=False)
class Diagnosis:
    """What the tests are about, and their results so far."""

    what: str  # "log_prob" or "log_pi"
    support: Support
    latent: Tensor  # (S, A) of all draws
    shape: str = ""  # what is wrong with that of the result
    trials: list[Trial] = field(default_factory=list)
    curves: tuple[Curve, ...] = ()
    clipped: bool = False
    place: str = "lie exactly on a bound"  # of those that are
    left_out: int = 0  # draws that are rounded to a bound
    unknown: str = ""  # the first draw at which the claim is not finite
    integral: float = 1.0
    entropy_gap: float = math.nan

    @property
    def cut(self) -> bool:
        """Whether the latents lack so many that their moments are others."""
        return self.left_out > CUT * (self.left_out + len(self.latent))

    def add(self, name: str, figure: float, bound: float) -> None:
        self.trials.append(Trial(name, figure, bound))

    def slope(self, what: str, error: float | None) -> None:
        if error is not None:
            self.add(f"slope of {what} against differences, relative", error, SLOPE)

    def shapes(self) -> None:
        size = self.latent.shape[-1]
        wrong = self.shape in SLIPS and (size > 1 or self.shape != "sum_forgotten")
        self.add("one number for each action: 0 if so", float(wrong), 0.0)

    def bounds(self, actions: Tensor, kind: torch.dtype) -> None:
        """Tests whether draws (S, A) on a bound, also one that was not given, were clipped.

        Where they were rounded to it, many others are very near: in their float type, next to it.
        """
        unit, ends = torch.finfo(kind).eps, []
        for axis, (column, least, largest) in enumerate(
            zip(actions.T, *self.support.reach(kind), strict=True)
        ):
            fine = kind == torch.float64 and not torch.equal(column.float().double(), column)
            values, counts = column.unique(return_counts=True)
            for value, next_one, count, others in (
                (values[0], values[1], counts[0], counts[1:AROUND]),
                (values[-1], values[-2], counts[-1], counts[-AROUND:-1]),
            ):
                within = least < self.support[axis].latent(value.view(1)) < largest
                apart = float((value - next_one).abs()) > NEXT * unit * float(value.abs())
                usual = float(others.double().mean())
                most = 2.0 * usual if fine else ATOM * (1.0 + usual)
                if within and apart and float(count) > most:
                    ends.append((float(count) / len(column), float(value)))
        if ends:
            share, value = max(ends)
            self.clipped, self.place = True, f"are exactly {value:.6g}"
            self.add("share of the draws that are clipped", share, 0.0)
            return
        bound = (actions <= self.support.low) | (actions >= self.support.high)
        for on_it, latent in zip(bound.T, self.latent.T, strict=True):
            inner = latent[~on_it].abs()
            near = float((inner > NEAR).double().sum())
            rare = near < 0.05 * float(on_it.sum()) and float(inner.sum()) < NEAR * len(inner)
            self.clipped |= int(on_it.sum()) >= 3 and rare
        share = float(bound.any(-1).double().mean())
        self.add("share of the draws that are clipped", share * self.clipped, 0.0)

    def finite(self, known: Tensor, actions: Tensor) -> None:
        """Tests whether the claim is finite, `known` (S,), at all draws, `actions` (S, A)."""
        self.add(f"draws at which {self.what} is not finite", float((~known).sum()), 0.0)
        for first in (~known).nonzero()[:1, 0].tolist():
            action = ", ".join(f"{x:.3g}" for x in actions[first].tolist())
            self.unknown = f"of {len(known):,}, the first at action {action}"

    def of_clipping(self) -> Report:
        text = f"{100 * self.trials[-1].figure:.3g}% of the draws {self.place}"
        verdict = f"wrong: {text}: looks like {FORMS['clipped'].text}"
        return Report(verdict, tuple(self.trials), (), "clipped")

    def fit(self, draws: Scores, far: Scores, stops: bool = False) -> Tensor:
        """Fits a Gaussian, and tests the claim if it is one; error beyond slack at `far`, (F,).

        A claim that `stops` beyond the draws, or at one of `far`, is no Gaussian.
        """
        self.draws, self.all = draws, draws + far
        easy = draws.slack <= INEXACT * draws.slack.median()
        ordered = draws[easy] + draws[~easy] + far
        finite = ordered.claim.nan_to_num(0.0, 0.0, 0.0)
        fit = quadratic(ordered.latent, finite, int(easy.sum()))
        beyond = fit.residual.abs() - ordered.slack
        self.gaussian = bool((beyond[: len(draws.claim)] <= 0).all()) and fit.offset == fit.offset
        self.gauss, self.offset = fit, fit.offset
        stops |= bool((far.claim == -torch.inf).any()) or self.truncated(fit, draws)
        self.gaussian &= not stops
        if self.gaussian:
            self.as_gaussian(fit, float(draws.slack.median()))
        # What rounding may do to the fit grows with the square of the distance.
        z = (far.latent - draws.latent.mean(0)) / draws.latent.std(0)
        return beyond[len(draws.claim) :] - draws.slack.median() * (1.0 + z.square().sum(-1))

    def truncated(self, fit: Quadratic, draws: Scores) -> bool:
        """Whether pairs claim a Gaussian that ends where the draws do: its mass there made 1."""
        if self.what != "log_pi" or not fit.offset > OFFSET + float(draws.slack.median()):
            return False
        std = fit.covariance.diagonal().sqrt()
        ends = torch.stack([draws.latent.amin(0), draws.latent.amax(0)])
        low, high = torch.special.ndtr((ends - fit.mean) / std)
        return abs(fit.offset + float((high - low).log().sum())) < ENDS / len(draws.claim)

    def as_gaussian(self, fit: Quadratic, slack: float) -> None:
        """The claim is a Gaussian of the latents, up to a constant: sharper tests."""
        self.add("|log of the integral|, exact", abs(fit.offset), OFFSET + slack)
        lower, failed = torch.linalg.cholesky_ex(fit.covariance)
        if not self.cut and not int(failed):
            centred = (self.latent - fit.mean).T
            whitened = torch.linalg.solve_triangular(lower, centred, upper=False).T
            half = torch.tensor(whitened.shape[-1] / 2, dtype=torch.float64)
            radius = torch.special.gammainc(half, whitened.square().sum(-1) / 2)
            parts = [*torch.special.ndtr(whitened).T, radius]
            worst = max(ks_statistic(part) for part in parts)
            self.add("KS of the whitened draws", worst, ks_bound(len(whitened), P_MIN))
            for what, test in (("mean", mean_p_value), ("covariance", bartlett)):
                unlikely = abs(math.log10(max(test(whitened), 1e-300)))
                self.add(f"-log10 p of the {what}", unlikely, -math.log10(P_MIN))

    def base(self, points: Scores) -> Base:
        box = bool(self.support.box.all())
        low, high = (self.support.low, self.support.high) if box else (None, None)
        return Base(points.latent, self.latent.mean(0), factor(self.latent), low, high)

    def report(self) -> Report:
        """Names the mistake, where one fits; one that leaves no doubt is a failure by itself."""
        found: Sequence[Form] = ()
        failed = [trial for trial in self.trials if not trial.passed]
        if [trial.name for trial in failed] == ["|entropy_gap|"]:
            error = float(self.draws.claim.std()) / math.sqrt(len(self.draws.claim))
            found = recognise_entropy(self.base(self.draws), -self.entropy_gap, error)
        elif failed or not self.gaussian or self.reach() < TOWARDS:
            slack, count = self.all.slack + PARAMETERS, FEW if self.cut else len(self.latent)
            found = recognise(self.base(self.all), self.all.claim, slack, count)
        if not failed:
            # Two mistakes at once that leave every other line right are a chance.
            single = [form for form in found if form.kind in EXACT and " + " not in form.name]
            found = [form for form in single if self.beyond_doubt(form)]
            self.add("mistakes that fit to rounding", float(len(found)), 0.0)
        if not self.trials[0].passed:
            found = [FORMS[self.shape], *found]
        name = found[0].name if found else None
        return Report(self.words(found), tuple(self.trials), self.curves, name)

    def beyond_doubt(self, form: Form) -> bool:
        """Whether its error exceeds what rounding, also of actions to float32, can cause."""
        error = form.delta(self.base(self.all)).abs()
        if float(error.max()) < SMALLEST:
            return False
        usual = form.kind == "jacobian" and form.usual and form.constant > LEAST
        return usual or bool((self.all.slack < CERTAIN * error).any())

    def words(self, found: Sequence[Form]) -> str:
        """The verdict in one line."""
        size, failed = self.latent.shape[-1], [trial for trial in self.trials if not trial.passed]
        aside = ""
        if self.shape == "keepdim" and size > 1:
            aside = "; its shape is (N, 1): subtract it from (N, 1) only"
        if not failed:
            return self.confirmed() + aside
        parts = []
        if not self.trials[0].passed:
            parts.append(f"{self.what} gives {SLIPS[self.shape].format(size)}")
        elif not self.unknown and (error := self.error(found)) is not None:
            parts.append(self.amount(error))
        for trial in failed if not parts else ():
            texts = [text for name, text in FAILED.items() if trial.name.startswith(name)]
            text = texts[0] if texts else f"{trial.name} is {{0:.2g}}, above {{2:.2g}}"
            values = trial.figure, self.what, trial.bound, self.integral, side(-self.entropy_gap)
            parts.append(text.format(*values, self.unknown))
        looks = "" if self.unknown else ": unknown error"
        if found:
            looks = ": looks like " + ", or ".join(form.text for form in found[:3])
        return f"wrong: {'; '.join([*filter(None, dict.fromkeys(parts))][:2])}{looks}{aside}"

    def reach(self) -> float:
        """The |u| between two bounds out to which the claim was judged.

        Of a density that is no normal before tanh, a few draws farther out judge nothing.
        """
        judged = self.all if self.gaussian else self.draws
        found = judged.latent[:, self.support.box].abs()
        if not found.numel():
            return math.inf
        return float(found.max() if self.gaussian else found.amax(-1).quantile(1.0 - OUTER))

    def confirmed(self) -> str:
        """What was found right, and where."""
        reach, count = self.reach(), len(self.latent)
        names = ("|normaliser - 1|", "|E[q / exp(log_pi)] - 1|")
        total = [trial.bound for trial in self.trials if trial.name in names]
        vague = not self.gaussian and any(not bound < VAGUE for bound in total)
        sum_up = "whose integral is not judged" if vague else "which integrates to 1"
        text = f"{count:,} draws follow exp({self.what}), {sum_up}"
        if vague and self.what == "log_pi":
            return (
                f"not judged: too few of {count:,} pairs lie near one another to show the integral "
                "of exp(log_pi), but no known mistake explains them"
            )
        if vague:
            return f"right where it draws: {text}: too few points show it"
        if reach > TOWARDS:
            return f"right: {text}"
        left = f", where {self.left_out} draws are rounded to a bound" if self.left_out else ""
        return f"right where it draws: {text}; not judged beyond |u| = {reach:.1f}{left}"

    def error(self, found: Sequence[Form]) -> Tensor | None:
        """Of the claim in nats at all points, (N,), where the right one is known."""
        if found and found[0].kind in KNOWN:
            return found[0].delta(self.base(self.all))
        failed = " ".join(trial.name for trial in self.trials if not trial.passed)
        if found or not self.gaussian:
            return None
        if "p of the mean" in failed or "p of the covariance" in failed:
            base = self.base(self.all)
            return self.all.claim - base.normal(base.z)
        return torch.full_like(self.all.claim, self.offset) if "|log of" in failed else None

    def amount(self, error: Tensor) -> str:
        """'log_prob is too high by 0.41 ± 0.02 nat on average, by up to 4.8 where |u| = 8'."""
        own = error[: len(self.draws.claim)]
        certain = self.all.slack < CERTAIN * error.abs()
        error = torch.where(certain | ~certain.any() & self.all.slack.isfinite(), error, 0.0)
        mean, spread = float(own.mean()), float(own.std())
        largest = int(error.abs().nan_to_num(0.0, 0.0, 0.0).argmax())
        most = float(error[largest])
        place = self.all.latent[largest]
        where = (
            f"|u| = {float(place.abs().max()):.1f}"
            if bool(self.support.box.any())
            else (f"action = {', '.join(f'{x:.3g}' for x in self.support.action(place).tolist())}")
        )
        if spread < 1e-3 * abs(mean):
            return f"{self.what} is too {side(mean)} by exactly {abs(mean):.3g} nat"
        farthest = f"{abs(most):.2g} nat at {where}"
        if abs(mean) < OFFSET:
            return f"{self.what} is right at most draws, but too {side(most)} by {farthest}"
        margin = DEVIATIONS / 3 * spread / math.sqrt(len(own))
        text = f"{self.what} is too {side(mean)} by {abs(mean):.2g} ± {margin:.1g} nat on average"
        return f"{text}, by up to {farthest}" if most else text


def side(error: float) -> str:
    return "high" if error > 0 else "low"
