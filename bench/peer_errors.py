"""What a log-probability in float32 is off from 50 digits, and what `audit` finds in it.

Of values and gradients, from which |u| on: draws u = mean + std * noise lie on a grid of |u| up to
20, at three widths. The audit has what anyone has: draws and a function.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

import audit
from bench.peer_densities import ACTIONS, SEED, Noise, Peer, torch_noise
from common.errors import ConfigError
from tools.gallery import reference

LOG_STDS = {"σ = 1": 0.0, "σ = 0.05": math.log(0.05), "σ = e⁻¹⁰": -10.0}
LATENTS = torch.linspace(-20.0, 20.0, 161).repeat(4)  # steps of 0.25, four draws at each
HOLDS = 0.01  # nat, and a relative error of a gradient
DRAWS = 20_000  # that are audited, of one state, whose std is 1
PAIR_MEANS, DENSITY_MEAN = (4.0, 6.5), 4.0  # |u| up to 8, and to where tanh rounds to 1
BOX_MEAN = 0.5  # of what is not squashed
BOXES = {"tanh": (-1.0, 1.0), "clip": (-1.0, 1.0), "plain": (None, None)}
mp = reference.mp


@dataclass(frozen=True)
class Errors:
    """Of one number at many points: the worst, from which |u| on, and how many are not finite."""

    worst: float  # signed; NaN if none is finite
    start: float | None  # the least |u| with more than HOLDS; None: nowhere
    lost: int  # NaN or infinite
    points: int

    @property
    def text(self) -> str:
        """`2e-06`; or the worst, what is not finite, and where they begin."""
        if self.start is None:
            return f"{abs(self.worst):.0e}"
        parts = [f"{self.worst:+.3g}"] if math.isfinite(self.worst) else []
        parts += [f"NaN or ∞ at {self.lost} of {self.points}"] if self.lost else []
        return f"{', '.join(parts)} from {self.start:g}"


@dataclass(frozen=True)
class Measured:
    """One case of a peer at one width."""

    value: Errors  # nat
    gradient: Errors  # by mean and log_std, the larger of (x - exact) / max(1, |exact|)
    slope: float  # the mean of sign(u) d/d mean at |u| = 20
    bound: str  # for actions rounded to -1 or 1: finite, ∞ or NaN; empty: there are none
    largest: str = ""  # |action| of its own draws: `1 from` some |u| on, or below 1

    @property
    def holds(self) -> bool:
        return self.value.start is None and self.gradient.start is None


Results = dict[tuple[str, str], Measured]  # by case, "own" or "given", and width


@dataclass(frozen=True)
class Points:
    """Draws at one width, (N, 1), and what is exact of them, (N, 3) float64 from 50 digits.

    Of `own` and `given`: the log-probability, and its derivatives by mean and log_std with the
    noise or the action fixed; NaN for an action rounded to -1 or 1 by tanh.
    """

    mean: Tensor
    noise: Tensor
    action: Tensor
    own: Tensor
    given: Tensor
    kept: Tensor  # (N,) bool


@cache
def points(kind: str, noise: Noise, log_std: float) -> Points:
    """`LATENTS`, but for rounding, as draws of a fixed seed; with a clip, means in the box only."""
    drawn = seeded(lambda: noise(len(LATENTS)))
    mean = LATENTS.unsqueeze(-1) - math.exp(log_std) * drawn
    action = ACTIONS[kind](mean + math.exp(log_std) * drawn)
    std = mp.exp(float(torch.tensor(log_std)))  # as rounded to float32
    columns = (x.flatten().tolist() for x in (mean, drawn, action))
    rows = [exact(kind, m, e, a, std) for m, e, a in zip(*columns, strict=True)]
    own, given = (reference.tensor(part) for part in zip(*rows, strict=True))
    kept = mean.flatten().abs() <= (1.0 if kind == "clip" else math.inf)
    return Points(mean, drawn, action, own, given, kept)


def exact(kind: str, mean: float, noise: float, action: float, std: Any) -> tuple[Any, Any]:
    """The two rows of `Points`."""
    if kind == "clip" and abs(action) == 1.0:
        return (mass(mean, std, int(action)),) * 2
    squashed = kind == "tanh"
    own = reference.log_pi([mean], [[std]], [noise], squashed)
    if squashed and abs(action) == 1.0:
        return row(own, std), [math.nan] * 3
    latent = mp.atanh(action) if squashed else action
    return row(own, std), row(reference.log_prob([mean], [[std]], [latent], squashed), std)


def row(score: reference.Score, std: Any) -> list[Any]:
    return [score.value, score.by_mean[0], score.by_tril[0][0] * std]


def mass(mean: float, std: Any, side: int) -> list[Any]:
    """log of the probability that N(mean, std) lies beyond the bound `side`, and derivatives."""
    z = (side * mean - 1) / std
    hazard = mp.npdf(z) / mp.ncdf(z)
    return [mp.log(mp.ncdf(z)), side * hazard / std, -z * hazard]


def seeded(draw: Callable[[], Any]) -> Any:
    """What `draw` gives with torch's default generator at a fixed seed, restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return draw()


