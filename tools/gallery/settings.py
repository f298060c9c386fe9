"""The command line of `tools/verify.py`: every key, its default, range and help; no torch."""

import json
import math
from dataclasses import dataclass, field, fields
from typing import Any

from common.errors import ConfigError
from configs.validate import Group, build, nearest, show, unknown_key

MEAN = {"ge": -20, "le": 20}
STD = {"ge": 1e-3, "le": 3}


def key(default: Any, doc: str, **limits: float) -> Any:
    """A field with its default, its meaning and its limits."""
    return field(default_factory=lambda: default, metadata={"doc": doc, **limits})


def samples(count: int) -> Any:
    return key(count, "draws", ge=100, le=1_000_000)


@dataclass(frozen=True)
class Options(Group):
    """Keys of the command itself."""

    section: str = key("all", "one section, which alone makes its keys available; or all")
    seed: int = key(0, "of every draw", ge=0, lt=2**62)
    out: str = key("", "folder of the report; empty: runs/verify/<date-time>")
    run: str = key("", "audit the policy of this run directory instead")
    checkpoint: str = key("latest", "of the run: latest, best, or step-<12 digits>")
    env_id: str = key("", "repeats env.id of a run whose environment a module registers")
    false_alarms: int = key(0, "only count failures of correct code over this many seeds", ge=0)
    debug: bool = key(False, "show the traceback of an error")


@dataclass(frozen=True)
class LogExp(Group):
    """exp(log X) = X in every float type"""

    values: list[list[float]] = key(
        [[1.0, 2.0, 3.0, 4.0], [1.1, 2.1, 3.1, 4.1]], "the matrix X, positive, below 1000"
    )

    def check(self) -> None:
        inside = all(row and all(0.001 <= value <= 1000 for value in row) for row in self.values)
        rows = {len(row) for row in self.values}
        why = "is no matrix of numbers from 0.001 to 1000"
        self.require(len(rows) == 1 and inside, "values", why, "e.g. [[1,2],[3,4]]")


@dataclass(frozen=True)
class TanhAtanh(Group):
    """tanh, its inverse and the log-determinant, out to where each form breaks"""

    limit: float = key(5.0, "the inverse is held against u for |u| up to here", gt=0, le=5)
    step: float = key(0.05, "distance of the points", ge=0.001, le=0.5)
    far: float = key(20.0, "the log-determinants are followed out to here", ge=12, le=40)


@dataclass(frozen=True)
class Normal(Group):
    """the Gaussian's draws and density against the formula by hand and torch.distributions"""

    mean: float = key(3.0, "of the Gaussian", **MEAN)
    std: float = key(0.5, "of the Gaussian", **STD)
    samples: int = samples(500)


@dataclass(frozen=True)
class Plane(Group):
    """Keys of everything that lives in two dimensions."""

    def check(self) -> None:
        for name in ("mean", "std"):
            given = getattr(self, name, [0, 0])
            self.require(len(given) == 2, name, f"has {len(given)} components, not 2", "give two")
        (first, right), (below, second) = tril(getattr(self, "scale_tril", [[1, 0], [0, 1]]))
        lower = right == 0 and min(first, second) >= STD["ge"]
        why = "is no lower triangle with a diagonal of 0.001 or more"
        self.require(lower, "scale_tril", why, "e.g. [[0.15,0],[0.044,0.033]]")
        tame = max(first, math.hypot(below, second)) <= STD["le"] and abs(below) <= 5 * second
        why = "has a standard deviation beyond 3, or |L21| > 5 L22"
        self.require(tame, "scale_tril", why, "make it smaller")


def tril(rows: list[list[float]]) -> list[list[float]]:
    return rows if [len(row) for row in rows] == [2, 2] else [[0, 0], [0, 0]]


