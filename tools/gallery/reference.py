"""Log-densities, their gradients and entropies (nats) to 50 digits, by mpmath.

A draw is u = mean + L e, with L = diag(std) for a diagonal policy, and log pi =
sum_i [-e_i^2 / 2 - log L_ii - log(2 pi) / 2 + 2 log cosh(u_i)], the last term if u is squashed.
Gradients are in closed form; tests compare them with differences. Floats are taken as exact.
Vectors and matrices are arrays of mpmath's numbers, or what becomes one; of draws there may be one
(A,) or several (R, A).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath
import numpy as np
import torch
from torch import Tensor

DIGITS = 50
mp = mpmath.mp.clone()  # with a precision of its own
mp.dps = DIGITS
exact: Callable[[Any], np.ndarray] = np.frompyfunc(mp.mpf, 1, 1)
log, exp, tanh, cosh = (np.frompyfunc(f, 1, 1) for f in (mp.log, mp.exp, mp.tanh, mp.cosh))


class Score(NamedTuple):
    """Values (*,), and their derivatives by the mean (*, A) and by the triangle (*, A, A)."""

    value: Any
    by_mean: np.ndarray
    by_tril: np.ndarray


def tensor(numbers: Any) -> Tensor:
    """Nested lists or arrays of numbers, rounded to float64."""
    return torch.from_numpy(np.array(numbers, dtype=object).astype(np.float64))


def log_prob(mean: Any, tril: Any, latent: Any, squashed: bool) -> Score:
    """Of a given draw, with derivatives at fixed u: L^-T e and L^-T e e^T - 1/L_ii."""
    inverse = np.array(mp.inverse(mp.matrix(tril)).tolist())
    noise = (exact(latent) - exact(mean)) @ inverse.T
    return score(tril, noise, latent, noise @ inverse, squashed)


def log_pi(mean: Any, tril: Any, noise: Any, squashed: bool) -> Score:
    """Of the draw from the noise, with derivatives at fixed e."""
    u = latent_of(mean, tril, noise)
    return score(tril, noise, u, 2 * tanh(u) * squashed, squashed)


def latent_of(mean: Any, tril: Any, noise: Any) -> np.ndarray:
    """mean + L e."""
    return exact(mean) + exact(noise) @ exact(tril).T


def score(tril: Any, noise: Any, latent: Any, slope: np.ndarray, squashed: bool) -> Score:
    """The sum of the terms; `slope` is its derivative by the mean."""
    value = sum(part.sum(-1) for part in terms(tril, noise, latent, squashed).values())
    by_tril = slope[..., None] * exact(noise)[..., None, :]
    return Score(value, slope, by_tril - np.diag(1 / exact(tril).diagonal()))


def terms(tril: Any, noise: Any, latent: Any, squashed: bool) -> dict[str, np.ndarray]:
    """Terms of log pi per component, by the names that policies use."""
    parts = {
        "gaussian": -(exact(noise) ** 2) / 2 - mp.log(2 * mp.pi) / 2,
        "scale": -log(exact(tril).diagonal()),
    }
    return parts | ({"jacobian": -log_det_tanh(latent)[0]} if squashed else {})


def log_det_tanh(u: Any) -> tuple[Any, Any]:
    """(log(1 - tanh(u)^2), its derivative)."""
    return -2 * log(cosh(u)), -2 * tanh(u)


def entropy(mean: Any, tril: Any, squashed: bool) -> Score:
    """sum_i [log L_ii + log(2 pi e) / 2 - 2 E log cosh(u_i)], u_i ~ N(mean_i, sum_j L_ij^2).

    The expectations by the trapezoid rule of step 1/16 on [-12, 12], which errs by 1e-32 where it
    ends, and like exp(-16 pi^2 / std) for the poles of log cosh.
    """
    mean, tril = exact(mean), exact(tril)
    total = log(tril.diagonal()).sum() + len(mean) * mp.log(2 * mp.pi * mp.e) / 2
    by_mean, by_tril = 0 * mean, np.diag(1 / tril.diagonal())
    nodes = np.array([mp.mpf(k) / 16 for k in range(-192, 193)])
    weights = np.frompyfunc(mp.npdf, 1, 1)(nodes) / 16
    for i in range(len(mean)) if squashed else ():
        std = mp.norm(tril[i])
        values, slopes = log_det_tanh(mean[i] + std * nodes)
        total += weights @ values
        by_mean[i] = weights @ slopes
        by_tril[i] += (weights * nodes) @ slopes * tril[i] / std
    return Score(total, by_mean, by_tril)


def log_softmax(logits: Any) -> tuple[np.ndarray, np.ndarray]:
    """(log p, p), (*, K) each."""
    log_probs = exact(logits) - log(exp(logits).sum(-1, keepdims=True))
    return log_probs, exp(log_probs)


def choice_entropy(logits: Any) -> tuple[Any, np.ndarray]:
    """(-sum p log p (*,), its derivatives by the logits (*, K))."""
    log_probs, probs = log_softmax(logits)
    value = -(probs * log_probs).sum(-1, keepdims=True)
    return value[..., 0], -probs * (log_probs + value)
