"""Features -> parameters of the policy."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.layers import linear

HEAD_GAIN = 0.01  # near-uniform first policy (Andrychowicz et al. 2021, arXiv 2006.05990, 3.2)


class CategoricalActor(nn.Module):
    """obs (*, O) -> log_probs (*, K), normalised: logsumexp over K is 0."""

    def __init__(
        self,
        torso: nn.Module,
        features: int,
        actions: int,
        generator: torch.Generator,
        orthogonal: bool = False,
    ) -> None:
        super().__init__()
        self.torso = torso
        self.head = linear(features, actions, generator, HEAD_GAIN if orthogonal else None)

    def forward(self, obs: Tensor) -> Tensor:
        return self.from_features(self.torso(obs))

    def from_features(self, features: Tensor) -> Tensor:
        return functional.log_softmax(self.head(features), dim=-1)


class MultiCategoricalActor(CategoricalActor):
    """obs (*, O) -> log_probs (*, D, K), normalised; -inf where component d has fewer actions.

    Args:
        choices: number of actions of each component; K is the largest.
    """

    absent: Tensor  # (D, K) bool

    def __init__(
        self,
        torso: nn.Module,
        features: int,
        choices: Sequence[int],
        generator: torch.Generator,
        orthogonal: bool = False,
    ) -> None:
        actions = len(choices) * max(choices)
        super().__init__(torso, features, actions, generator, orthogonal)
        self.shape = (len(choices), max(choices))
        absent = torch.arange(max(choices)) >= torch.tensor(choices).unsqueeze(-1)
        self.register_buffer("absent", absent, persistent=False)

    def from_features(self, features: Tensor) -> Tensor:
        logits = self.head(features).unflatten(-1, self.shape)
        return functional.log_softmax(logits.masked_fill(self.absent, -torch.inf), dim=-1)


class GaussianActor(nn.Module):
    """obs (*, O) -> mean (*, A), log_std (*, A).

    Args:
        bounded_mean: ends the mean in tanh. An unsquashed Gaussian whose actions are clipped gets
            no gradient back once its mean is far outside [-1, 1]; this keeps it inside.
        log_std: "state" lets the network emit it; "parameter" is one free number per dimension.
        log_std_init: its value before training (for "state", the bias of the head); "smooth" comes
            no closer to an end of the range than a thousandth of its half.
        log_std_min, log_std_max: its range.
        log_std_bound: "clamp" cuts at the range (no gradient outside); "smooth" maps the whole line
            into the range by tanh, with a gradient everywhere.
    """

    def __init__(
        self,
        torso: nn.Module,
        features: int,
        action_dim: int,
        generator: torch.Generator,
        *,
        bounded_mean: bool,
        log_std: Literal["state", "parameter"],
        log_std_init: float,
        log_std_min: float,
        log_std_max: float,
        log_std_bound: Literal["clamp", "smooth"],
        orthogonal: bool = False,
    ) -> None:
        super().__init__()
        gain = HEAD_GAIN if orthogonal else None
        self.torso = torso
        self.mean = linear(features, action_dim, generator, gain)
        self.bounded_mean = bounded_mean
        self.middle = 0.5 * (log_std_max + log_std_min)
        self.half_range = 0.5 * (log_std_max - log_std_min)
        self.smooth = log_std_bound == "smooth"
        start = self._unbound(log_std_init)
        self.log_std: nn.Linear | nn.Parameter
        if log_std == "state":
            self.log_std = linear(features, action_dim, generator, gain)
            nn.init.constant_(self.log_std.bias, start)
        else:
            self.log_std = nn.Parameter(torch.full((action_dim,), start))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return self.from_features(self.torso(obs))

    def from_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.mean(features)
        if isinstance(self.log_std, nn.Linear):
            log_std = self.log_std(features)
        else:
            log_std = self.log_std.expand_as(mean)
        return torch.tanh(mean) if self.bounded_mean else mean, self._bound(log_std)

    def _bound(self, raw: Tensor) -> Tensor:
        if self.smooth:
            return self.middle + self.half_range * torch.tanh((raw - self.middle) / self.half_range)
        return raw.clamp(self.middle - self.half_range, self.middle + self.half_range)

    def _unbound(self, log_std: float) -> float:
        if not self.smooth:
            return log_std
        inside = torch.tensor((log_std - self.middle) / self.half_range, dtype=torch.float64)
        return self.middle + self.half_range * float(torch.atanh(inside.clamp(-0.999, 0.999)))


class FullGaussianActor(GaussianActor):
    """obs (*, O) -> mean (*, A), scale_tril (*, A, A), the factor L of the covariance L L^T.

    Row i of L is std_i (c_i1, ..., c_i,i-1, 1, 0, ...): std_i as in `GaussianActor`, now that of
    component i given those before it, and couplings c, without bounds. They start at 0, without a
    draw from the generator, so that the first policy is the diagonal one to the last digit.

    Args:
        others: as in `GaussianActor`; "parameter" makes each coupling one free number too.
    """

    placed: Tensor  # (A * A, A (A - 1) / 2), puts each coupling into its place
    eye: Tensor  # (A * A,)

    def __init__(
        self,
        torso: nn.Module,
        features: int,
        action_dim: int,
        generator: torch.Generator,
        *,
        log_std: Literal["state", "parameter"],
        **others: Any,
    ) -> None:
        super().__init__(torso, features, action_dim, generator, log_std=log_std, **others)
        below = torch.tril_indices(action_dim, action_dim, offset=-1)
        entries = below.shape[1]
        placed = torch.zeros(action_dim, action_dim, entries)
        placed[below[0], below[1], torch.arange(entries)] = 1.0
        self.shape = (action_dim, action_dim)
        self.register_buffer("placed", placed.flatten(0, 1), persistent=False)
        self.register_buffer("eye", torch.eye(action_dim).flatten(), persistent=False)
        self.coupling = nn.Parameter(torch.zeros(entries))
        self.coupling_weight = None
        if log_std == "state":
            self.coupling_weight = nn.Parameter(torch.zeros(entries, features))

    def from_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = super().from_features(features)
        coupling: Tensor = self.coupling
        if self.coupling_weight is not None:
            coupling = functional.linear(features, self.coupling_weight, coupling)
        rows = functional.linear(coupling, self.placed, self.eye).unflatten(-1, self.shape)
        return mean, log_std.exp().unsqueeze(-1) * rows
