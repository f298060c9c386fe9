"""The bounds of actions, and the latents that have none."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributions
from torch.distributions import constraints, transforms
from torch.nn.functional import logsigmoid, one_hot

LOG_2 = math.log(2.0)


def log_slope(latent: Tensor) -> Tensor:
    """log(d tanh(u) / du), written otherwise than the policies do it: -2 log cosh(u)."""
    return 2.0 * (LOG_2 - torch.logaddexp(latent, -latent))


@dataclass(frozen=True)
class Support:
    """Bounds of the actions, (A,) float64 each, infinite where there is none, and their latents u.

    A component between two bounds is low + (high - low) (1 + tanh u) / 2; one above a single bound
    is low + exp(u), one below it high - exp(-u); without bounds it is u itself.
    """

    low: Tensor
    high: Tensor

    def __getitem__(self, component: int) -> "Support":
        """That of one component."""
        return Support(self.low[component, None], self.high[component, None])

    @property
    def box(self) -> Tensor:
        """Which components have two bounds, (A,)."""
        return self.low.isfinite() & self.high.isfinite()

    @property
    def side(self) -> Tensor:
        """1 for components above a single bound, -1 below one, else 0, (A,)."""
        return (self.low.isfinite().double() - self.high.isfinite().double()).masked_fill(
            self.box, 0.0
        )

    @property
    def half(self) -> Tensor:
        """Half the width between two bounds, else 1, (A,)."""
        return torch.where(self.box, (self.high - self.low) / 2, 1.0)

    @property
    def size(self) -> Tensor:
        """The largest absolute value of a bound, 0 where there is none, (A,)."""
        ends = torch.stack([self.low, self.high]).nan_to_num(0, 0, 0)
        return ends.abs().amax(0)

    def action(self, latent: Tensor) -> Tensor:
        """The action of a latent, (*, A), differentiable."""
        low, high = self.low.nan_to_num(0, 0, 0), self.high.nan_to_num(0, 0, 0)
        squashed = (low + high) / 2 + self.half * torch.tanh(latent)
        one_sided = low + high + self.side * torch.exp(self.side * latent)
        return torch.where(self.box, squashed, torch.where(self.side == 0, latent, one_sided))

    def latent(self, action: Tensor) -> Tensor:
        """The latent of an action inside the bounds, (*, A)."""
        up, down = torch.log(action - self.low), -torch.log(self.high - action)
        one_sided = torch.where(self.side > 0, up, down)
        unbounded = torch.where(self.side == 0, action, one_sided)
        return torch.where(self.box, (up + down) / 2, unbounded)

    def log_slope(self, latent: Tensor) -> Tensor:
        """log |d action / d latent| of all components together, (*,)."""
        squashed = self.half.log() + log_slope(latent)
        return torch.where(self.box, squashed, self.side * latent).sum(-1)

    def reach(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Least and largest latents whose actions are inside the bounds in a float type, (A,)."""
        kind = torch.finfo(dtype)
        ends = []
        for low, high in zip(self.low.tolist(), self.high.tolist(), strict=True):
            finite = [abs(bound) for bound in (low, high) if math.isfinite(bound)]
            near = max(kind.tiny, kind.eps * max(finite, default=0.0))
            if len(finite) == 2:
                end = 0.5 * math.log((high - low) / near) - 0.5
                ends.append((-end, end))
            elif finite:
                floor, top = math.log(4 * near), 0.9 * math.log(kind.max)
                ends.append((floor, top) if math.isfinite(low) else (-top, -floor))
            else:
                ends.append((-math.inf, math.inf))
        least, largest = torch.tensor(ends, dtype=torch.float64).unbind(-1)
        return least, largest


def support_between(size: int, bound: float = math.inf) -> Support:
    """From -bound to bound in every component."""
    bounds = torch.full((size,), bound, dtype=torch.float64)
    return Support(-bounds, bounds)


def support_of(
    policy: Any, function: Callable[[Tensor], Tensor] | None, actions: Tensor, low: Any, high: Any
) -> Support:
    """The bounds that are given, or that a distribution of torch has, or [-1, 1] if it ends there.

    Raises:
        ValueError: a draw lies outside, or they are no bounds.
    """
    size = actions.shape[-1]
    if low is None and high is None:
        low, high = bounds_of(policy)
        open_ended = not bool((low.isfinite() | high.isfinite()).any())
        if open_ended and bool((actions.abs() <= 1).all()) and ends_at_one(function, size):
            low, high = -1.0, 1.0
    ends = []
    for name, given, default in (("low", low, -math.inf), ("high", high, math.inf)):
        end = floats(default if given is None else given, name).double().flatten()
        if len(end) not in (1, size) or bool(end.isnan().any()):
            fitting = f"1 or {size} numbers" if size > 1 else "one number"
            raise ValueError(f"{name}: {given} does not fit {size} components; give {fitting}")
        ends.append(end.expand(size).clone())
    lower, upper = ends
    if bool((lower >= upper).any()):
        raise ValueError(f"low: {low} is not below high={high}; exchange them")
    rounding = 1e-6 * (1 + actions.abs())
    for name, outside, where in (
        ("low", actions < lower - rounding, f"below low={low}"),
        ("high", actions > upper + rounding, f"above high={high}"),
    ):
        if bool(outside.any()):
            raise ValueError(
                f"{name}: the draw {float(actions[outside][0]):.6g} lies {where}; give bounds "
                "inside which all actions lie, or leave low and high out"
            )
    return Support(lower, upper)