def measure(peer: Peer) -> Results:
    """Every case at every width; raises ConfigError where the peer draws other noise."""
    found = {}
    for width, log_std in LOG_STDS.items():
        at = points(peer.action, peer.noise, log_std)
        mean = at.mean.clone().requires_grad_()
        parameters = mean, torch.full_like(mean, log_std, requires_grad=True)
        action, log_pi = seeded(partial(peer.own, *parameters, at.noise))
        if (action - at.action).abs().max() > 1e-5:
            raise ConfigError(f"peers: {peer.name} draws other noise; install the pinned versions")
        own = compare(log_pi, parameters, at.own, at.kept)
        found["own", width] = replace(own, largest=largest(action.detach()))
        if peer.given is not None:
            log_prob = peer.given(*parameters, at.action)
            found["given", width] = compare(log_prob, parameters, at.given, at.kept)
    return found


def largest(action: Tensor) -> str:
    """Of |a|, (N, 1): the least |u| at which it is 1, or what it is clamped to."""
    size = action.abs().flatten()
    one = LATENTS.abs()[size == 1.0]
    return f"1 from {float(one.min()):g}" if len(one) else f"{float(size.max()):.7g}"


def compare(value: Tensor, parameters: tuple[Tensor, ...], true: Tensor, kept: Tensor) -> Measured:
    slopes = torch.cat(torch.autograd.grad(value.sum(), parameters), -1).double()  # (N, 2)
    value = value.detach().reshape(-1).double()
    relative = (slopes - true[:, 1:]) / true[:, 1:].abs().clamp_min(1.0)
    worse = relative.gather(-1, relative.abs().argmax(-1, keepdim=True)).squeeze(-1)
    inside = kept & ~true[:, 0].isnan()
    ends = LATENTS.abs() == LATENTS.abs().max()
    slope = (slopes[:, 0] * LATENTS.sign())[ends].mean()
    rest = torch.cat([value[kept & ~inside], slopes[kept & ~inside].flatten()])
    bound = "NaN" if rest.isnan().any() else "∞" if rest.isinf().any() else "finite"
    return Measured(
        errors(value - true[:, 0], inside),
        errors(worse, inside),
        float(slope),
        bound if len(rest) else "",
    )


def errors(difference: Tensor, at: Tensor) -> Errors:
    """Of the differences (N,) where `at`."""
    sizes, difference = LATENTS.abs()[at], difference[at]
    finite = difference[difference.isfinite()]
    failed = ~(difference.abs() <= HOLDS)  # NaN, too
    return Errors(
        float(finite[finite.abs().argmax()]) if len(finite) else math.nan,
        float(sizes[failed].min()) if failed.any() else None,
        len(difference) - len(finite),
        len(difference),
    )


def rounding() -> list[str]:
    """What the density of the rounded action is off from that of its u, at each width."""
    found = []
    for width, log_std in LOG_STDS.items():
        at = points("tanh", torch_noise, log_std)
        lost = errors(at.given[:, 0] - at.own[:, 0], ~at.given[:, 0].isnan())
        found.append(f"{lost.text} at {width}")
    return found


def verdicts(peer: Peer) -> list[str]:
    """Of its own pairs at two states, and of its density of given actions if it has one."""
    low, high = BOXES[peer.action]

    def state(mean: float, like: Tensor) -> tuple[Tensor, Tensor]:
        mean = mean if peer.action == "tanh" else BOX_MEAN
        return torch.full_like(like, mean), torch.zeros_like(like)

    def drawn(mean: float, count: int, kind: torch.dtype) -> tuple[Tensor, Tensor]:
        noise = torch.randn(count, 1, dtype=kind)
        action, log_pi = peer.own(*state(mean, noise), noise)
        return action.detach(), log_pi.detach().reshape(-1)

    def sample(count: int) -> Tensor:
        return drawn(DENSITY_MEAN, count, torch.float64)[0]

    def log_prob(action: Tensor) -> Tensor:
        assert peer.given is not None
        return peer.given(*state(DENSITY_MEAN, action), action).reshape(-1)

    def pairs(mean: float) -> audit.Report:  # float32, as in training
        actions, log_pi = seeded(lambda: drawn(mean, DRAWS, torch.float32))
        return audit.check_pairs(actions, log_pi, low=low, high=high)

    def density() -> audit.Report:
        return audit.check(sample=sample, log_prob=log_prob, low=low, high=high, draws=DRAWS)

    def words(check: Callable[[], audit.Report]) -> str:
        try:
            return check().verdict
        except ValueError as error:
            return f"none: {error}"

    of_pairs = [words(partial(pairs, mean)) for mean in PAIR_MEANS]
    return [*of_pairs, words(density) if peer.given else "–"]
