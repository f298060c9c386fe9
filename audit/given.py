"""What is handed in to be checked, in whatever form: draws and a log-density of one shape."""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audit.checks import Support

FEWEST = 1000  # draws
LONGEST = 160  # characters of another's message


@dataclass(eq=False)
class Given:
    """Draws at one state, (S, A) float64, and the function that scores them."""

    actions: Tensor  # as they came
    support: Support
    latent: Tensor  # (S, A); what float32 rounded is spread evenly again
    log_pi: Tensor | None  # (S,) handed out with the draws
    entropy: float | None
    function: "Function | None"

    @property
    def on_bounds(self) -> float:
        """The share of draws with a component exactly on a bound."""
        outer = (self.actions <= self.support.low) | (self.actions >= self.support.high)
        return float(outer.any(-1).double().mean())


@dataclass(eq=False)
class Function:
    """log_prob as handed in, called with what it takes: (N, A) float64 -> (N,) float64."""

    call: Callable[..., Any]
    event: tuple[int, ...]  # the shape of one action, () or (A,)
    numpy: bool
    dtypes: tuple[torch.dtype, ...]  # to try, float64 first
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rows: int = 0  # 0: any number at once; 1: one by one; B: always B
    shape: str = ""  # what is wrong with that of the result
    dtype: torch.dtype = torch.float64
    takes_latent: bool = False
    gives_tensors: bool = True

    def raw(self, actions: Tensor, latent: Tensor | None = None) -> Any:
        """The result for actions (*, A) as it is."""
        actions = actions.reshape(actions.shape[:-1] + self.event)
        given: Any = actions.to(self.device, self.dtype)
        if self.numpy:
            given = given.detach().numpy() if given.ndim else given.dtype.type(given)
        if self.takes_latent and latent is not None:
            return called("log_prob", self.call, given, latent=latent.to(self.device, self.dtype))
        return called("log_prob", self.call, given)

    def __call__(self, actions: Tensor, latent: Tensor | None = None) -> Tensor:
        """Log-density of actions (*, A), (*,) float64 in nats, differentiable if it is."""
        shape = actions.shape[:-1]
        actions = actions.reshape(-1, actions.shape[-1])
        if not len(actions):
            return actions.new_zeros(shape)
        latent = None if latent is None else latent.reshape(actions.shape)
        if self.rows == 1:
            inner = [None] * len(actions) if latent is None else latent
            found = [self.raw(row, u) for row, u in zip(actions, inner, strict=True)]
            return torch.stack([floats(one, "log_prob").sum() for one in found]).reshape(shape)
        parts, step = [], self.rows or (64 if self.shape == "broadcast" else 200_000)
        for start in range(0, len(actions), step):
            some = actions[start : start + step]
            inner = None if latent is None else latent[start : start + step]
            count = len(some)
            if self.rows and count < step:
                some = torch.cat([some, some[-1:].expand(step - count, -1)])
                if inner is not None:
                    inner = torch.cat([inner, inner[-1:].expand(step - count, -1)])
            parts.append(self.read(self.raw(some, inner), len(some))[0][:count])
        return torch.cat(parts).reshape(shape)

    def read(self, result: Any, count: int) -> tuple[Tensor, str]:
        """(values (count,), what is wrong with the shape).

        Raises:
            ValueError: the shape is none that could be meant.
        """
        found, size = floats(result, "log_prob"), math.prod(self.event)
        shape = tuple(found.shape)
        if shape == (count,):
            return found, ""
        if shape in ((count, 1), (1, count)):
            return found.reshape(count), "keepdim"
        if shape == (count, size):
            return found.sum(-1), "sum_forgotten"
        if shape == (count, count):
            return found.diagonal(), "broadcast"
        raise ValueError(
            f"log_prob: gave shape {shape} for {count} actions of shape {self.event}, expected "
            f"({count},); return one number for each action"
        )

    def adapt(self, actions: Tensor, batch: int) -> None:
        """Finds out how `call` is to be called, with a few actions (S, A).

        Raises:
            ValueError: in no way, or two calls with the same action differ.
        """
        few = actions[: len(self.event) * math.prod(self.event) + 5]
        errors = []
        for rows in dict.fromkeys((0, max(batch, 1), 1)):
            for dtype in self.dtypes:
                self.rows, self.dtype = rows, dtype
                try:
                    self.settle(few)
                    if rows == 1 and not batch and self.over_batch(few):
                        self.shape = "summed_over_batch"
                    return
                except ValueError as error:
                    errors.append(error)
        raise next((error for error in errors if "raised" not in str(error)), errors[0])

    def over_batch(self, few: Tensor) -> bool:
        """Whether a batch gives the sum over its actions."""
        try:
            found = floats(self.raw(few), "log_prob").double()
        except ValueError:
            return False
        return found.numel() == 1 and torch.allclose(found.sum(), self(few).double().sum())

    def settle(self, few: Tensor) -> None:
        count = self.rows or len(few)
        some = few.repeat(count // len(few) + 1, 1)[:count]
        result = self.raw(few[0] if self.rows == 1 else some)
        self.gives_tensors = isinstance(result, Tensor)
        if self.rows == 1:
            found = floats(result, "log_prob")
            size = math.prod(self.event)
            if found.numel() not in (1, size):
                raise ValueError(
                    f"log_prob: gave shape {tuple(found.shape)} for an action of shape "
                    f"{self.event}, expected one number; return their sum"
                )
            self.shape = "sum_forgotten" if found.numel() > 1 else ""
            found, again = self(few[:2]), self(few[:2])
        else:
            found, self.shape = self.read(result, count)
            again = self.read(self.raw(some.flip(0)), count)[0].flip(0)
        if not torch.allclose(found.double(), again.double(), 1e-3, 1e-3, equal_nan=True):
            raise ValueError(
                "log_prob: gave two values for the same action; give the function of one state, "
                "without noise"
            )
        if found.dtype != torch.float64:
            self.dtype = found.dtype if self.dtype == torch.float64 else self.dtype


def called(what: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Calls another's code; whatever it raises becomes a ValueError of one line."""
    try:
        return function(*arguments, **named)
    except Exception as error:
        text = " ".join(str(error).split())[:LONGEST]
        shapes = [f"shape {tuple(a.shape)}" for a in arguments if hasattr(a, "shape")]
        given = " for ".join(["", *shapes]) or f" for {arguments}" * bool(arguments)
        raise ValueError(
            f"{what}: raised {type(error).__name__}{given}: {text}; make it work for actions as "
            "`sample` draws them, inside low and high"
        ) from error


def floats(value: Any, what: str) -> Tensor:
    """Anything numeric as a tensor of floats on the CPU; raises ValueError."""
    try:
        found = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError):
        kind = type(value).__name__
        raise ValueError(f"{what}: gave a {kind}, expected numbers; return an array") from None
    return (found if found.is_floating_point() else found.double()).cpu()


@contextmanager
def seeded(seed: int) -> Iterator[torch.Generator]:
    """A generator; the global ones are seeded too, for functions that use them, then restored."""
    before = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield torch.Generator().manual_seed(seed + 1)
        finally:
            np.random.set_state(before)  # noqa: NPY002


@dataclass(eq=False)
class Drawn:
    """What `sample` gave."""

    actions: Any  # (S,) or (S, A), a tensor or an array
    second: Any = None  # what came with them, (S, ...)
    batch: int = 0  # rows of what one call without arguments gives

    @property
    def is_tensor(self) -> bool:
        return isinstance(self.actions, Tensor)

    @property
    def dtype(self) -> torch.dtype:
        return self.actions.dtype if self.is_tensor else torch.from_numpy(self.actions).dtype

    @property
    def floating(self) -> bool:
        return self.dtype.is_floating_point

    def others(self) -> Tensor | None:
        """What came with the actions, (S, any) float64."""
        if self.second is None:
            return None
        return floats(self.second, "sample").detach().double().reshape(len(self.actions), -1)


def read(
    policy: Any, drawn: Drawn, log_prob: Any, entropy: Any, low: Any = None, high: Any = None
) -> Given:
    """Finds out how the density is called, in which bounds, and what came with the draws.

    Raises:
        ValueError: in one line what came, what was expected, and what to do.
    """
    count = len(drawn.actions)
    actions = checked(floats(drawn.actions, "sample").detach().double().reshape(count, -1))
    own = drawn.dtype if drawn.floating else torch.float64
    function = None
    if log_prob is not None:
        function = Function(
            log_prob,
            tuple(drawn.actions.shape[1:]),
            not drawn.is_tensor,
            (torch.float64, own) if own != torch.float64 else (own,),
            drawn.actions.device if drawn.is_tensor else torch.device("cpu"),
            takes_latent="latent" in parameters_of(log_prob),
        )
        function.adapt(actions, drawn.batch)
    second = drawn.others()
    squashed = second is not None and second.shape == actions.shape
    if squashed and torch.allclose(torch.tanh(second), actions, atol=1e-6) and low is None:
        low, high = -1.0, 1.0 if high is None else high
    support = support_of(policy, function, actions, low, high)
    latent, log_pi = latents(actions, own, support), None
    if second is not None:
        inner = support.latent(actions)
        near = (second - inner).abs() < 1e-2 + 1e-2 * inner.abs()
        if second.shape != actions.shape or float(near.double().mean()) < 0.5:
            log_pi = second.sum(-1)
        elif function is not None and function.takes_latent:
            latent = second
    if function is not None and latent is not second:
        function.takes_latent = False
    each = function is not None and function.shape == "sum_forgotten"
    return Given(actions, support, latent, log_pi, number_of(entropy, each), function)


def resolved(policy: Any, sample: Any, log_prob: Any) -> tuple[Any, Any, Any]:
    """(policy, what samples, what scores); raises ValueError where there is nothing to sample."""
    if isinstance(policy, tuple | list) and len(policy) == 2:
        sample, log_prob, policy = *policy, None
    elif callable(policy) and not hasattr(policy, "log_prob"):
        policy = called("policy", policy)
        return (
            resolved(policy, sample, log_prob) if not callable(policy) else (None, policy, log_prob)
        )
    sample = getattr(policy, "sample", None) if sample is None else sample
    log_prob = getattr(policy, "log_prob", None) if log_prob is None else log_prob
    if not callable(sample):
        kind = f"a {type(policy).__name__} has no `sample`" if policy is not None else "none came"
        raise ValueError(f"sample: {kind}; give sample= and log_prob=, or an object that has both")
    return policy, sample, log_prob


def parameters_of(function: Any) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ()


def draw(sample: Any, count: int, noise: Any = None) -> Drawn:
    """Draws by `sample(noise)`, `sample((count,))`, `sample(count)` or many times `sample()`.

    Raises:
        ValueError: none of them gives actions of one state, or `count` is too small.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < FEWEST:
        raise ValueError(f"draws: {count} are too few to judge by; give {FEWEST:,} or more")
    count = count if noise is None else len(noise)
    attempts: list[tuple[Any, ...]] = [((count,),), (count,), ()] if noise is None else [(noise,)]
    if noise is None and parameters_of(sample)[:1] == ("noise",):
        attempts = [()]
    errors = []
    for arguments in attempts:
        try:
            result = called("sample", sample, *arguments)
            first, second = apart(result)
            if arguments:
                return Drawn(*shaped(first, second, count))
            return collected(sample, first, second, count)
        except ValueError as error:
            errors.append(error)
    own = [error for error in errors if "raised TypeError" not in str(error)]
    raise (own or errors)[-1]


def apart(result: Any) -> tuple[Any, Any]:
    """(actions, log_pi or what else came second); lists of numbers become arrays."""
    if isinstance(result, tuple) and len(result) >= 2 and not np.isscalar(result[0]):
        return array(result[0]), array(result[1])
    return array(result), None


def array(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    floats(value, "sample")
    return np.asarray(value)


def shaped(first: Any, second: Any, count: int) -> tuple[Any, Any]:
    """Draws (S,) or (S, A); raises ValueError for another shape."""
    shape = tuple(first.shape)
    if len(shape) == 3 and shape[1] == 1:
        first, shape = first[:, 0], (shape[0], shape[2])
    if shape[:1] != (count,) or len(shape) > 2:
        states = f" of {shape[1]} states" if shape[:1] == (count,) else ""
        raise ValueError(
            f"sample: gave shape {shape}{states}, expected ({count},) or ({count}, A); "
            "draw actions of one state"
        )
    return first, second


def collected(sample: Any, first: Any, second: Any, count: int) -> Drawn:
    """Draws of `sample()` until there are enough."""
    rows = first.shape[0] if first.ndim == 2 else 1
    together = torch.cat if isinstance(first, Tensor) else np.concatenate
    actions, others = [], []
    for _ in range(math.ceil(count / max(rows, 1))):
        action, other = apart(called("sample", sample))
        if action.shape != first.shape:
            raise ValueError(
                f"sample: gave shapes {tuple(first.shape)} and {tuple(action.shape)}; give one"
            )
        actions.append(action if action.ndim == 2 else action[None])
        if second is not None:
            others.append(other.reshape(rows, -1))
    stacked: Any = together(actions)[:count]
    return Drawn(stacked, together(others)[:count] if others else None, rows)


def checked(actions: Tensor) -> Tensor:
    """Raises ValueError for draws that no density could have."""
    if not bool(actions.isfinite().all()):
        bad = int((~actions.isfinite()).any(-1).sum())
        raise ValueError(f"sample: {bad} of {len(actions)} draws are not finite; draw numbers")
    for column, values in enumerate(actions.T):
        kinds = len(values.unique())
        where = f"component {column} of the draws" if actions.shape[1] > 1 else "draws"
        if kinds == 1:
            raise ValueError(f"sample: {where} always {float(values[0]):g}; draw at random")
        if kinds < min(100, len(values) / 10):
            raise ValueError(
                f"sample: {where} only {kinds} different numbers, a choice and no density; give "
                "probs=, logits= or log_probs= along with sample="
            )
    return actions


def support_of(policy: Any, function: Any, actions: Tensor, low: Any, high: Any) -> Support:
    """The bounds that are given, or that a distribution of torch has, or [-1, 1] if it ends there.

    Raises:
        ValueError: a draw lies outside.
    """
    size = actions.shape[-1]
    if low is None and high is None:
        low, high = bounds_of(policy)
        inside = (
            function is not None
            and not math.isfinite(low.min())
            and bool((actions.abs() <= 1).all())
        )
        if inside and not math.isfinite(high.max()) and ends_at_one(function, size):
            low, high = -torch.ones(1), torch.ones(1)
    ends = []
    for name, given, default in (("low", low, -math.inf), ("high", high, math.inf)):
        end = floats(default if given is None else given, name).double().flatten()
        if len(end) not in (1, size) or bool(end.isnan().any()):
            raise ValueError(f"{name}: {given} does not fit actions of {size}; give 1 or {size}")
        ends.append(end.expand(size).clone())
    lower, upper = ends
    if bool((lower >= upper).any()):
        raise ValueError(f"low: {low} is not below high {high}; exchange them")
    rounding = 1e-6 * (1 + torch.where(lower.isfinite(), lower.abs(), 0.0))
    outside = (actions < lower - rounding) | (actions > upper + rounding)
    if bool(outside.any()):
        worst = float(actions[outside][0])
        raise ValueError(
            f"low, high: the draw {worst:.6g} lies outside {show(lower)} to {show(upper)}; "
            "give the bounds of the actions, or none"
        )
    return Support(lower, upper)


def show(bound: Tensor) -> str:
    values = [f"{value:g}" for value in bound.unique(sorted=False).tolist()]
    return values[0] if len(values) == 1 else f"[{', '.join(f'{v:g}' for v in bound.tolist())}]"


def bounds_of(policy: Any) -> tuple[Tensor, Tensor]:
    """Those that a distribution like torch's has, also through its transforms; else infinite."""
    ends = torch.tensor([[-math.inf], [math.inf]])
    transforms = getattr(policy, "transforms", None)
    base = policy
    while hasattr(base, "base_dist"):
        base = base.base_dist
        transforms = getattr(base, "transforms", transforms)
    try:
        bound = policy.support if transforms is None else base.support
        while hasattr(bound, "base_constraint"):
            bound = bound.base_constraint
        for row, name in enumerate(("lower_bound", "upper_bound")):
            ends[row] = getattr(bound, name, ends[row])
        for transform in transforms or ():
            ends = transform(ends).detach()
    except Exception:  # no distribution of torch: nothing is found out
        return torch.tensor([-math.inf]), torch.tensor([math.inf])
    ends = ends.double().sort(0).values.cpu()
    ends = torch.where(ends.isnan(), torch.tensor([[-math.inf], [math.inf]]).double(), ends)
    return ends[0], ends[1]


def ends_at_one(function: Function, size: int) -> bool:
    """Whether there is no density at 1.5 and at -1.5."""
    for place in (1.5, -1.5):
        try:
            found = function(torch.full((2, size), place, dtype=torch.float64))
        except ValueError:
            continue
        if bool((found > -math.inf).any()):
            return False
    return True


def latents(actions: Tensor, dtype: torch.dtype, support: Support) -> Tensor:
    """Latents of draws, spread evenly over what their float type rounds to the same number."""
    inner, outer = support.reach(torch.float64)
    if dtype == torch.float64:
        return support.latent(actions).clamp(inner, outer)
    near = actions.to(dtype)
    up = torch.nextafter(near, torch.full_like(near, math.inf)).double() - actions
    down = actions - torch.nextafter(near, torch.full_like(near, -math.inf)).double()
    spread = torch.rand(actions.shape, dtype=torch.float64) - 0.5
    spread = actions + torch.where(spread > 0, up, down) * spread
    at_low, at_high = actions <= support.low, actions >= support.high
    spread = torch.where(at_low, support.low + (spread - actions).abs(), spread)
    spread = torch.where(at_high, support.high - (spread - actions).abs(), spread)
    return support.latent(spread).clamp(inner, outer)


def number_of(entropy: Any, each: bool) -> float | None:
    """The entropy in nats, where there is one; the sum of those of `each` dimension."""
    try:
        found = entropy() if callable(entropy) else entropy
    except Exception:  # a distribution that has none, or not in closed form
        return None
    if found is None:
        return None
    values = floats(found, "entropy").detach().double()
    return float(values.sum() if each else values.mean())
