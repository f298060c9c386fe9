"""The log-densities, their gradients and entropies in 50-digit decimal arithmetic.

One lower triangle serves all: a diagonal policy is L = diag(std). With v = L e the draw is
u = mean + v, and log pi = sum_i [-e_i^2 / 2 - log L_ii - log(2 pi) / 2 + 2 log cosh(u_i)], the last
term only where u is squashed. Gradients are in closed form; tests hold them against differences.
"""

from collections.abc import Sequence
from decimal import Context, Decimal, localcontext
from typing import NamedTuple

DIGITS = 50
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620900")
Vector = Sequence[Decimal]
Matrix = Sequence[Sequence[Decimal]]


class Score(NamedTuple):
    """A value and its derivatives by the mean (A) and by the triangle (A, A)."""

    value: Decimal
    by_mean: list[Decimal]
    by_tril: list[list[Decimal]]


def tanh(u: Decimal) -> Decimal:
    small = (-2 * abs(u)).exp()
    return ((1 - small) / (1 + small)).copy_sign(u)


def log_cosh(u: Decimal) -> Decimal:
    return ((u.exp() + (-u).exp()) / 2).ln()


def log_prob(mean: Vector, tril: Matrix, latent: Vector, squashed: bool) -> Score:
    """The density of a given draw; its derivatives hold u fixed: L^-T e and L^-T e e^T - 1/L_ii."""
    with localcontext(Context(prec=DIGITS)):
        size = range(len(mean))
        noise: list[Decimal] = []
        for i in size:
            known = sum((tril[i][j] * noise[j] for j in range(i)), Decimal(0))
            noise.append((latent[i] - mean[i] - known) / tril[i][i])
        slope = [Decimal(0)] * len(mean)
        for i in reversed(size):
            known = sum((tril[j][i] * slope[j] for j in range(i + 1, len(mean))), Decimal(0))
            slope[i] = (noise[i] - known) / tril[i][i]
        by_tril = [[slope[i] * noise[j] - (i == j) / tril[i][i] for j in size] for i in size]
        return Score(value(tril, noise, latent, squashed), slope, by_tril)


def log_pi(mean: Vector, tril: Matrix, noise: Vector, squashed: bool) -> Score:
    """The density of the draw that the noise makes; its derivatives hold e fixed."""
    with localcontext(Context(prec=DIGITS)):
        size = range(len(mean))
        u = latent(mean, tril, noise)
        slope = [2 * tanh(x) if squashed else Decimal(0) for x in u]
        by_tril = [[slope[i] * noise[j] - (i == j) / tril[i][i] for j in size] for i in size]
        return Score(value(tril, noise, u, squashed), slope, by_tril)


def latent(mean: Vector, tril: Matrix, noise: Vector) -> list[Decimal]:
    """mean + L e."""
    with localcontext(Context(prec=DIGITS)):
        return [
            mean[i] + sum((tril[i][j] * noise[j] for j in range(i + 1)), Decimal(0))
            for i in range(len(mean))
        ]


def value(tril: Matrix, noise: Vector, latent: Vector, squashed: bool) -> Decimal:
    parts = terms(tril, noise, latent, squashed)
    return sum((x for part in parts.values() for x in part), Decimal(0))


def terms(tril: Matrix, noise: Vector, latent: Vector, squashed: bool) -> dict[str, list[Decimal]]:
    """What each component contributes to log pi, by the names that policies use."""
    with localcontext(Context(prec=DIGITS)):
        parts = {
            "gaussian": [-e * e / 2 - (2 * PI).ln() / 2 for e in noise],
            "scale": [-tril[i][i].ln() for i in range(len(noise))],
        }
        return parts | ({"jacobian": [2 * log_cosh(u) for u in latent]} if squashed else {})


def entropy(mean: Vector, tril: Matrix, squashed: bool) -> Score:
    """sum_i [log L_ii + log(2 pi e) / 2 - 2 E log cosh(u_i)], u_i ~ N(mean_i, sum_j L_ij^2).

    The expectations by the trapezoid rule of step 1/16 on [-12, 12], which errs by 1e-32 where it
    ends, and like exp(-16 pi^2 / std) for the poles of log cosh.
    """
    with localcontext(Context(prec=DIGITS)):
        size = range(len(mean))
        total = sum(((tril[i][i].ln() + ((2 * PI).ln() + 1) / 2) for i in size), Decimal(0))
        by_mean = [Decimal(0) for _ in size]
        by_tril = [[Decimal(int(i == j)) / tril[i][i] for j in size] for i in size]
        for i in size if squashed else ():
            std = sum(tril[i][j] ** 2 for j in size).sqrt()  # type: ignore[union-attr]
            nodes = [Decimal(k) / 16 for k in range(-192, 193)]
            weights = [(-node * node / 2).exp() / (16 * (2 * PI).sqrt()) for node in nodes]
            latents = [mean[i] + std * node for node in nodes]
            slopes = [-2 * w * tanh(u) for w, u in zip(weights, latents, strict=True)]
            total -= sum(2 * w * log_cosh(u) for w, u in zip(weights, latents, strict=True))
            by_mean[i] = sum(slopes, Decimal(0))
            by_std = sum(s * node for s, node in zip(slopes, nodes, strict=True))
            for j in size:
                by_tril[i][j] += by_std * tril[i][j] / std
        return Score(total, by_mean, by_tril)


def log_softmax(logits: Vector) -> tuple[list[Decimal], list[Decimal]]:
    """(log p, p)."""
    with localcontext(Context(prec=DIGITS)):
        log_sum = sum((z.exp() for z in logits), Decimal(0)).ln()
        log_probs = [z - log_sum for z in logits]
        return log_probs, [z.exp() for z in log_probs]


def log_det_tanh(u: Decimal) -> tuple[Decimal, Decimal]:
    """(log(1 - tanh(u)^2), its derivative)."""
    with localcontext(Context(prec=DIGITS)):
        return -2 * log_cosh(u), -2 * tanh(u)
