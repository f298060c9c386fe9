"""Observations -> features."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.encoder import Images, eyes
from networks.layers import ACTIVATIONS, linear


class UnitNorm(nn.Module):
    """Scales each observation to Euclidean length 1."""

    def forward(self, obs: Tensor) -> Tensor:
        return functional.normalize(obs, dim=-1)


def torso(
    inputs: int,
    hidden: Sequence[int],
    activation: str,
    generator: torch.Generator,
    orthogonal: bool = False,
    unit_input: bool = False,
    images: Images = (),
) -> nn.Sequential:
    """Fully connected layers, (*, inputs) -> (*, hidden[-1]), each followed by the activation.

    Where there are images in the inputs, `Eyes` come before them.
    """
    gain = math.sqrt(2.0) if orthogonal else None
    layers: list[nn.Module] = [UnitNorm()] if unit_input else []
    if images:
        reader, inputs = eyes(inputs, images, generator)
        layers.append(reader)
    for width_in, width_out in zip([inputs, *hidden], hidden, strict=False):
        layers += [linear(width_in, width_out, generator, gain), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)