def bounds_of(policy: Any) -> tuple[Tensor, Tensor]:
    """Those that a distribution like torch's has, also through its transforms; else infinite."""
    unbounded = torch.tensor([[-math.inf], [math.inf]], dtype=torch.float64)
    base, maps = policy, getattr(policy, "transforms", ())
    while hasattr(base, "base_dist"):
        base = base.base_dist
        maps = [*getattr(base, "transforms", ()), *maps]
    try:
        bound = base.support
        while hasattr(bound, "base_constraint"):
            bound = bound.base_constraint
        ends = unbounded.clone()
        ends[0] = getattr(bound, "lower_bound", ends[0])
        ends[1] = getattr(bound, "upper_bound", ends[1])
        if isinstance(base, distributions.VonMises):  # an angle; torch calls its support real
            ends = torch.tensor([[-math.pi], [math.pi]], dtype=torch.float64)
        for transform in maps:
            ends = transform(ends).detach()
            if isinstance(transform, transforms.AbsTransform):
                ends[0] = 0.0
    except Exception:  # no distribution of torch: nothing is found out
        return unbounded[0], unbounded[1]
    ends = torch.where(ends.isnan(), unbounded, ends.double().cpu()).sort(0).values
    return ends[0], ends[1]


@dataclass(frozen=True)
class Served:
    """A distribution of torch, with other draws than its own."""

    sample: Callable[..., Tensor]
    log_prob: Callable[[Tensor], Tensor]
    entropy: Callable[[], Tensor] | None = None
    log_probs: Tensor | None = None  # (K,) or (D, K) of choices
    support: Any = constraints.nonnegative_integer


def served(policy: Any) -> Any:
    """A distribution of torch as one of vectors with a density, or of choices from 0.

    A one-hot vector becomes its index, a point of a simplex that of R^(A-1) which stick-breaking
    maps to it; independent choices get their table. Others are returned as they are.

    Raises:
        ValueError: its draws are counts or matrices.
    """
    base, table = policy, None
    while isinstance(base, distributions.Independent):
        base = base.base_dist
    if isinstance(base, distributions.OneHotCategorical):
        size = base.event_shape[0]
        return Served(
            lambda shape: policy.sample(shape).argmax(-1),
            lambda choice: policy.log_prob(one_hot(choice, size).to(base.logits.dtype)),
            policy.entropy,
            base.logits,
        )
    if isinstance(base, distributions.Categorical) and base.batch_shape:
        table = base.logits
    elif isinstance(base, distributions.Bernoulli):
        table = logsigmoid(torch.stack([-base.logits, base.logits], -1))
    if table is not None:
        return Served(policy.sample, policy.log_prob, policy.entropy, table)
    found = getattr(policy, "support", None)
    if found is constraints.simplex:
        sticks = transforms.StickBreakingTransform()

        def log_prob(latent: Tensor) -> Tensor:
            action = sticks(latent)
            return policy.log_prob(action) + sticks.log_abs_det_jacobian(latent, action)

        sample: Callable[..., Tensor] = lambda shape: sticks.inv(policy.sample(shape))  # noqa: E731
        return Served(sample, log_prob, support=constraints.real_vector)
    if isinstance(found, constraints.Constraint) and found.event_dim > 1 - found.is_discrete:
        kind, draws = type(base).__name__, "counts" if found.is_discrete else "matrices"
        raise ValueError(
            f"policy: a {kind} draws {draws}; give sample= and log_prob= of vectors in R^A with a "
            "density, or of choices"
        )
    return policy


def ends_at_one(function: Callable[[Tensor], Tensor] | None, size: int) -> bool:
    """Whether there is no density at 1.5 and at -1.5."""
    try:
        beyond = torch.tensor([[1.5], [-1.5]], dtype=torch.float64).expand(2, size)
        return function is not None and not bool((function(beyond) > -math.inf).any())
    except ValueError:
        return True


def latents(actions: Tensor, dtype: torch.dtype, support: Support) -> Tensor:
    """Latents of draws, spread evenly over what their float type rounds to the same number."""
    kind = dtype if dtype.is_floating_point else torch.float64
    size = actions.abs().to(kind)
    gap = torch.nextafter(size, torch.full_like(size, math.inf)).double() - size.double()
    spread = actions + gap * (torch.rand(actions.shape, dtype=torch.float64) - 0.5)
    for end, side in ((support.low, 1.0), (support.high, -1.0)):
        spread = torch.where(end.isfinite(), end + side * (spread - end).abs(), spread)
    least, largest = support.reach(torch.float64)
    return support.latent(spread).clamp(least - 1.0, largest + 1.0)  # finite, and seen as outside


def tensor(value: Any, what: str) -> Tensor:
    """Anything numeric as a tensor, also an array; raises ValueError."""
    kind = type(value).__name__
    try:
        found = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{what}: gave a {kind}, expected numbers; return an array") from None
    if found.is_complex() or found.layout != torch.strided:
        raise ValueError(f"{what}: gave a {kind} of complex or sparse numbers; return an array")
    if found.dtype == torch.bool and what != "mask":
        raise ValueError(f"{what}: gave True and False; return 1 and 0")
    return found


def floats(value: Any, what: str) -> Tensor:
    """The same in a float type, on the CPU."""
    found = tensor(value, what)
    return (found if found.is_floating_point() else found.double()).cpu()
