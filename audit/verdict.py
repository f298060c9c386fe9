"""Anyone's log-probability, checked: from what is handed in to a verdict in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audit import checks, choices
from audit.density import DEVIATIONS, P_MIN, Effort, Finding, Trial, examine
from audit.forms import FORMS, Base
from audit.given import Given, draw, read, resolved, seeded
from audit.recognition import recognise, recognise_entropy
from audit.report import Report

THOROUGH = Effort(nodes=(33, 129))
QUICK = Effort(lines=40, nodes=(17, 17), curve_lines=16, curve_nodes=61)
FEW = 1000  # draws that are scored by a function that takes one action, or a few, at a time
ON_BOUNDS, NEAR = 0.01, 5.0  # the largest share of draws on a bound, |u| of those near one
OFFSET = 1e-4  # nats
FAR = 1e-3  # nats
PARAMETERS = 1e-6  # nats, for a scale and its logarithm that are float32
SLOPES, SLOPE = 200, 1e-3  # draws at which the slope is tried, and its relative error
FARTHEST = 20.0  # |u|
LEVELS = 24  # points on each axis out to where actions are rounded to a bound
EXACT = ("jacobian", "inverse")  # kinds whose errors leave no doubt, however small
SLIPS = ("broadcast", "summed_over_batch")  # shapes of log_prob that are wrong in any dimension
KNOWN = (*EXACT, "scale", "constant")  # whose errors are of each draw


def check(
    policy: Any = None,
    *,
    sample: Any = None,
    log_prob: Any = None,
    entropy: Any = None,
    low: Any = None,
    high: Any = None,
    probs: Any = None,
    logits: Any = None,
    log_probs: Any = None,
    mask: Any = None,
    noise: Any = None,
    draws: int = 20_000,
    seed: int = 0,
) -> Report:
    """Whether `log_prob` is the log-density, in nats, of what `sample` draws, at one state.

    Args:
        policy: an object with `sample` and `log_prob`, a function without arguments that returns
            one, or a pair (sample, log_prob).
        sample: called with (draws,), draws or nothing; gives actions (S,), (S, A) or one, or a pair
            of actions and log_pi.
        log_prob: of actions shaped as `sample` gives them.
        entropy: a number or a function, in nats.
        low: least actions, a number or (A,); without it the support is unbounded, or found out.
        high: largest actions.
        probs: (K,) or (D, K) of a discrete policy whose draws are integers (S,) or (S, D).
        logits: in place of `probs`.
        log_probs: in place of `probs`.
        mask: (K,) or (D, K), True where a choice is permitted.
        noise: what to call `sample` with, (S, ...).
        draws: how many.
        seed: of torch's and numpy's generators, which are restored.

    Raises:
        ValueError: what was handed in cannot be checked, in one line with the remedy.
    """
    with seeded(seed) as generator:
        policy, sample, log_prob = resolved(policy, sample, log_prob)
        drawn = draw(sample, draws, noise)
        entropy = getattr(policy, "entropy", None) if entropy is None else entropy
        table = choices.table_of(policy, drawn, probs, logits, log_probs, mask)
        discrete = getattr(getattr(policy, "support", None), "is_discrete", not drawn.floating)
        if table is not None or discrete:
            exact = any(
                str(getattr(t, "dtype", "")).endswith("float64") for t in (probs, logits, log_probs)
            )
            return choices.report(drawn, log_prob, entropy, table, mask, exact)
        given = read(policy, drawn, log_prob, entropy, low, high)
        if given.function is None:
            raise ValueError("log_prob: none came; give log_prob=, or check_pairs(actions, log_pi)")
        return Continuous(given, generator).report()


@dataclass(eq=False)
class Scores:
    """Claimed log-densities of latents, and what rounding may do to each."""

    latent: Tensor  # (N, A)
    claim: Tensor  # (N,)
    slack: Tensor  # (N,)


def scores(given: Given, latent: Tensor) -> Scores:
    """At latents (N, A), moved to where the function's float type has an action."""
    function, support = given.function, given.support
    assert function is not None
    kind = function.dtype
    centre = given.latent.median(0).values
    if function.takes_latent:
        u = latent.to(kind)
        near = torch.nextafter(u, centre.to(kind).expand_as(u)).double()
        u = u.double()
        found, moved = (function(support.action(x), x) for x in (u, near))
    else:
        action = support.action(latent).to(kind)
        inward = support.action(centre).to(kind).expand_as(action)
        near = torch.nextafter(action, inward).double()
        action = action.double()
        u = support.latent(action)
        found, moved = function(action), function(near)
    slope = support.log_slope(u)
    found, moved = found.detach().double(), moved.detach().double()
    units = torch.finfo(kind).eps * (50.0 if kind == torch.float32 else 1e4)
    slack = 3.0 * (moved - found).abs() + units * (1.0 + found.abs() + slope.abs())
    return Scores(u, found + slope, slack.nan_to_num(torch.inf, torch.inf))


