"""Policies with one mistake each, written as people write them: the negative controls of the audit.

Names are those of `audit.forms`, whose formulas are not used here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN, STD = (0.4, -1.0, 1.5), (0.6, 0.8, 0.3)
SATURATED = (7.0, -1.0, 1.5), (1.2, 0.8, 0.3)  # where a constant of 1e-6 changes something
LOW, HIGH = (-2.0, -1.0, -0.5), (2.0, 1.0, 1.5)
NARROW = (-0.8, -0.5, -0.9), (0.8, 0.5, 0.9)  # where log(1 - (scale a)^2) is a number


@dataclass(frozen=True)
class Policy:
    """A Gaussian for one state, squashed into a box if it has one; all tensors (A,), one type."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    kind: str  # "line", "box" (by tanh), or "clipped" to it
    formula: Callable[["Policy", Tensor], Tensor]  # of the latent (B, A)
    generator: torch.Generator
    constant: float = 1e-6

    @property
    def scale(self) -> Tensor:
        return (self.high - self.low) / 2

    @property
    def bias(self) -> Tensor:
        return (self.high + self.low) / 2

    @property
    def bounds(self) -> dict[str, Tensor]:
        """Arguments of `audit.check`."""
        return {} if self.kind == "line" else {"low": self.low, "high": self.high}

    def latents(self, count: int) -> Tensor:
        size, kind = len(self.mean), self.mean.dtype
        noise = torch.randn(count, size, dtype=kind, generator=self.generator)
        return self.mean + self.std * noise

    def act(self, u: Tensor) -> Tensor:
        if self.kind == "box":
            return torch.tanh(u) * self.scale + self.bias
        return u.clamp(self.low, self.high) if self.kind == "clipped" else u

    def sample(self, count: int) -> Tensor:
        return self.act(self.latents(count))

    def log_prob(self, action: Tensor) -> Tensor:
        action = action.to(self.mean.dtype)
        if self.kind == "box":
            action = torch.atanh((action - self.bias) / self.scale)
        return self.formula(self, action)

    def pairs(self, count: int) -> tuple[Tensor, Tensor]:
        """Actions and log_pi, from the latents, as an actor returns them."""
        u = self.latents(count)
        return self.act(u), self.formula(self, u)

    def normal(self, u: Tensor, std: Tensor | None = None) -> Tensor:
        """Per dimension."""
        std = self.std if std is None else std
        return -((u - self.mean) ** 2) / (2 * std**2) - std.log() - 0.5 * math.log(2 * math.pi)

    def log_det(self, u: Tensor) -> Tensor:
        """Of the map to the box, per dimension; 0 without a box."""
        if self.kind != "box":
            return torch.zeros_like(u)
        return 2 * (math.log(2) - u - F.softplus(-2 * u)) + self.scale.log()


class ByHand(Policy):
    """A right one in a box, whose log_prob is written from the action and the bounds alone."""

    def log_prob(self, action: Tensor) -> Tensor:
        y = 2 * (action - self.low) / (self.high - self.low) - 1
        return (self.normal(torch.atanh(y)) - torch.log(1 - y**2) - self.scale.log()).sum(-1)


def right(p: Policy, u: Tensor) -> Tensor:
    return (p.normal(u) - p.log_det(u)).sum(-1)


def normal_of(p: Policy, u: Tensor, per_dimension: Callable[[Policy, Tensor], Tensor]) -> Tensor:
    """Right but for the Gaussian term."""
    return (per_dimension(p, u) - p.log_det(u)).sum(-1)


def jacobian_of(p: Policy, u: Tensor, per_dimension: Callable[[Policy, Tensor], Tensor]) -> Tensor:
    """Right but for the log-determinant."""
    return (p.normal(u) - per_dimension(p, u)).sum(-1)


def clipped_atanh(p: Policy, u: Tensor) -> Tensor:
    return torch.atanh(torch.tanh(u).clamp(-1 + p.constant, 1 - p.constant))


def smooth_atanh(p: Policy, u: Tensor) -> Tensor:
    a = torch.tanh(u)
    return 0.5 * torch.log((1 + p.constant + a) / (1 + p.constant - a))


def z2(p: Policy, u: Tensor) -> Tensor:
    return ((u - p.mean) / p.std) ** 2


HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
JACOBIANS: dict[str, Callable[[Policy, Tensor], Tensor]] = {
    "epsilon": lambda p, u: torch.log(1 - torch.tanh(u) ** 2 + p.constant) + p.scale.log(),
    "epsilon_scaled": lambda p, u: torch.log(p.scale * (1 - torch.tanh(u) ** 2) + p.constant),
    "slope_clipped": lambda p, u: (
        torch.log((1 - torch.tanh(u) ** 2).clamp(p.constant, 1)) + p.scale.log()
    ),
    "jacobian_added": lambda p, u: 2 * p.scale.log() - p.log_det(u),
    "jacobian_forgotten": lambda p, u: p.scale.log(),
    "jacobian_of_scaled": lambda p, u: torch.log(1 - (p.scale * torch.tanh(u)) ** 2 + p.constant),
    "jacobian_unsquashed": lambda p, u: 2 * (math.log(2) - u - F.softplus(-2 * u)),
    "tanh_twice": lambda p, u: p.log_det(torch.tanh(u)),
}
NORMALS: dict[str, Callable[[Policy, Tensor], Tensor]] = {
    "tanh_scored": lambda p, u: p.normal(torch.tanh(u)),
    "sigma_for_log_sigma": lambda p, u: -0.5 * z2(p, u) - p.std - HALF_LOG_2PI,
    "half_log_sigma": lambda p, u: -0.5 * z2(p, u) - 0.5 * p.std.log() - HALF_LOG_2PI,
    "std_for_variance": lambda p, u: (
        -((u - p.mean) ** 2) / (2 * p.std) - torch.log(torch.sqrt(2 * math.pi * p.std))
    ),
    "variance_for_std": lambda p, u: p.normal(u, p.std**2),
    "std_exponentiated": lambda p, u: p.normal(u, p.std.exp()),
    "misplaced_parenthesis": lambda p, u: -(z2(p, u) + 2 * HALF_LOG_2PI) / (2 - p.std.log()),
    "mean_scored": lambda p, u: p.normal(p.mean.expand_as(u)),
    "half_forgotten": lambda p, u: -z2(p, u) - p.std.log() - HALF_LOG_2PI,
    "normaliser_forgotten": lambda p, u: -0.5 * z2(p, u),
    "normaliser_added": lambda p, u: -0.5 * z2(p, u) + p.std.log() + HALF_LOG_2PI,
    "constant_forgotten": lambda p, u: -0.5 * z2(p, u) - p.std.log(),
    "root_for_log": lambda p, u: -0.5 * z2(p, u) - p.std.log() - math.sqrt(2 * math.pi),
    "half_subtracted": lambda p, u: p.normal(u) - 0.5,
}
WHOLE: dict[str, Callable[[Policy, Tensor], Tensor]] = {
    "atanh_clipped": lambda p, u: right(p, clipped_atanh(p, u)),
    "atanh_clipped_epsilon": lambda p, u: (
        p.normal(clipped_atanh(p, u))
        - torch.log(1 - torch.tanh(clipped_atanh(p, u)) ** 2 + p.constant)
        - p.scale.log()
    ).sum(-1),
    "atanh_epsilon": lambda p, u: (
        p.normal(smooth_atanh(p, u))
        - torch.log(1 - torch.tanh(u) ** 2 + p.constant)
        - p.scale.log()
    ).sum(-1),
    "affine_forgotten": lambda p, u: right(p, u) + p.scale.log().sum(),
    "bits": lambda p, u: right(p, u) / math.log(2),
    "sum_forgotten": lambda p, u: p.normal(u) - p.log_det(u),
    "mean_over_dimensions": lambda p, u: (p.normal(u) - p.log_det(u)).mean(-1),
    "times_dimensions": lambda p, u: (
        len(p.mean) * ((-0.5 * z2(p, u) - p.std.log()).sum(-1) - HALF_LOG_2PI)
        - p.log_det(u).sum(-1)
    ),
    "constant_once": lambda p, u: (
        (-0.5 * z2(p, u) - p.std.log() - p.log_det(u)).sum(-1) - HALF_LOG_2PI
    ),
    "keepdim": lambda p, u: right(p, u).unsqueeze(-1),
    "broadcast": lambda p, u: right(p, u).unsqueeze(-1) - torch.zeros(len(u)),
    "summed_over_batch": lambda p, u: right(p, u).sum(),
    "clipped": lambda p, u: p.normal(u).sum(-1),
}
FORMULAS: dict[str, Callable[[Policy, Tensor], Tensor]] = {
    **{name: partial(jacobian_of, per_dimension=each) for name, each in JACOBIANS.items()},
    **{name: partial(normal_of, per_dimension=each) for name, each in NORMALS.items()},
    **WHOLE,
}
ENTROPIES: dict[str, Callable[[Policy], Tensor]] = {  # of policies that are right else
    "entropy_of_base": lambda p: (p.std.log() + HALF_LOG_2PI + 0.5).sum(),
    "entropy_half_log_sigma": lambda p: (0.5 * p.std.log() + HALF_LOG_2PI + 0.5).sum(),
}
SEVERAL = ("keepdim", "sum_forgotten", "mean_over_dimensions", "times_dimensions", "constant_once")


