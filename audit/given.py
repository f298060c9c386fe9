"""What is handed in to be checked, in whatever form: draws and a log-density of one shape."""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audit.support import Support, floats, latents, served, support_of, tensor

FEWEST = 1000  # draws
CHUNK = {"": 200_000, "broadcast": 64}  # actions in one call, by what is wrong with the shape
FINE = 1e-9  # a relative change that float32 rounds away, and float64 does not
WIDEST = 100  # components of one action
LONGEST = 160  # characters of another's message
DEPENDENT = 1e-10  # the least eigenvalue of the correlations of draws that have a density
REMEDIES = {  # for what raises an error
    "policy": "make it work without arguments",
    "entropy": "give a number, or a function without arguments",
    "sample": "give noise= if it takes noise, else let it take (draws,), a number of draws, or "
    "nothing, and draw at one state",
    "log_prob": "let it take any number, or give low= and high= and let it take what is between",
}


@dataclass(eq=False)
class Drawn:
    """What `sample` gave."""

    actions: Tensor  # (S,) or (S, A)
    second: Tensor | None = None  # what came with them, (S, any)
    batch: int = 0  # rows of one call without arguments
    numpy: bool = False  # whether they were arrays
    name: str = "sample"  # of the argument that they came by

    @property
    def precision(self) -> torch.dtype:
        """The coarser float type of the actions and of what came with them."""
        kinds = [one.dtype for one in (self.actions, self.second) if one is not None]
        kinds = [kind for kind in kinds if kind.is_floating_point] or [torch.float64]
        return max(kinds, key=lambda kind: torch.finfo(kind).eps)

    def numbers(self) -> Tensor:
        """(S, A) float64."""
        return self.actions.cpu().double().reshape(len(self.actions), -1)

    def as_came(self, values: Tensor) -> Any:
        """A tensor or an array, as `sample` gives them."""
        return values.detach().numpy()[()] if self.numpy else values.to(self.actions.device)


