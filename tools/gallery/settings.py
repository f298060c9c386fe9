"""What can be given to `tools/verify.py`: every key, its default and its range; no torch."""

import math
from dataclasses import dataclass, field
from typing import Any

from configs.validate import Group

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
    audits: int = key(0, "only count failures of this many audits of right policies", ge=0)
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
        self.require(len(rows) == 1 and inside, "values",
                     "is no matrix of numbers from 0.001 to 1000",
                     "e.g. [[1,2],[3,4]]")  # fmt: skip


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
        self.require(lower, "scale_tril", "is no lower triangle with a diagonal of 0.001 or more",
                     "e.g. [[0.15,0],[0.044,0.033]]")  # fmt: skip
        tame = max(first, math.hypot(below, second)) <= STD["le"] and abs(below) <= 5 * second
        self.require(tame, "scale_tril", "has a standard deviation beyond 3, or |L21| > 5 L22",
                     "make it smaller")  # fmt: skip


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