@dataclass(frozen=True)
class MultivariateNormal(Plane):
    """diagonal and full covariance in two dimensions: draws, covariance, density"""

    mean: list[float] = key([1.0, 3.0], "of both Gaussians", **MEAN)
    std: list[float] = key([0.15, 0.055], "of the diagonal one", **STD)
    scale_tril: list[list[float]] = key(
        [[0.15, 0.0], [0.044, 0.033]], "Cholesky factor of the full one"
    )
    samples: int = samples(500)


@dataclass(frozen=True)
class NormalLogProb(Group):
    """exp(log_prob) of the Gaussian over the histogram of its draws"""

    mean: float = key(4.0, "of the Gaussian", **MEAN)
    std: float = key(0.8, "of the Gaussian", **STD)
    points: int = key(100, "drawn actions at which the density is shown", ge=10, le=5000)
    samples: int = samples(5000)


@dataclass(frozen=True)
class TanhNormal(Group):
    """the density of tanh(u), with its Jacobian, over the histogram of the actions"""

    mean: float = key(5.0, "of u", **MEAN)
    std: float = key(0.2, "of u", **STD)
    points: int = key(100, "drawn actions at which the density is shown", ge=10, le=5000)
    samples: int = samples(5000)


@dataclass(frozen=True)
class DiagonalLogProb(Plane):
    """exp(log_prob) of the Gaussian with two components over their 3-D histogram"""

    mean: list[float] = key([1.0, 3.0], "of the Gaussian", **MEAN)
    std: list[float] = key([0.15, 0.055], "of the Gaussian", **STD)
    points: int = key(800, "drawn actions at which the density is shown", ge=10, le=5000)
    samples: int = samples(5000)


@dataclass(frozen=True)
class TanhDiagonal(Plane):
    """the same through tanh"""

    mean: list[float] = key([1.0, 3.0], "of u", **MEAN)
    std: list[float] = key([0.15, 0.055], "of u", **STD)
    points: int = key(500, "drawn actions at which the density is shown", ge=10, le=5000)
    samples: int = samples(5000)


@dataclass(frozen=True)
class TanhFull(Plane):
    """the same through tanh, with correlated components"""

    mean: list[float] = key([1.0, 3.0], "of u", **MEAN)
    scale_tril: list[list[float]] = key(
        [[0.15, 0.0], [0.044, 0.033]], "Cholesky factor of the covariance of u"
    )
    points: int = key(500, "drawn actions at which the density is shown", ge=10, le=5000)
    samples: int = samples(5000)


@dataclass(frozen=True)
class LogSoftmax(Group):
    """log_softmax against log(softmax) out to large logits; frequencies of the categorical"""

    size: float = key(1000.0, "largest logit", ge=1, le=10000)
    probs: list[float] = key([0.25] * 4, "probabilities of the categorical", ge=1e-6, le=1)
    samples: int = samples(10_000)

    def check(self) -> None:
        whole = len(self.probs) > 1 and abs(sum(self.probs) - 1) < 1e-6
        self.require(whole, "probs", "must be two or more that sum to 1", "e.g. [0.7,0.2,0.1]")


@dataclass(frozen=True)
class Entropy(Plane):
    """the entropy of every policy against its draws, its integral and 50 digits"""

    mean: list[float] = key([0.5, -1.0], "of u", **MEAN)
    std: list[float] = key([0.5, 0.9], "of u, diagonal policies", **STD)
    scale_tril: list[list[float]] = key([[0.5, 0.0], [0.6, 0.4]], "of u, full policies")
    probs: list[float] = key([0.6, 0.3, 0.1], "of the categorical policy", ge=1e-6, le=1)
    samples: int = samples(5000)

    def check(self) -> None:
        super().check()
        whole = len(self.probs) > 1 and abs(sum(self.probs) - 1) < 1e-6
        self.require(whole, "probs", "must be two or more that sum to 1", "e.g. [0.7,0.2,0.1]")


