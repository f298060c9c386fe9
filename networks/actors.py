"""Observations -> features -> parameters of the policy."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.encoder import ImageEncoders, Images
from networks.layers import ACTIVATIONS, Linear
from networks.normalizer import UnitNorm

TORSO_GAIN = math.sqrt(2.0)
HEAD_GAIN = 0.01  # near-uniform first policy (Andrychowicz et al. 2021, arXiv 2006.05990, 3.2)
Head = Callable[[int], nn.Linear]  # number of outputs -> a layer that reads the features


def torso(
    inputs: int,
    hidden: Sequence[int],
    activation: str,
    generator: torch.Generator,
    images: Images = (),
    gain: float | None = None,
    unit_input: bool = False,
) -> nn.Sequential:
    """Fully connected layers, obs (*, inputs) -> features (*, hidden[-1]), each with activation.

    Images in the inputs are encoded before the first of them; `gain` is that of `Linear`.
    """
    layers: list[nn.Module] = [UnitNorm()] if unit_input else []
    if images:
        encoders = ImageEncoders(inputs, images, generator)
        layers, inputs = [*layers, encoders], encoders.width
    for width_in, width_out in zip([inputs, *hidden], hidden, strict=False):
        layers += [Linear(width_in, width_out, generator, gain), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


class GaussianActor(nn.Module):
    """obs (*, O) -> mean (*, A), log_std (*, A).

    Args:
        bounded_mean: ends the mean in tanh. An unsquashed Gaussian whose actions are clipped gets
            no gradient back once its mean is far outside [-1, 1]; this keeps it inside.
        log_std: "state" lets the network emit it; "parameter" is one free number per dimension.
        log_std_init: its value before training; "smooth" comes no closer to an end of the range
            than a thousandth of its half.
        log_std_bound: "clamp" cuts at log_std_min and log_std_max, without a gradient outside;
            "smooth" maps the whole line into them by tanh.
    """

    def __init__(
        self,
        torso: nn.Module,
        head: Head,
        action_dim: int,
        *,
        bounded_mean: bool,
        log_std: Literal["state", "parameter"],
        log_std_init: float,
        log_std_min: float,
        log_std_max: float,
        log_std_bound: Literal["clamp", "smooth"],
    ) -> None:
        super().__init__()
        self.torso, self.mean = torso, head(action_dim)
        self.bounded_mean = bounded_mean
        self.middle = 0.5 * (log_std_max + log_std_min)
        self.half_range = 0.5 * (log_std_max - log_std_min)
        self.smooth = log_std_bound == "smooth"
        start = log_std_init
        if self.smooth:  # what is mapped to it
            inside = min(max((start - self.middle) / self.half_range, -0.999), 0.999)
            start = self.middle + self.half_range * math.atanh(inside)
        self.log_std: nn.Linear | nn.Parameter
        if log_std == "state":
            self.log_std = head(action_dim)
            nn.init.constant_(self.log_std.bias, start)
        else:
            self.log_std = nn.Parameter(torch.full((action_dim,), start))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return self.from_features(self.torso(obs))

    def from_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.mean(features)
        log_std = self.log_std
        raw = log_std(features) if isinstance(log_std, nn.Linear) else log_std.expand_as(mean)
        if self.smooth:
            share = torch.tanh((raw - self.middle) / self.half_range)
            bounded = self.middle + self.half_range * share
        else:
            bounded = raw.clamp(self.middle - self.half_range, self.middle + self.half_range)
        return torch.tanh(mean) if self.bounded_mean else mean, bounded


class FullGaussianActor(GaussianActor):
    """obs (*, O) -> mean (*, A), scale_tril (*, A, A), the factor L of the covariance L L^T.

    Row i of L is std_i (c_i1, ..., c_i,i-1, 1, 0, ...): std_i as in `GaussianActor`, now that of
    component i given those before it, and couplings c, without bounds, from the network or free
    numbers as log_std is. They start at 0, without a draw from the generator, so that the first
    policy is the diagonal one to the last digit.
    """

    placed: Tensor  # (A * A, A (A - 1) / 2), puts each coupling into its place
    eye: Tensor  # (A * A,)

    def __init__(self, torso: nn.Module, head: Head, action_dim: int, **options: Any) -> None:
        super().__init__(torso, head, action_dim, **options)
        self.shape = (action_dim, action_dim)
        eye, below = torch.eye(action_dim).flatten(), torch.ones(self.shape).tril(-1).flatten() > 0
        self.register_buffer("eye", eye, persistent=False)
        self.register_buffer("placed", torch.eye(len(eye))[:, below], persistent=False)
        entries = self.placed.shape[1]
        self.coupling = nn.Parameter(torch.zeros(entries))
        self.coupling_weight = None
        if isinstance(self.log_std, nn.Linear):
            self.coupling_weight = nn.Parameter(torch.zeros(entries, self.log_std.in_features))

    def from_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = super().from_features(features)
        coupling: Tensor = self.coupling
        if self.coupling_weight is not None:
            coupling = functional.linear(features, self.coupling_weight, coupling)
        rows = functional.linear(coupling, self.placed, self.eye).unflatten(-1, self.shape)
        return mean, log_std.exp().unsqueeze(-1) * rows