def policy(
    name: str,
    size: int,
    seed: int = 0,
    kind: str = "box",
    constant: float = 1e-6,
    dtype: torch.dtype = torch.float64,
) -> Policy:
    """With that mistake, "" for none, in `size` dimensions, three at most."""
    mean, std = SATURATED if name.startswith(("epsilon", "atanh", "slope")) else (MEAN, STD)
    low, high = NARROW if name == "jacobian_of_scaled" else (LOW, HIGH)
    if kind == "tanh":
        kind, low, high = "box", (-1.0,) * 3, (1.0,) * 3
    lines = dict.fromkeys(("jacobian_unsquashed", "entropy_half_log_sigma"), "line")
    made = ByHand if kind == "by hand" else Policy
    kind = "box" if kind == "by hand" else kind
    return made(
        mean=torch.tensor(mean[:size], dtype=dtype),
        std=torch.tensor(std[:size], dtype=dtype),
        low=torch.tensor(low[:size], dtype=dtype),
        high=torch.tensor(high[:size], dtype=dtype),
        kind={**lines, "clipped": "clipped"}.get(name, kind),
        formula=FORMULAS.get(name, right),
        generator=torch.Generator().manual_seed(seed),
        constant=constant,
    )


def anywhere(made: Policy) -> Policy:
    """The same with a mean and a std that depend on its generator."""
    noise = torch.randn(2, len(made.mean), dtype=made.mean.dtype, generator=made.generator)
    mean, share = 1.5 * noise[0], torch.special.ndtr(noise[1])
    return replace(made, mean=mean, std=torch.exp(3.5 * share - 3.0))


LOGITS = (1.0, 0.2, -0.5, -1.2, 2.0)
MASK = (True, True, False, True, True)


def choices(name: str, seed: int = 0) -> dict[str, Any]:
    """Arguments of `audit.check` for a categorical policy with that mistake, or any without one."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    if not name:
        logits = 2.0 * torch.randn(len(LOGITS), dtype=torch.float64, generator=generator)
    mask = torch.tensor(MASK)
    log_probs = drawn = logits.log_softmax(-1)
    given: dict[str, Any] = {}
    if name == "mask_forgotten":
        drawn, given["mask"] = logits.masked_fill(~mask, -math.inf), mask
    elif name == "mask_zeroed":
        log_probs = drawn = (logits * mask).log_softmax(-1)
        given["mask"] = mask
    elif name == "mask_not_drawn":
        log_probs, given["mask"] = logits.masked_fill(~mask, -math.inf).log_softmax(-1), mask
    elif name == "temperature":
        drawn = logits / 0.7
    elif name == "exploration_forgotten":
        drawn = torch.log(0.9 * log_probs.exp() + 0.1 / len(logits))
    elif name == "softmax_twice":
        drawn = log_probs.exp()
    elif name == "logs_as_probabilities":
        drawn = torch.log(log_probs / log_probs.sum())
    elif name == "log_forgotten":
        log_probs = log_probs.exp()
    elif name == "log_with_epsilon":
        log_probs = torch.log(log_probs.exp() + 1e-8)
    probs = drawn.softmax(-1)

    def sample(count: int) -> Tensor:
        return torch.multinomial(probs, count, replacement=True, generator=generator)

    return {"sample": sample, "log_probs": log_probs, **given}


def distribution(kind: str) -> Any:
    """A right density that is no Gaussian."""
    one, two = torch.tensor([2.0, 3.0], dtype=torch.float64)
    if kind == "beta":
        return torch.distributions.Beta(one, two)
    if kind == "laplace":
        return torch.distributions.Laplace(one, two)
    narrow = 0.02 if kind == "modes" else 1.0
    stds = narrow * torch.stack([one / 2, two / 3])
    parts = torch.distributions.Normal(torch.stack([-one, two]), stds)
    weights = torch.distributions.Categorical(torch.stack([one, two]))
    return torch.distributions.MixtureSameFamily(weights, parts)
