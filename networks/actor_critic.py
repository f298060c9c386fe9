"""Networks for the parameters of Gaussian policies, and for values of states and actions."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from networks.encoder import ImageEncoders, Images
from networks.layers import ACTIVATIONS, EnsembleLinear, EnsembleNorm, Linear
from networks.normalizer import UnitNorm

TORSO_GAIN = math.sqrt(2.0)
HEAD_GAIN = 0.01  # near-uniform first policy (Andrychowicz et al. 2021, arXiv 2006.05990, 3.2)
Head = Callable[[int], nn.Linear]  # from a number of outputs to a layer on the features


def torso(
    inputs: int,
    hidden: Sequence[int],
    activation: str,
    generator: torch.Generator,
    images: Images = (),
    gain: float | None = None,
    unit_input: bool = False,
    mask: int = 0,
) -> nn.Sequential:
    """Fully connected layers, obs (*, inputs) -> features (*, hidden[-1]), each with activation.

    Images in the inputs are encoded, the last `mask` inputs not used; `gain` is that of `Linear`.
    """
    layers: list[nn.Module] = [UnitNorm()] if unit_input else []
    if images or mask:
        encoders = ImageEncoders(inputs - mask, images, generator)
        layers, inputs = [encoders, *layers], encoders.width
    for width_in, width_out in zip([inputs, *hidden], hidden, strict=False):
        layers += [Linear(width_in, width_out, generator, gain), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


class GaussianActor(nn.Module):
    """obs (*, O) -> mean (*, A), log_std (*, A).

    Args:
        bounded_mean: whether tanh keeps the mean inside [-1, 1]. Far outside, all actions of an
            unsquashed Gaussian are clipped to the same one, and no gradient leads back.
        log_std: "state", an output of the network; "parameter", one number per dimension.
        log_std_init: its value before training; with "smooth" at least a thousandth of half the
            range away from the ends.
        log_std_bound: "clamp" cuts at log_std_min and log_std_max, without a gradient outside;
            "smooth" maps all numbers between them by tanh.
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
        if self.smooth:  # the number that is mapped to it
            inside = min(max((start - self.middle) / self.half_range, -0.999), 0.999)
            start = self.middle + self.half_range * math.atanh(inside)
        self.log_std: nn.Linear | nn.Parameter
        if log_std == "state":
            self.log_std = head(action_dim)
            nn.init.constant_(self.log_std.bias, start)
        else:
            self.log_std = nn.Parameter(torch.full((action_dim,), start))

    def forward(self, obs: Tensor, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        features = self.torso(obs) if features is None else features
        mean, log_std = self.mean(features), self.log_std
        raw = log_std(features) if isinstance(log_std, nn.Linear) else log_std.expand_as(mean)
        if self.smooth:
            share = torch.tanh((raw - self.middle) / self.half_range)
            bounded = self.middle + self.half_range * share
        else:
            bounded = raw.clamp(self.middle - self.half_range, self.middle + self.half_range)
        return torch.tanh(mean) if self.bounded_mean else mean, bounded


class Critic(nn.Module):
    """obs (*, O), action (*, A) -> Q of every member (E, *), or with K outputs (E, *, K).

    Each member has its own layers, evaluated by one batched product per layer; all share the
    encoders of images. With A = 0 there is no action. The last `mask` of O are not used.
    """

    def __init__(
        self,
        members: int,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        activation: str,
        generator: torch.Generator,
        normalise: bool = False,
        images: Images = (),
        outputs: int = 1,
        mask: int = 0,
    ) -> None:
        super().__init__()
        self.members = members
        encoder = ImageEncoders(obs_dim - mask, images, generator) if images or mask else None
        obs_dim = encoder.width if encoder else obs_dim
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise([obs_dim + action_dim, *hidden]):
            layers.append(EnsembleLinear(members, width_in, width_out, generator))
            if normalise:
                layers.append(EnsembleNorm(members, width_out))
            layers.append(ACTIVATIONS[activation]())
        last = EnsembleLinear(members, hidden[-1], outputs, generator)
        self.layers = nn.Sequential(*layers, last)
        self.encoder = encoder or nn.Identity()  # after the layers: the order of saved states

    def forward(self, obs: Tensor, action: Tensor | None = None) -> Tensor:
        inputs: Tensor = self.encoder(obs)
        inputs = inputs if action is None else torch.cat([inputs, action], dim=-1)
        rows = inputs.reshape(-1, inputs.shape[-1])  # (B, O + A)
        outputs: Tensor = self.layers(rows.expand(self.members, -1, -1))  # (E, B, K)
        outputs = outputs.reshape(self.members, *inputs.shape[:-1], outputs.shape[-1])
        return outputs.squeeze(-1) if outputs.shape[-1] == 1 else outputs


class Value(nn.Module):
    """obs (*, O) -> V(obs) (*,); `bounded` by tanh, for returns that are scaled into [-1, 1]."""

    def __init__(self, torso: nn.Module, head: nn.Linear, bounded: bool = False) -> None:
        super().__init__()
        self.torso, self.head, self.bounded = torso, head, bounded

    def forward(self, obs: Tensor, features: Tensor | None = None) -> Tensor:
        value = self.head(self.torso(obs) if features is None else features).squeeze(-1)
        return torch.tanh(value) if self.bounded else value
