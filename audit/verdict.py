"""Anyone's log-probability, checked: from what is handed in to a verdict in words."""

from typing import Any

import torch
from torch import Tensor

from audit.checks import slope_error
from audit.choices import choices, of_pairs, table_of
from audit.density import Effort, examine
from audit.diagnosis import NEAR, SLIPS, Diagnosis, Scores
from audit.given import Given, called, draw, read, resolved, seeded
from audit.pairs import tried
from audit.report import Report

THOROUGH = Effort(nodes=(33, 129))
QUICK = Effort(lines=40, nodes=(17, 17), panels=40, curve_lines=16, curve_nodes=61)
FEW = 1000  # draws that are scored by a function that takes one action, or a few, at a time
KEPT = 0.5  # the least share of the draws that rounding leaves inside the bounds
WITHOUT = 0.9  # the largest share of draws at which log_prob is not finite
FAR = 1e-3  # nats, of an error far out
SHARP = 1e-3  # nats, of what rounding may do where slopes are tried
SLOPES, FEWEST = 200, 4  # draws at which the slope is tried, and points near a bound
FARTHEST, LEVELS = 20.0, 24  # |u|, and points on each axis out to there


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
        policy: an object with `sample` and `log_prob`, a pair (sample, log_prob), or a function
            without arguments that returns one of these, or a batch of actions and log_pi.
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
        if entropy is None:
            entropy = getattr(policy, "entropy", None)
        elif callable(entropy):
            entropy = called("entropy", entropy)
        claimed = {"probs": probs, "logits": logits, "log_probs": log_probs}
        alone = all(one is None for one in (log_prob, mask, *claimed.values()))
        if alone and drawn.second is not None and not drawn.actions.is_floating_point():
            return of_pairs(drawn, entropy)
        table = table_of(policy, drawn, log_prob, claimed, mask)
        if table is not None:
            if low is not None or high is not None:
                raise ValueError("low, high: came with choices, which have none; leave them out")
            return choices(drawn, table, log_prob, entropy, mask)
        if mask is not None:
            raise ValueError("mask: came with actions that are no choices; leave it out")
        given = read(policy, drawn, log_prob, entropy, low, high)
        if given.function is not None:
            return Continuous(given, generator).report(noise_slope(sample, noise))
        if given.log_pi is None:
            raise ValueError("log_prob: none came; give log_prob=, or check_pairs(actions, log_pi)")
        return tried(given, drawn, generator, by_noise=noise_slope(sample, noise))


def noise_slope(sample: Any, noise: Any) -> float | None:
    """Of log_pi as `sample` gives it by its noise, where actions can be differentiated by that.

    It is called with as much noise as before, since its parameters may be of so many states.
    """

    def log_pi(values: Tensor) -> Tensor:
        count = len(values)
        result = called("sample", sample, values.reshape(count, *noise.shape[1:]).to(noise.dtype))
        if not isinstance(result, tuple) or not all(isinstance(x, Tensor) for x in result[:2]):
            return torch.zeros(count)
        action, second = (one.reshape(count, -1).sum(-1) for one in result[:2])
        return second + 0.0 * action

    if not isinstance(noise, Tensor) or not noise.is_floating_point():
        return None
    return slope_error(log_pi, noise.reshape(len(noise), -1), fine=noise.dtype == torch.float64)