SECTIONS: dict[str, type[Group]] = {
    "log_exp": LogExp,
    "tanh_atanh": TanhAtanh,
    "normal": Normal,
    "multivariate_normal": MultivariateNormal,
    "normal_log_prob": NormalLogProb,
    "tanh_normal": TanhNormal,
    "diagonal_log_prob": DiagonalLogProb,
    "tanh_diagonal": TanhDiagonal,
    "tanh_full": TanhFull,
    "log_softmax": LogSoftmax,
    "entropy": Entropy,
}


def names(group: type[Group]) -> list[str]:
    return [declared.name for declared in fields(group)]


def plain(group: Group) -> dict[str, Any]:
    return {name: getattr(group, name) for name in names(type(group))}


def parse(arguments: list[str]) -> tuple[Options, dict[str, Any]]:
    """(the command's own options, the settings of each chosen section).

    Raises:
        ConfigError: an unknown section or key, or a value of the wrong type or out of range.
    """
    given = read(arguments, ("section", "out", "run", "checkpoint", "env.id"))
    if "env.id" in given:
        given["env_id"] = given.pop("env.id")
    own = {name: given.pop(name) for name in names(Options) if name in given}
    options = build(Options, plain(Options()) | own)
    if options.run and (given or options.section != "all" or options.false_alarms):
        alone = "seed, out, checkpoint and env.id alone; leave the other keys out"
        raise ConfigError(f"run: goes with {alone}")
    if options.section == "all":
        chosen, known = list(SECTIONS), ["samples"]
    elif options.section in SECTIONS:
        chosen, known = [options.section], names(SECTIONS[options.section])
    else:
        hint = nearest(options.section, ["all", *SECTIONS])
        raise ConfigError(f"section: there is no {show(options.section)}; {hint}")
    for name in given:
        if name not in known:
            having = [section for section, group in SECTIONS.items() if name in names(group)]
            if options.section == "all" and having:
                one = f"add section=NAME, one of {', '.join(having)}"
                raise ConfigError(f"{name}: is a key of single sections; {one}")
            raise ConfigError(unknown_key(name, [*names(Options), *known]))
    made = {}
    for section in chosen:
        group = SECTIONS[section]
        own = {name: value for name, value in given.items() if name in names(group)}
        made[section] = build(group, plain(group()) | own)
    return options, made


def read(arguments: list[str], texts: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE of the command line; values are JSON, numbers or text, those of `texts` text."""
    given: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals:
            raise ConfigError(f"{show(argument)}: is not KEY=VALUE; --help lists the keys")
        given[name] = text if name in texts else value_of(text)
    return given


def value_of(text: str) -> Any:
    """The value that a text stands for: JSON, a number, or the text itself."""
    for convert in (json.loads, float):
        try:
            return convert(text)
        except (ValueError, RecursionError):
            continue
    return text


def help_text() -> str:
    """All sections and keys with their defaults."""
    lines = [
        "usage: python tools/verify.py [KEY=VALUE ...]\n",
        "  python tools/verify.py                                     every section",
        "  python tools/verify.py section=tanh_normal mean=5 std=0.2  one, with other settings",
        "  python tools/verify.py run=runs/...                        a trained policy",
        "  python tools/verify.py false_alarms=1000                   its rate of false alarms\n",
        "exit code 0: everything holds; 1: something does not; 2: a key or value is wrong\n",
    ]
    groups: dict[str, type[Group]] = {"": Options, **SECTIONS}
    for section, group in groups.items():
        lines.append(f"section={section}: {group.__doc__}" if section else "keys:")
        for declared in fields(group):
            default = json.dumps(getattr(group(), declared.name)).replace(" ", "").strip('"')
            limits = [
                f"{word} {declared.metadata[limit]:g}"
                for limit, word in (("ge", ">="), ("gt", ">"), ("le", "<="))
                if limit in declared.metadata
            ]
            name = "env.id" if declared.name == "env_id" else declared.name
            shown = f"{name}={default}"
            meaning = declared.metadata["doc"] + (f" ({', '.join(limits)})" if limits else "")
            lines.append(f"  {shown:<44}  {meaning}")
    lines.append("without section=NAME, samples=N holds for all sections that draw")
    return "\n".join(lines)