class Continuous:
    """The tests of a density, and what they mean."""

    def __init__(self, given: Given, generator: torch.Generator) -> None:
        assert given.function is not None
        self.given, self.generator, self.support = given, generator, given.support
        self.function = given.function
        self.slow = 0 < self.function.rows < 1000 or self.function.shape in SLIPS
        self.reach = self.support.reach(self.function.dtype)
        if self.function.takes_latent:
            self.reach = self.reach[0] - torch.inf, self.reach[1] + torch.inf
        self.trials: list[Trial] = []
        self.clipped = False

    def density(self, latent: Tensor) -> Tensor:
        """Claimed log-density of latents (*, A), (*,)."""
        least, largest = self.reach
        inside = latent.clamp(least, largest)
        found = self.function(self.support.action(inside), inside).detach().double()
        known = (inside == latent).all(-1)
        return torch.where(known, found + self.support.log_slope(inside), -torch.inf)

    def report(self) -> Report:
        given, function = self.given, self.function
        size = given.actions.shape[-1]
        wrong = function.shape in SLIPS or (function.shape == "sum_forgotten" and size > 1)
        self.trials.append(Trial("one number for each action: 0 if so", float(wrong), 0.0))
        if given.on_bounds > 0:
            self.on_bounds()
        least, largest = self.reach
        inside = ((given.latent >= least) & (given.latent <= largest)).all(-1)
        lost = 1.0 - float(inside.double().mean())
        if lost > ON_BOUNDS:
            raise ValueError(
                f"log_prob: {lost:.1%} of the draws are so near a bound that "
                f"{function.dtype} does not hold them apart; let it take float64"
            )
        self.latent = given.latent[inside]
        draws = scores(given, self.latent[: FEW if self.slow else None])
        finite = draws.claim.isfinite()
        self.trials.append(
            Trial("draws at which log_prob is not finite", float((~finite).sum()), 0.0)
        )
        if not bool(finite.all()):
            first = given.actions[inside][: len(finite)][~finite][0].tolist()
            where = f"{int((~finite).sum()):,} of {len(finite):,} draws, first at {first}"
            return Report(f"wrong: log_prob is not finite at {where}", tuple(self.trials), ())
        far = scores(given, self.saturated(draws.latent, least, largest))
        order = (draws.slack > 4 * draws.slack.median()).double().argsort(stable=True)
        count = int((draws.slack <= 4 * draws.slack.median()).sum())
        together = torch.cat([draws.latent[order], far.latent])
        claim = torch.cat([draws.claim[order], far.claim])
        slack = torch.cat([draws.slack[order], far.slack])
        self.all = Scores(together, claim, slack)
        self.fit = checks.quadratic(together, claim.nan_to_num(0.0, 0.0, 0.0), count)
        beyond = self.fit.residual.abs() - slack
        self.gaussian = bool((beyond[: len(finite)] <= 0).all())
        log_pi = draws.claim - self.support.log_slope(draws.latent)
        finding = examine(
            self.density,
            self.support,
            draws.latent,
            log_pi,
            self.generator,
            given.entropy,
            QUICK if self.slow else THOROUGH,
        )
        self.trials += finding.trials
        if len(far.claim):
            ends = f"|u| = {float(far.latent.abs().max()):.1f}"
            wild = float((far.claim.isnan() | (far.claim == torch.inf)).sum())
            self.trials.append(Trial(f"points out to {ends} without a finite log_prob", wild, 0.0))
        if self.gaussian:
            self.as_gaussian(self.latent)
            if len(far.claim):
                error = float(beyond[len(finite) :].max())
                self.trials.append(Trial(f"error out to {ends}, nats beyond rounding", error, FAR))
        self.pairs(log_pi, inside, draws)
        self.slopes(draws)
        return self.conclude(finding, draws)

    def saturated(self, latent: Tensor, least: Tensor, largest: Tensor) -> Tensor:
        """Points on each axis between two bounds, the others at the median, and all at once."""
        middle, box = latent.median(0).values, self.support.box
        steps = torch.linspace(1.0 / LEVELS, 1.0, LEVELS, dtype=torch.float64)
        steps = torch.cat([-steps.flip(0), steps]).unsqueeze(-1)
        along = steps * torch.where(steps > 0, largest, -least).clamp_max(FARTHEST)
        directions = [axes & box for axes in [*torch.eye(len(middle), dtype=torch.bool), box]]
        points = [torch.where(axes, along, middle) for axes in directions if bool(axes.any())]
        return torch.cat(points) if points else latent[:0]

    def as_gaussian(self, latent: Tensor) -> None:
        """The claim is a Gaussian of the latents, up to a constant: sharper tests."""
        fit = self.fit
        self.trials.append(Trial("|log of the integral|, exact", abs(fit.offset), OFFSET))
        lower, failed = torch.linalg.cholesky_ex(fit.covariance)
        if int(failed) or not bool(lower.isfinite().all()):
            return
        whitened = torch.linalg.solve_triangular(lower, (latent - fit.mean).T, upper=False).T
        named = {"mean": checks.mean_p_value(whitened), "covariance": checks.bartlett(whitened)}
        for what, p_value in named.items():
            unlikely = -torch.tensor(max(p_value, 1e-300)).log10()
            least = -torch.tensor(P_MIN).log10()
            self.trials.append(Trial(f"-log10 p of the {what}", float(unlikely), float(least)))

    def pairs(self, log_pi: Tensor, inside: Tensor, draws: Scores) -> None:
        """log_pi handed out with the draws, against log_prob."""
        own = self.given.log_pi
        if own is None:
            return
        off = (own[inside][: len(log_pi)] - log_pi).abs()
        slack = draws.slack + 1e-4 * (1 + log_pi.abs())
        self.trials.append(
            Trial("|log_pi - log_prob| of the draws", float((off - slack).max()), 0.0)
        )

    def slopes(self, draws: Scores) -> None:
        """The slope by automatic differentiation, against differences of the values."""
        if self.function.dtype != torch.float64 or not self.function.gives_tensors:
            return
        u = draws.latent[: SLOPES // 10 if self.slow else SLOPES].clone().requires_grad_()
        value = self.function(self.support.action(u), u)
        if not value.requires_grad:
            return
        (found,) = torch.autograd.grad(value.sum(), u)
        step = 1e-4 * draws.latent.std(0)
        worst = 0.0
        for i, width in enumerate(step):
            away = torch.zeros_like(u)
            away[:, i] = width
            ends = [
                self.function(self.support.action(x), x).detach().double()
                for x in (u.detach() + away, u.detach() - away)
            ]
            slope = (ends[0] - ends[1]) / (2 * width)
            error = (found[:, i] - slope).abs() / (1 / draws.latent.std(0)[i] + slope.abs())
            worst = max(worst, float(error.nan_to_num(torch.inf).quantile(0.9)))
        self.trials.append(Trial("slope of log_prob against differences, relative", worst, SLOPE))

    # what it means

    def base(self) -> Base:
        latent = self.latent
        box = bool(self.support.box.all())
        low, high = (self.support.low, self.support.high) if box else (None, None)
        return Base(self.all.latent, latent.mean(0), checks.factor(latent), low, high)

    def conclude(self, finding: Finding, draws: Scores) -> Report:
        self.count = len(draws.claim)
        failed = [trial for trial in self.trials if not trial.passed]
        names: Sequence[str] = ()
        if failed or not self.gaussian:
            names = recognise(
                self.base(), self.all.claim, self.all.slack + PARAMETERS, len(self.latent)
            )
        if not failed:
            names = [n for n in names if any(FORMS[p].kind in EXACT for p in n.split(" + "))]
        if names and not failed:
            self.trials.append(Trial("known mistakes that fit to rounding", float(len(names)), 0.0))
        if [trial.name for trial in failed] == ["|entropy_gap|"]:
            error = float(draws.claim.std()) / self.count**0.5
            names = recognise_entropy(self.base(), -finding.entropy_gap, error)
        if self.clipped:
            names = ["clipped"]
        if not self.trials[0].passed:
            names = [self.function.shape, *names]
        verdict = words(self, finding, names, failed)
        name = names[0] if names else None
        return Report(verdict, tuple(self.trials), finding.curves, name)

    def on_bounds(self) -> None:
        """Tests whether draws on a bound are there by rounding: others are then very near it."""
        bound = (self.given.actions <= self.support.low) | (self.given.actions >= self.support.high)
        bound = bound.any(-1)
        share = float(bound.double().mean())
        near = float((self.given.latent[~bound].abs() > NEAR).any(-1).double().sum())
        if near > 0 and share > ON_BOUNDS:
            raise ValueError(
                f"sample: {share:.1%} of the draws are rounded to a bound, where an action has no "
                "density of its own; draw in float64, or at a state that is less saturated"
            )
        self.clipped = near == 0 and int(bound.sum()) >= 3
        self.trials.append(
            Trial("share of the draws clipped to a bound", share * self.clipped, 0.0)
        )


def words(found: Continuous, finding: Finding, names: Sequence[str], failed: list[Trial]) -> str:
    """The verdict in one line."""
    count, size = len(found.latent), found.given.actions.shape[-1]
    aside = ""
    if found.function.shape == "keepdim" and size > 1:
        aside = "; its shape is (N, 1): subtract it from (N, 1) only"
    if not failed and not names:
        return f"right: {count:,} draws follow exp(log_prob), which integrates to 1{aside}"
    shape = SHAPES.get(found.function.shape, "").format(size)
    error = observed(found, names)
    parts = [] if error is None else [amount(error, found.all, found.count)]
    for trial in failed:
        text = next(
            (text for name, text in SAID.items() if trial.name.startswith(name)), trial.name
        )
        side = "high" if finding.entropy_gap < 0 else "low"
        parts.append(text.format(trial.figure, finding.normaliser, side, shape, bound=trial.bound))
    texts = [" and ".join(FORMS[part].text for part in name.split(" + ")) for name in names[:3]]
    looks = "looks like " + ", or ".join(texts) if texts else "unknown error"
    kept = [part for part in dict.fromkeys(parts) if part][: 1 if error is not None else 2]
    return f"wrong: {'; '.join(kept)}: {looks}{aside}"


SHAPES = {
    "sum_forgotten": "{0} for {0} components",
    "broadcast": "N for each of N",
    "summed_over_batch": "one for all together",
}
SAID = {  # of a test that failed, where the error in nats is not known
    "one number": "log_prob does not give one number for each action, but {3}",
    "share of the draws clipped": "{0:.1%} of the draws lie exactly on a bound",
    "pit_ks": "the draws do not follow exp(log_prob), Kolmogorov-Smirnov {0:.2g} > {bound:.2g}",
    "|normaliser": "exp(log_prob) integrates to {1:.3g}",
    "|log of": "",
    "|entropy_gap|": "entropy() is too {2} by {0:.2g} nat",
    "points": "log_prob is not finite at {0:.0f} points near the bounds",
    "|log_pi - ": "log_pi and log_prob differ by {0:.2g} nat at the same draw",
    "slope": "the gradient of log_prob is not the slope of its values",
}


def observed(found: Continuous, names: Sequence[str]) -> Tensor | None:
    """Error of log_prob in nats at all points, (N,), where the right one is known."""
    base, fit = found.base(), found.fit
    kinds = [FORMS[part] for part in names[0].split(" + ")] if names else []
    if kinds and all(kind.kind in KNOWN for kind in kinds):
        return sum((kind.delta(base) for kind in kinds), torch.zeros_like(found.all.claim))
    failed = " ".join(trial.name for trial in found.trials if not trial.passed)
    if kinds or not found.gaussian or not math.isfinite(fit.offset):
        return None
    if "p of the" in failed:
        return found.all.claim - (base.right + found.support.log_slope(base.u))
    if "|log of" in failed:
        return torch.full_like(found.all.claim, fit.offset)
    return None


def amount(error: Tensor, at: Scores, count: int) -> str:
    """'log_prob is too high by 0.41 ± 0.02 nat on average, by up to 4.8 where |u| > 8'."""
    own = error[:count]
    error = torch.where(at.slack < 0.1 * error.abs(), error, 0.0)
    mean, spread = float(own.mean()), float(own.std())
    side = "high" if mean > 0 else "low"
    largest = int(error.abs().nan_to_num(0.0).argmax())
    most, place = float(error[largest]), float(at.latent[largest].abs().max())
    if spread < 1e-3 * abs(mean):
        return f"log_prob is too {side} by exactly {abs(mean):.3g} nat"
    if abs(mean) < 1e-4:
        side = "high" if most > 0 else "low"
        what = "log_prob is right at most draws, but too"
        return f"{what} {side} by {abs(most):.2g} nat at |u| = {place:.1f}"
    margin = DEVIATIONS / 3 * spread / count**0.5
    text = f"log_prob is too {side} by {abs(mean):.2g} ± {margin:.1g} nat on average"
    return f"{text}, by up to {abs(most):.2g} at |u| = {place:.1f}"