class Continuous:
    """The tests of a density."""

    def __init__(self, given: Given, generator: torch.Generator) -> None:
        assert given.function is not None
        self.given, self.generator = given, generator
        self.support, self.function = given.support, given.function
        self.slow = 0 < self.function.rows < 1000 or self.function.shape in SLIPS
        kinds = (given.precision, self.function.dtype)  # one may be the coarser
        coarser = max(kinds, key=lambda kind: torch.finfo(kind).eps)
        self.least, self.largest = self.support.reach(coarser)
        if self.function.takes_latent:
            self.least, self.largest = self.least - torch.inf, self.largest + torch.inf

    def density(self, latent: Tensor) -> Tensor:
        """Claimed log-density of latents (*, A), (*,); none where a bound is too near."""
        inside = latent.clamp(self.least, self.largest)
        found = self.function(self.support.action(inside), inside).detach()
        known = (inside == latent).all(-1)
        if not bool(found.isfinite().all()):  # it overflows; beyond all draws that is no error
            drawn = self.given.latent
            among = ((latent >= drawn.amin(0)) & (latent <= drawn.amax(0))).all(-1)
            known &= found.isfinite() | among
        return torch.where(known, found + self.support.log_slope(inside), -torch.inf)

    def report(self, by_noise: float | None = None) -> Report:
        """All tests, and what they mean; `by_noise` is the error of log_pi's slope by its noise."""
        given, function = self.given, self.function
        result = Diagnosis("log_prob", self.support, given.latent, function.shape)
        result.shapes()
        inside = ((given.latent >= self.least) & (given.latent <= self.largest)).all(-1)
        kept = float(inside.double().mean())
        if not function.takes_latent:
            result.bounds(given.actions, given.precision)
            if result.clipped:
                return result.of_clipping()
            if kept < KEPT:
                remedy = "draw and score in float64, or " * (given.precision != torch.float64)
                raise ValueError(
                    f"sample: {1 - kept:.0%} of the draws are rounded to a bound, where an action "
                    f"has no density of its own; {remedy}hand in pairs"
                )
        result.left_out = int((~inside).sum())
        latent, result.latent = given.latent[inside], given.latent[inside]
        some = latent[: FEW if self.slow else None]
        draws = self.scores(some)
        unknown = ~draws.claim.isfinite()
        if float(unknown.double().mean()) > WITHOUT:
            raise ValueError(
                f"log_prob: is not finite at {int(unknown.sum())} of {len(unknown)} draws; return "
                "a number for every action that `sample` draws"
            )
        result.finite(~unknown, self.support.action(some))
        far = self.scores(self.saturated(latent))
        outside = self.density(beyond(latent)) == -torch.inf
        stops = bool(outside.any()) and not bool(self.support.box.all())
        error = result.fit(draws[~unknown], far, stops)
        draws = result.draws
        log_pi = draws.claim - self.support.log_slope(draws.latent)
        effort = QUICK if self.slow else THOROUGH
        entropy = None if result.cut else given.entropy
        found = examine(
            self.density,
            self.support,
            some[~unknown],
            log_pi,
            self.generator,
            entropy,
            effort,
            kept,
        )
        result.trials += found.trials
        result.curves, result.integral = found.curves, found.normaliser
        result.entropy_gap = found.entropy_gap
        if len(error):
            ends = f"out to |u| = {float(far.latent.abs().max()):.1f}"
            wild = float((far.claim.isnan() | (far.claim == torch.inf)).sum())
            result.add(f"points {ends} without a finite log_prob", wild, 0.0)
            if result.gaussian:
                result.add(f"error {ends}, nats beyond rounding", float(error.max()), FAR)
        if given.log_pi is not None:
            gap = (given.log_pi[inside][: len(unknown)][~unknown] - log_pi).abs()
            eps = torch.finfo(given.precision).eps
            units = eps * (1e3 if eps < 1e-6 else 10.0)  # half precision has three digits
            gap = gap - draws.slack - units * (1 + log_pi.abs())
            result.add("|log_pi - log_prob| of the draws", float(gap.max()), 0.0)
        self.slopes(result, draws, far)
        result.slope("log_pi by its noise", by_noise)
        return result.report()

    def slopes(self, result: Diagnosis, draws: Scores, far: Scores) -> None:
        """Tests the gradient where rounding changes little, at draws and near the bounds."""
        function, fine = self.function, self.function.dtype == torch.float64
        if not function.gives_tensors:
            return

        def error(points: Tensor, *how: Any) -> float | None:
            by_latent = lambda u: function(self.support.action(u), u)  # noqa: E731
            return slope_error(by_latent, points, spread, *how) if len(points) > FEWEST else None

        spread = draws.latent.quantile(0.75, 0) - draws.latent.quantile(0.25, 0)
        near, sharp = draws.latent[fine | (draws.slack < SHARP)], far.latent[far.slack < SHARP]
        result.slope("log_prob", error(near[: SLOPES // 10 if self.slow else SLOPES], fine))
        off = []
        for axis in self.support.box.nonzero()[:, 0].tolist():
            points = sharp[sharp[:, axis].abs() > NEAR]
            off.append(error(points, False, 1 / max(1, len(points)), [axis]))
        worst = max((one for one in off if one is not None), default=None)
        result.slope("log_prob near the bounds", worst)

    def scores(self, latent: Tensor) -> Scores:
        """At latents (N, A), moved to where the function's float type has an action.

        Rounding is as large as what a step of one unit of that type changes.
        """
        function, support, kind = self.function, self.support, self.function.dtype
        centre = self.given.latent.median(0).values
        if function.takes_latent:
            u, *near = neighbours(latent, centre, kind)
            found, *moved = (function(support.action(x), x).detach() for x in (u, *near))
        else:
            action, *near = neighbours(
                support.action(latent), support.action(centre), kind, support.size
            )
            u = support.latent(action)
            found, *moved = (function(x).detach() for x in (action, *near))
        slope = support.log_slope(u)
        units = torch.finfo(kind).eps * (1e4 if kind == torch.float64 else 50.0)
        one, two = ((other - found).abs() for other in moved)
        slack = 3.0 * torch.maximum(one, two / 2) + units * (1.0 + found.abs() + slope.abs())
        return Scores(u, found + slope, slack.nan_to_num(torch.inf, torch.inf))

    def saturated(self, latent: Tensor) -> Tensor:
        """Points on each axis between two bounds, the others at the median, and all at once."""
        middle, box = latent.median(0).values, self.support.box
        steps = torch.linspace(1.0 / LEVELS, 1.0, LEVELS, dtype=torch.float64)
        steps = torch.cat([-steps.flip(0), steps]).unsqueeze(-1)
        along = steps * torch.where(steps > 0, self.largest, -self.least).clamp_max(FARTHEST)
        directions = [axes & box for axes in [*torch.eye(len(middle), dtype=torch.bool), box]]
        points = [torch.where(axes, along, middle) for axes in directions if bool(axes.any())]
        return torch.cat(points) if points else latent[:0]


def beyond(latent: Tensor) -> Tensor:
    """Points on each axis far beyond all draws (S, A), (2 A, A)."""
    middle, reach = latent.median(0).values, 2.0 * (latent.amax(0) - latent.amin(0))
    return torch.cat([middle + torch.diag(reach), middle - torch.diag(reach)])


def neighbours(
    values: Tensor, towards: Tensor, kind: torch.dtype, least: Any = 0.0
) -> list[Tensor]:
    """[values rounded to a float type, the same moved by two and by four units of it], float64.

    A function may subtract a bound and divide by the width first, and then keeps no more than is
    kept of that: several neighbours may become the same number.
    """
    rounded = values.to(kind).double()
    size = torch.maximum(rounded.abs(), torch.as_tensor(least, dtype=torch.float64))
    unit = torch.finfo(kind).eps * size * (towards - rounded).sign()
    return [rounded, rounded + 2.0 * unit, rounded + 4.0 * unit]