@dataclass(eq=False)
class Function:
    """log_prob as handed in, called with what it takes: (*, A) float64 -> (*,) float64."""

    call: Callable[..., Any]
    drawn: Drawn
    takes_latent: bool = False
    dtype: torch.dtype = torch.float64  # what it computes in
    rows: int = 0  # 0: any number at once; 1: one by one; B: always B
    shape: str = ""  # what is wrong with that of the result
    gives_tensors: bool = False

    def __call__(self, actions: Tensor, latent: Tensor | None = None) -> Tensor:
        """Log-density in nats, differentiable if it is."""
        every = actions.reshape(-1, actions.shape[-1])
        inner = None if latent is None else latent.reshape(every.shape)
        step = self.rows or CHUNK.get(self.shape, CHUNK[""])
        parts = [actions.new_zeros(0)]
        for start in range(0, len(every), step):
            places = torch.arange(
                start, start + step if self.rows > 1 else min(start + step, len(every))
            )
            places = places.clamp_max(len(every) - 1)  # a batch of fixed size ends in copies
            part = self.part(every[places], None if inner is None else inner[places])
            parts.append(part[: len(every) - start].double())
        return torch.cat(parts).reshape(actions.shape[:-1])

    def part(self, actions: Tensor, latent: Tensor | None) -> Tensor:
        """One call, (N, A) -> (N,)."""
        count, event = len(actions), tuple(self.drawn.actions.shape[1:])
        one_shape = event if self.rows == 1 else (count, *event)
        given = [actions] if latent is None or not self.takes_latent else [actions, latent]
        came = [self.drawn.as_came(one.reshape(one_shape).to(self.dtype)) for one in given]
        named = dict(zip(("latent",), came[1:], strict=False))
        result = called("log_prob", self.call, came[0], **named)
        self.gives_tensors = isinstance(result, Tensor)
        found, size = floats(result, "log_prob"), math.prod(event)
        if self.dtype == torch.float64 and found.dtype != torch.float64:
            self.dtype = found.dtype
        shapes: dict[tuple[int, ...], str] = {
            (count, count): "broadcast",
            (count, size): "sum_forgotten",
        }
        shapes |= {(count, 1): "keepdim", (1, count): "keepdim", (count,): ""}
        if self.rows == 1:
            shapes |= {(size,): "sum_forgotten", (): "", (1,): "", (1, 1): ""}
        if tuple(found.shape) not in shapes:
            over = "; it is the sum over a batch" if found.numel() == 1 else ""
            raise ValueError(
                f"log_prob: gave shape {tuple(found.shape)} for {count} actions of shape {event}, "
                f"expected ({count},){over}; return one number for each action"
            )
        shape = shapes[tuple(found.shape)]
        self.shape = self.shape if self.shape == "summed_over_batch" else shape
        if shape == "broadcast":
            return found.diagonal()
        return found.reshape(count, -1).sum(-1)

    def adapt(self, actions: Tensor, latent: Tensor | None) -> None:
        """Finds out how to call it, with a few actions.

        Raises:
            ValueError: in no way, or two calls with the same action differ.
        """
        own = self.drawn.actions.dtype
        errors = []
        few = torch.arange(actions.shape[-1] + 5)
        latent = actions if latent is None else latent
        for number, kind in product((0, max(self.drawn.batch, 1), 1), (torch.float64, own)):
            self.rows, self.dtype = number, kind
            try:
                found, again = (self(actions[rows], latent[rows]) for rows in (few, few.flip(0)))
                some = few[: len(few) - 2]
                fewer = self(actions[some], latent[some])
            except ValueError as error:
                errors.append(error)
                continue
            first, then = torch.cat([found, found[some]]), torch.cat([again.flip(0), fewer])
            if torch.allclose(first, then, 1e-3, 1e-3, equal_nan=True):
                summed = "sum over a batch" in str(errors) and not self.drawn.batch
                self.shape = "summed_over_batch" if summed else self.shape
                near = self(nearer(actions[few]), nearer(latent[few]))
                varied = len(found.unique()) > len(found) // 2
                if varied and float((near == found).double().mean()) > 0.5:  # float32 inside
                    self.dtype = torch.float32
                return
            remedy = "give the function of one state, without noise or statistics of the batch"
            errors.append(ValueError(f"log_prob: gave two values for the same action; {remedy}"))
            if not number:
                break  # it takes a batch, and then is wrong in one
        raise next((error for error in errors if "raised" not in str(error)), errors[0])


@dataclass(eq=False)
class Given:
    """Draws at one state, and what scores them."""

    actions: Tensor  # (S, A) float64
    support: Support
    latent: Tensor  # (S, A); what a float type rounded is spread evenly again
    log_pi: Tensor | None  # (S,) handed out with the draws
    entropy: float | None
    function: Function | None
    precision: torch.dtype = torch.float64  # of the draws and of what came with them


def read(
    policy: Any, drawn: Drawn, log_prob: Any, entropy: Any, low: Any = None, high: Any = None
) -> Given:
    """Finds out how the density is called, in which bounds, and what came with the draws.

    Raises:
        ValueError: in one line what came, what was expected, and what to do.
    """
    function: Function | None = None
    log_pi: Tensor | None = None
    actions = drawn.numbers()
    second = None if drawn.second is None else drawn.second.double()
    squashed = second is not None and second.shape == actions.shape
    if second is not None:
        squashed = squashed and torch.allclose(second.tanh(), actions, atol=1e-5)
        if not squashed and not torch.equal(second, actions):
            log_pi = second.sum(-1)
            second = None
    if squashed and low is None and high is None:
        low, high = -1.0, 1.0
    if log_prob is not None:
        by_latent = second is not None and "latent" in parameters(log_prob)
        function = Function(log_prob, drawn, by_latent)
        checked(second if second is not None and by_latent else actions, drawn.name)
        function.adapt(actions, second)
    else:
        checked(actions, drawn.name)
    support = support_of(policy, function, actions, low, high)
    inner = latents(actions, drawn.actions.dtype, support)
    if second is not None and function is not None and function.takes_latent:
        inner = second
    each = function is not None and function.shape == "sum_forgotten"
    value = number_of(entropy, each)
    return Given(actions, support, inner, log_pi, value, function, drawn.precision)


