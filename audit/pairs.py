"""The check where there are only pairs of an action and its log_pi, as an actor returns them."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from audit.checks import estimate, factor
from audit.choices import of_pairs
from audit.density import CURVES, DEVIATIONS, Curve, in_units
from audit.diagnosis import Diagnosis, Scores
from audit.given import FEWEST, Drawn, Given, read, seeded
from audit.report import Report
from audit.support import Support, floats, latents, tensor

KEPT = 0.1  # the least share of pairs with a finite log_pi, of an action inside the bounds
WINDOWS = 10  # of neighbouring draws, in one dimension
LONGEST = 5.0  # spacings are cut there, in units of their mean
CENTRES, SHARE = 400, 0.01  # of bumps in several dimensions, and of the draws in each
ROUGH = 1e-2  # an estimate of the integral may be off by the curvature of the density
AXES = 8  # components with bumps of their own
ENDS = 10  # draws at the least or the largest action
POINTS = 200  # of a curve


def check_pairs(
    actions: Any, log_pi: Any, *others: Any, low: Any = None, high: Any = None, seed: int = 0
) -> Report:
    """Whether `log_pi` are the log-densities, in nats, of draws `actions`, all at one state.

    Args:
        actions: (S,) or (S, A), or integers for choices; 1,000 or more.
        log_pi: (S,) of them.
        others: ignored, so that all that an actor returns can be handed in.
        low: least actions, a number or (A,); without it they are unbounded.
        high: largest actions.
        seed: of what is chosen at random.

    Raises:
        ValueError: what was handed in cannot be checked, in one line with the remedy.
    """
    with seeded(seed) as generator:
        came, second = tensor(actions, "actions").detach(), floats(log_pi, "log_pi").detach()
        rows = len(came) if came.ndim else 0
        size = came[0].numel() if rows else 1
        fitting = [(rows,), (rows, 1), (1, rows), (rows, size), (rows, rows)]
        if came.ndim not in (1, 2) or tuple(second.shape) not in fitting:
            raise ValueError(
                f"log_pi: shape {tuple(second.shape)} does not fit actions {tuple(came.shape)}; "
                "give (S,) for (S, A)"
            )
        if rows < FEWEST:
            raise ValueError(f"actions: {rows} are too few to judge by; give {FEWEST:,} or more")
        shape = slip(tuple(second.shape), tuple(came.shape))
        values = second.diagonal() if shape == "broadcast" else second
        drawn = Drawn(came, values.reshape(rows, -1), name="actions")
        if not came.is_floating_point():
            return of_pairs(drawn)
        return tried(read(None, drawn, None, None, low, high), drawn, generator, shape)


def slip(of_log_pi: tuple[int, ...], of_actions: tuple[int, ...]) -> str:
    count, size = of_actions[0], of_actions[1] if len(of_actions) > 1 else 1
    known = {(count,): "", (count, 1): "keepdim", (count, count): "broadcast"}
    return known.get(of_log_pi, "sum_forgotten" if of_log_pi == (count, size) else "keepdim")


def tried(
    given: Given,
    drawn: Drawn,
    generator: torch.Generator,
    shape: str = "",
    by_noise: float | None = None,
) -> Report:
    """The check; where no bounds are known and all actions lie in [-1, 1], also with these."""
    report = pairs(given, drawn, generator, shape, by_noise)
    bounded = given.support.low.isfinite() | given.support.high.isfinite()
    if report.verdict.startswith("right: ") or bool(bounded.any()):
        return report
    actions, hint = given.actions, ""
    if bool((actions.abs() <= 1).all() and (actions < 0).any()):
        ends = torch.full_like(given.support.low, 1.0)
        within = replace(given, support=Support(-ends, ends))
        within.latent = latents(actions, drawn.actions.dtype, within.support)
        squashed = pairs(within, drawn, generator, shape, by_noise)
        if report.passed or squashed.passed:
            return squashed
        hint = "; if the actions are tanh of something, give low=-1, high=1"
    elif not report.passed:
        equal = torch.stack([actions == actions.amin(0), actions == actions.amax(0)]).sum(1)
        hint = "; if the actions have bounds, give low= and high=" * bool((equal > ENDS).any())
    return replace(report, verdict=report.verdict + hint)


def pairs(
    given: Given,
    drawn: Drawn,
    generator: torch.Generator,
    shape: str = "",
    by_noise: float | None = None,
) -> Report:
    """Checks the log_pi that came with the draws; `by_noise` is the error of its slope by noise."""
    assert drawn.second is not None
    support, log_pi = given.support, drawn.second.double().sum(-1)
    if not shape and 1 < drawn.second.shape[1] == given.latent.shape[1]:
        shape = "sum_forgotten"
    result = Diagnosis("log_pi", support, given.latent, shape)
    result.shapes()
    result.bounds(given.actions, given.precision)
    if result.clipped:
        return result.of_clipping()
    least, largest = support.reach(drawn.actions.dtype)
    inside = ((given.latent >= least) & (given.latent <= largest)).all(-1)
    result.left_out, kept = int((~inside).sum()), inside & log_pi.isfinite()
    result.finite(kept | ~inside, given.actions)
    if float(kept.double().mean()) < KEPT:
        raise ValueError(
            f"log_pi: {int(kept.sum())} of {len(kept)} pairs have a finite one and an action that "
            "is not rounded to a bound; give others"
        )
    u = support.latent(given.actions[kept])
    claim = log_pi[kept] + support.log_slope(u)
    result.latent = given.latent[kept]
    draws = Scores(u, claim, rounding(given, drawn, u, log_pi[kept]))
    result.fit(draws, draws[:0])
    if u.shape[-1] == 1:
        spacings(result, claim, len(kept))
    else:
        bumps(result, claim, len(kept), generator)
    result.slope("log_pi by its noise", by_noise)
    if given.entropy is not None and not result.cut:
        result.entropy_gap = float(-log_pi[kept].mean()) - given.entropy
        chance = DEVIATIONS * float(log_pi[kept].std()) / math.sqrt(len(u))
        result.add("|entropy_gap|", abs(result.entropy_gap), chance + ROUGH)
    result.curves = curves(result)
    return result.report()


def rounding(given: Given, drawn: Drawn, u: Tensor, log_pi: Tensor) -> Tensor:
    """What rounding of the actions, and of log_pi itself, may do to the claim, (N,) nats.

    Its slope is about that of the Gaussian with the draws' mean and covariance.
    """
    precision = torch.cholesky_inverse(factor(given.latent))
    slope = ((u - given.latent.mean(0)) @ precision).abs() + 2.0
    kind = torch.finfo(drawn.precision)
    columns = [given.support[i].log_slope(column) for i, column in enumerate(u.T.unsqueeze(-1))]
    action = given.support.action(u).abs()
    lost = kind.eps * (action * torch.stack(columns, -1).neg().exp() + u.abs())
    curved = lost.square() * precision.diagonal()
    units = kind.eps * (1e4 if drawn.precision == torch.float64 else 50.0)
    slopes = torch.stack(columns).sum(0)
    return (3.0 * slope * lost + curved).sum(-1) + units * (1.0 + log_pi.abs() + slopes.abs())


def spacings(result: Diagnosis, claim: Tensor, total: int) -> None:
    """Neighbouring draws are 1 / (S p) apart on average, with an exponential distribution."""
    order = result.latent[:, 0].argsort()
    u, scores = result.latent[order, 0], claim[order]
    sizes = total * torch.exp((scores[1:] + scores[:-1]) / 2) * u.diff()
    cut = sizes.clamp_max(LONGEST)
    expected = 1.0 - math.exp(-LONGEST)
    std = math.sqrt(2.0 * (1.0 - math.exp(-LONGEST) * (1.0 + LONGEST)) - expected**2)
    name = "gaps between draws against 1 / (S exp(log_pi))"
    windows = [cut, *cut.chunk(WINDOWS)]
    off = [abs(float(part.mean()) - expected) for part in windows]
    bounds = [DEVIATIONS * std / math.sqrt(len(part)) + ROUGH for part in windows]
    worst = max(range(1, len(off)), key=lambda i: off[i] / bounds[i])
    result.integral = float(sizes.median()) / math.log(2.0)
    result.add(name, off[0], bounds[0])
    result.add(f"{name}, part {worst} of {len(off) - 1}", off[worst], bounds[worst])


def bumps(result: Diagnosis, claim: Tensor, total: int, generator: torch.Generator) -> None:
    """E[q(a) / exp(log_pi(a))] = 1 for any density q inside the support, whatever the policy.

    q is uniform on balls about some draws, as large as to hold a hundredth of half of the draws;
    the mean is over the other half. The balls are where draws are dense.
    """
    latent = result.latent
    size, lower = latent.shape[-1], factor(latent)
    z = torch.linalg.solve_triangular(lower, (latent - latent.mean(0)).T, upper=False).T
    order = torch.randperm(len(z), generator=generator)
    mine, others = order[: len(z) // 2], order[len(z) // 2 :]
    centres = z[mine[:CENTRES]]
    near, away = torch.cdist(centres, z[mine]), torch.cdist(z[others], centres)
    radii = [near.kthvalue(int(s * len(mine)) + 2, -1).values for s in (SHARE, SHARE / 4)]
    dense = radii[0] <= radii[0].median()
    centres, away = centres[dense], away[:, dense]
    weights = []
    for radius in (radius[dense] for radius in radii):
        log_volume = (
            0.5 * size * math.log(math.pi)
            - math.lgamma(0.5 * size + 1.0)
            + size * radius.log()
            + lower.diagonal().log().sum()
        )
        ratio = torch.exp(-claim[others].unsqueeze(-1) - log_volume) * (len(z) / total)
        weights.append(torch.where(away < radius, ratio, 0.0))
    smaller = float((radii[1] / radii[0])[dense].median())
    groups = {"": torch.ones_like(centres[:, 0], dtype=torch.bool)}
    for axis, values in enumerate(centres.T if size <= AXES else ()):
        groups[f", component {axis} low"] = values <= values.median()
        groups[f", component {axis} high"] = values > values.median()
    for name, group in groups.items():
        (mean, chance), (finer, _) = (estimate(each[:, group].mean(-1)) for each in weights)
        # What a ball sees of a bound or of curvature grows with its radius, at least.
        bias = math.inf if mean > 0.0 else 0.0
        if mean * finer > 0.0:
            bias = 0.5 * abs(math.log(mean / finer)) / (1.0 - smaller) ** 2
        result.add(f"|E[q / exp(log_pi)] - 1|{name}", abs(mean - 1.0), chance + bias + ROUGH)
        result.integral = 1.0 / max(mean, 1e-300) if not name else result.integral


def curves(result: Diagnosis) -> tuple[Curve, ...]:
    """Claimed densities of the latents: of the Gaussian they are, or else in one dimension."""
    found = []
    for axis, draws in enumerate(result.latent.T[:CURVES]):
        grid = draws.sort().values[:: max(1, len(draws) // POINTS)]
        density = torch.full_like(grid, math.nan)
        if result.gaussian:
            mean, variance = result.gauss.mean[axis], result.gauss.covariance[axis, axis]
            height = result.offset - 0.5 * torch.log(2.0 * math.pi * variance)
            density = torch.exp(height - 0.5 * (grid - mean).square() / variance)
        elif result.latent.shape[-1] == 1:
            order = draws.argsort()[:: max(1, len(draws) // POINTS)]
            density = result.draws.claim[order].exp()
        found.append(in_units(result.support, axis, draws, grid, density))
    return tuple(found)
