"""Log-densities, their gradients and entropies (nats) to 50 digits, by mpmath.

A draw is u = mean + L e, with L = diag(std) for a diagonal policy, and log pi =
sum_i [-e_i^2 / 2 - log L_ii - log(2 pi) / 2 + 2 log cosh(u_i)], the last term if u is squashed.
Gradients are in closed form; tests compare them with differences. Floats are taken as exact.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mpmath
import numpy as np
import torch
from torch import Tensor

DIGITS = 50
mp = mpmath.mp.clone()  # with a precision of its own
mp.dps = DIGITS
Vector = Sequence[Any]
Matrix = Sequence[Sequence[Any]]


class Score(NamedTuple):
    """A value and its derivatives by the mean (A) and by the triangle (A, A)."""

    value: Any
    by_mean: list[Any]
    by_tril: list[list[Any]]


def tensor(numbers: Any) -> Tensor:
    """Nested lists of numbers, rounded to float64."""
    return torch.from_numpy(np.array(numbers, dtype=object).astype(np.float64))


def each(values: Tensor, function: Callable[[Any], Any]) -> Tensor:
    """`function` of each number, rounded to float64 at the end."""
    return tensor([function(mp.mpf(x)) for x in values.flatten().tolist()]).reshape(values.shape)


def log_prob(mean: Vector, tril: Matrix, latent: Vector, squashed: bool) -> Score:
    """Of a given draw, with derivatives at fixed u: L^-T e and L^-T e e^T - 1/L_ii."""
    inverse = mp.inverse(mp.matrix(tril))
    noise = list(inverse * (mp.matrix(latent) - mp.matrix(mean)))
    return score(tril, noise, latent, list(inverse.T * mp.matrix(noise)), squashed)


def log_pi(mean: Vector, tril: Matrix, noise: Vector, squashed: bool) -> Score:
    """Of the draw from the noise, with derivatives at fixed e."""
    u = latent_of(mean, tril, noise)
    return score(tril, noise, u, [2 * mp.tanh(x) * squashed for x in u], squashed)


def latent_of(mean: Vector, tril: Matrix, noise: Vector) -> list[Any]:
    """mean + L e."""
    return list(mp.matrix(mean) + mp.matrix(tril) * mp.matrix(noise))


def score(tril: Matrix, noise: Vector, latent: Vector, slope: list[Any], squashed: bool) -> Score:
    """The sum of the terms; `slope` is its derivative by the mean."""
    size = range(len(tril))
    value = sum(x for part in terms(tril, noise, latent, squashed).values() for x in part)
    by_tril = [[slope[i] * noise[j] - (i == j) / mp.mpf(tril[i][i]) for j in size] for i in size]
    return Score(value, slope, by_tril)


def terms(tril: Matrix, noise: Vector, latent: Vector, squashed: bool) -> dict[str, list[Any]]:
    """Terms of log pi per component, by the names that policies use."""
    parts = {
        "gaussian": [-(mp.mpf(e) ** 2) / 2 - mp.log(2 * mp.pi) / 2 for e in noise],
        "scale": [-mp.log(tril[i][i]) for i in range(len(tril))],
    }
    return parts | ({"jacobian": [-log_det_tanh(u)[0] for u in latent]} if squashed else {})


def log_det_tanh(u: Any) -> tuple[Any, Any]:
    """(log(1 - tanh(u)^2), its derivative)."""
    return -2 * mp.log(mp.cosh(u)), -2 * mp.tanh(u)


def entropy(mean: Vector, tril: Matrix, squashed: bool) -> Score:
    """sum_i [log L_ii + log(2 pi e) / 2 - 2 E log cosh(u_i)], u_i ~ N(mean_i, sum_j L_ij^2).

    The expectations by the trapezoid rule of step 1/16 on [-12, 12], which errs by 1e-32 where it
    ends, and like exp(-16 pi^2 / std) for the poles of log cosh.
    """
    size = range(len(mean))
    total = sum(mp.log(tril[i][i]) + mp.log(2 * mp.pi * mp.e) / 2 for i in size)
    by_mean = [mp.zero for _ in size]
    by_tril = [[(i == j) / mp.mpf(tril[i][i]) for j in size] for i in size]
    nodes = [mp.mpf(k) / 16 for k in range(-192, 193)]
    for i in size if squashed else ():
        std = mp.norm(tril[i])
        by_std = mp.zero
        for node in nodes:
            value, slope = log_det_tanh(mean[i] + std * node)
            weight = mp.npdf(node) / 16
            total += weight * value
            by_mean[i] += weight * slope
            by_std += weight * slope * node
        for j in size:
            by_tril[i][j] += by_std * tril[i][j] / std
    return Score(total, by_mean, by_tril)


def log_softmax(logits: Vector) -> tuple[list[Any], list[Any]]:
    """(log p, p)."""
    log_sum = mp.log(sum(mp.exp(z) for z in logits))
    log_probs = [z - log_sum for z in logits]
    return log_probs, [mp.exp(z) for z in log_probs]


def choice_entropy(logits: Vector) -> tuple[Any, list[Any]]:
    """(-sum p log p, its derivatives by the logits)."""
    log_probs, probs = log_softmax(logits)
    value = -sum(p * log_p for p, log_p in zip(probs, log_probs, strict=True))
    return value, [-p * (log_p + value) for p, log_p in zip(probs, log_probs, strict=True)]