def resolved(policy: Any, sample: Any, log_prob: Any) -> tuple[Any, Any, Any]:
    """(policy, what samples, what scores); raises ValueError where there is nothing to sample."""
    if isinstance(policy, type):
        raise ValueError(f"policy: the class {policy.__name__} came; give one of its objects")
    if callable(policy) and not hasattr(policy, "log_prob"):
        function, policy = policy, called("policy", policy)
        if isinstance(policy, tuple) and len(policy) > 1 and not callable(policy[0]):
            sample, policy = function, None  # it returned actions and log_pi
        elif isinstance(policy, type):
            raise ValueError(f"policy: returned the class {policy.__name__}; return an object")
        elif callable(policy) and not hasattr(policy, "sample"):
            sample, policy = policy, None
    if isinstance(policy, tuple) and len(policy) == 2:
        (sample, log_prob), policy = policy, None
    policy = served(policy)
    sample = getattr(policy, "sample", None) if sample is None else sample
    log_prob = getattr(policy, "log_prob", None) if log_prob is None else log_prob
    if not callable(sample) or not (log_prob is None or callable(log_prob)):
        came = "nothing" if policy is None else f"a {type(policy).__name__}"
        raise ValueError(
            f"policy: {came} came, expected functions; give sample= and log_prob=, or an object "
            "that has both"
        )
    return policy, sample, log_prob


def parameters(function: Any) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ()


def draw(sample: Any, count: int, noise: Any = None) -> Drawn:
    """Draws by `sample(noise)`, `sample((count,))`, `sample(count)` or many times `sample()`.

    Raises:
        ValueError: none of them gives actions of one state, or they are too few.
    """
    what = "draws" if noise is None else "noise"
    if noise is not None:
        count = len(noise) if tensor(noise, "noise").ndim else 1
    if isinstance(count, bool) or not isinstance(count, int | np.integer):
        raise ValueError(f"draws: {count!r} is no whole number; give {FEWEST:,} or more")
    if count < FEWEST:
        raise ValueError(f"{what}: {count} are too few to judge by; give {FEWEST:,} or more")
    ways: list[tuple[Any, ...]] = [((count,),), (count,), ()]
    if noise is not None:
        ways = [(noise,)]
    elif parameters(sample)[:1] == ("noise",):
        ways = [()]
    errors = []
    for way in ways:
        try:
            results = [apart(called("sample", sample, *way))]
            first = results[0][0]
            rows = len(first) if many(first) or (way and first.ndim) else 1
            more = 0 if way else math.ceil(count / max(rows, 1)) - 1
            results += [apart(called("sample", sample)) for _ in range(more)]
            if more and all(torch.equal(first, again) for again, *_ in results):  # stored ones
                if rows < FEWEST:
                    raise ValueError(
                        "sample: gave the same each time; draw anew each time, or "
                        f"{FEWEST:,} at once"
                    )
                results, count = results[:1], rows
            return together(results, count, 0 if way else rows)
        except ValueError as error:
            errors.append(error)
    raise next(
        (error for error in errors[::-1] if "raised TypeError" not in str(error)), errors[-1]
    )


def apart(result: Any) -> tuple[Tensor, Tensor | None, bool]:
    """(actions, log_pi or what else came second or None, whether they were arrays)."""
    pair = result[:2] if isinstance(result, tuple) and len(result) > 1 else (result, None)
    actions, second = (None if one is None else tensor(one, "sample").detach() for one in pair)
    if actions is None or not actions.numel():
        came = "None" if actions is None else f"shape {tuple(actions.shape)}"
        raise ValueError(f"sample: returned {came}, expected actions; return them")
    return actions, second, not isinstance(pair[0], Tensor)


def many(action: Tensor) -> bool:
    """Whether a call without arguments gave a batch: (B, A), or (B,) numbers."""
    return action.ndim > 1 or action.numel() > WIDEST


