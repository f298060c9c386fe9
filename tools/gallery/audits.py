"""How often the audit fails a policy that is right: all kinds, at parameters of all sizes."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

import policies
from audit.density import audit

Parameters = tuple[Tensor, ...]  # for one state
LARGEST = 6  # action components


class Count(NamedTuple):
    """What became of one trial of one kind."""

    run: int
    failed: int
    worst: float  # largest figure / bound

    def with_one(self, ratio: float) -> "Count":
        return Count(self.run + 1, self.failed + (not ratio <= 1.0), max(self.worst, ratio))


def between(low: float, high: float, shape: Any, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def logits(generator: torch.Generator) -> Parameters:
    """2 to 18 actions, from alike to one that is taken almost always."""
    count = int(torch.randint(2, 19, (1,), generator=generator))
    scale = between(-1.0, 1.5, 1, generator).exp()
    return (torch.log_softmax(scale * torch.randn(count, generator=generator), -1),)


def certain(generator: torch.Generator) -> Parameters:
    """All but one of 2 to 6 actions have a probability of 1e-2 to 1e-17."""
    count = int(torch.randint(2, 7, (1,), generator=generator))
    return (torch.log_softmax(-between(4.0, 40.0, count, generator).cumsum(0), -1),)


def diagonal(mean: float, low: float, high: float) -> Callable[[torch.Generator], Parameters]:
    """1 to 6 components: means of that size, logarithms of deviations in that range."""

    def draw(generator: torch.Generator) -> Parameters:
        size = int(torch.randint(1, LARGEST + 1, (1,), generator=generator))
        means = mean * torch.randn(size, generator=generator)
        return means, between(low, high, size, generator)

    return draw


def saturated(generator: torch.Generator) -> Parameters:
    """Means of 3 to 20 on either side."""
    means, log_std = diagonal(1.0, -3.0, 2.0)(generator)
    return means.sign() * between(3.0, 20.0, means.shape, generator), log_std


def full(generator: torch.Generator) -> Parameters:
    """Rows of the triangle as the actor emits them, deviation times (couplings, 1)."""
    means, log_std = diagonal(1.0, -3.0, 0.5)(generator)
    couplings = torch.randn(len(means), len(means), generator=generator).tril(-1)
    scale = between(-2.0, 1.5, 1, generator).exp()  # of the couplings: up to about 10
    return means, log_std.exp().unsqueeze(-1) * (scale * couplings + torch.eye(len(means)))


KINDS: dict[str, tuple[Any, Callable[[torch.Generator], Parameters]]] = {
    "Categorical": (policies.Categorical, logits),
    "Categorical, nearly certain": (policies.Categorical, certain),
    "Gaussian": (policies.Gaussian, diagonal(3.0, -5.0, 2.0)),
    "TanhGaussian": (policies.TanhGaussian, diagonal(1.0, -3.0, 0.5)),
    "TanhGaussian, saturated": (policies.TanhGaussian, saturated),
    "TanhGaussian, narrow": (policies.TanhGaussian, diagonal(2.0, -20.0, -5.0)),
    "FullGaussian": (policies.FullGaussian, full),
    "TanhFullGaussian": (policies.TanhFullGaussian, full),
}


def count_alarms(audits: int) -> int:
    """Audits that many policies, the kinds in turn, seeds 1, 2, ...; prints a row per trial.

    Returns:
        0 if none failed, else 1.
    """
    counts: dict[tuple[str, str], Count] = defaultdict(lambda: Count(0, 0, 0.0))
    failed = 0
    for seed in range(1, audits + 1):
        kind = list(KINDS)[seed % len(KINDS)]
        make, draw = KINDS[kind]
        generator = torch.Generator().manual_seed(seed)
        found = audit(make, draw(generator), generator)
        failed += bool(found.failures)
        for trial in found.trials:
            name = trial.name.partition(" of component")[0]
            counts[kind, name] = counts[kind, name].with_one(trial.figure / trial.bound)
    for (kind, name), count in sorted(counts.items()):
        print(f"{kind:<28}  {name:<32}  {count.run:>7,} run  {count.failed:>3} failed  "
              f"largest {count.worst:.2f} of its bound")  # fmt: skip
    print(f"\n{audits:,} audits of right policies, {failed} failed")
    return int(failed > 0)