def together(results: list[tuple[Tensor, Tensor | None, bool]], count: int, batch: int) -> Drawn:
    """The draws of one call, or of several; raises ValueError for shapes that do not fit."""
    actions = [action for action, _, _ in results]
    shapes = sorted({tuple(action.shape) for action in actions})
    if batch:  # one action, or B of them, in each
        actions = [action if many(action) else action.unsqueeze(0) for action in actions]
    if len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][1] == 1:
        actions = [action.squeeze(1) for action in actions]
    rows = [len(action) if action.ndim else 0 for action in actions]
    if len(shapes) > 1 or actions[0].ndim > 2 or (not batch and rows != [count]):
        raise ValueError(
            f"sample: gave shape {' and '.join(map(str, shapes))}, expected ({count},) or "
            f"({count}, A); draw actions of one state"
        )
    others = [
        second.cpu().reshape(number, -1)
        for number, (_, second, _) in zip(rows, results, strict=True)
        if second is not None and second.numel() % number == 0
    ]
    second = torch.cat(others)[:count] if len(others) == len(rows) else None
    return Drawn(torch.cat(actions)[:count], second, batch, results[0][2])


def nearer(values: Tensor) -> Tensor:
    """Values (N, A) moved towards their mean by a relative change of `FINE`."""
    centre = values.mean(0)
    far = 1.0 + centre.abs() / (values - centre).abs().amax(0)
    return torch.lerp(
        values, centre.expand_as(values), (FINE * far).clamp(max=0.5).expand_as(values)
    )


def checked(actions: Tensor, name: str) -> Tensor:
    """Raises ValueError for draws that no density could have."""
    if not bool(actions.isfinite().all()):
        bad = int((~actions.isfinite()).any(-1).sum())
        raise ValueError(f"{name}: {bad} of {len(actions)} draws are not finite; draw numbers")
    for column, values in enumerate(actions.T):
        kinds = len(values.unique())
        where = f"component {column} of the draws" if actions.shape[1] > 1 else "each draw"
        if kinds == 1:
            raise ValueError(f"{name}: {where} is always {float(values[0]):g}; draw at random")
        if kinds < min(100, len(values) / 10):
            remedy = "draw indices and give probs=, logits= or log_probs= too, else"
            if name == "actions":
                remedy = "give them to audit.check with probs=, logits= or log_probs=, else"
            raise ValueError(
                f"{name}: {where} has only {kinds} different numbers; if they are choices, "
                f"{remedy} draw in float64"
            )
    several = 1 < actions.shape[1] < len(actions) / 10
    if several and float(torch.linalg.eigvalsh(actions.T.corrcoef())[0]) < DEPENDENT:
        raise ValueError(
            f"{name}: the components of each draw determine one another, as on a simplex, so that "
            "there is no density; hand check_pairs(actions[:, :-1], log_pi)"
        )
    return actions


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


def called(what: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Calls another's code; whatever it raises becomes a ValueError of one line."""
    try:
        return function(*arguments, **named)
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())[:LONGEST]
        shapes = ", ".join(f"shape {tuple(a.shape)}" for a in arguments if hasattr(a, "shape"))
        kind = f"{type(error).__name__}{' for ' * bool(shapes)}{shapes}"
        remedy = REMEDIES[what]
        if what == "log_prob" and isinstance(error, TypeError) and "argument" in text:
            remedy = "give a function of the action alone, as lambda action: f(state, action)"
        raise ValueError(f"{what}: raised {kind}: {text}; {remedy}") from error


@contextmanager
def seeded(seed: int) -> Iterator[torch.Generator]:
    """A generator; the global ones are seeded too, for functions that use them, then restored."""
    if not isinstance(seed, int) or abs(seed) >= 2**63:
        raise ValueError(f"seed: {seed!r} is no whole number of 64 bits; give one, e.g. 0")
    before = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield torch.Generator().manual_seed(seed + 1)
        finally:
            np.random.set_state(before)  # noqa: NPY002
