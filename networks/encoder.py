"""Observations -> features: layers, after encoders of the images in them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.layers import ACTIVATIONS, linear

FEATURES = 128
Images = Sequence[tuple[int, Sequence[int]]]  # where each begins in an observation, and its shape
LARGE = 36  # pixels, the least that the layers of Mnih et al. take
# (channels, side of the kernel, stride, padding) of each layer
COARSE = ((32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0))  # Mnih et al. 2015, doi 10.1038/nature14236
FINE = ((32, 3, 1, 1), (32, 3, 1, 1))


class Encoder(nn.Module):
    """Pixels (*, H W C) or (*, C H W) -> features (*, 128) in [-1, 1].

    Convolutions, then a linear layer, layer normalisation and tanh (Yarats et al. 2021,
    arXiv 1910.01741, appendix B).

    Args:
        shape: of one image, as the environment orders it. The sides are two neighbours that are
            equal, if two are; else the channels are the smaller end.
        generator: draws the first weights.
    """

    def __init__(self, shape: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.shape = tuple(shape)
        first, middle, last = shape
        square = (first == middle) != (middle == last)
        self.channels_last = first == middle if square else last < first
        channels, *sides = (shape[-1], *shape[:-1]) if self.channels_last else shape
        layers: list[nn.Module] = []
        for width, kernel, stride, padding in COARSE if min(sides) >= LARGE else FINE:
            layers += [conv(channels, width, kernel, stride, padding, generator), nn.ReLU()]
            sides = [(side + 2 * padding - kernel) // stride + 1 for side in sides]
            channels = width
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.last = linear(channels * math.prod(sides), FEATURES, generator)

    def forward(self, obs: Tensor) -> Tensor:
        pixels = obs.reshape(-1, *self.shape)
        pixels = pixels.movedim(-1, 1) if self.channels_last else pixels
        features = functional.layer_norm(self.last(self.layers(pixels)), (FEATURES,))
        return torch.tanh(features).reshape(*obs.shape[:-1], FEATURES)


class ImageEncoders(nn.Module):
    """Observations (*, O) with images in them -> (*, `width`): each by an encoder of its own.

    The other components stay as they are, and in their order.
    """

    def __init__(self, obs_dim: int, images: Images, generator: torch.Generator) -> None:
        super().__init__()
        self.spans = [(start, start + math.prod(shape)) for start, shape in images]
        self.encoders = nn.ModuleList(Encoder(shape, generator) for _, shape in images)
        seen = sum(math.prod(shape) for _, shape in images)
        self.width = obs_dim - seen + FEATURES * len(images)

    def forward(self, obs: Tensor) -> Tensor:
        parts, rest = [], 0
        for (start, stop), encoder in zip(self.spans, self.encoders, strict=True):
            parts += [obs[..., rest:start], encoder(obs[..., start:stop])]
            rest = stop
        return torch.cat([*parts, obs[..., rest:]], dim=-1)


class Convolution(nn.Conv2d):
    """(B, C, H, W) -> (B, width, ...); `conv` draws its weights."""

    def reset_parameters(self) -> None:
        """Draws nothing: the global generator stays as it was."""


def conv(
    channels: int, width: int, kernel: int, stride: int, padding: int, generator: torch.Generator
) -> nn.Conv2d:
    """A convolution with zero bias and weights uniform in +-1/sqrt(inputs of one output)."""
    layer = Convolution(channels, width, kernel, stride, padding)
    bound = 1.0 / math.sqrt(channels * kernel * kernel)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        assert layer.bias is not None
        layer.bias.zero_()
    return layer


def image_encoder(
    obs_dim: int, images: Images, generator: torch.Generator
) -> tuple[nn.Module, int]:
    """The module that observations go through before the first layer, and its output width."""
    if not images:
        return nn.Identity(), obs_dim
    encoders = ImageEncoders(obs_dim, images, generator)
    return encoders, encoders.width


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

    Images in the inputs are encoded before the first of them.
    """
    gain = math.sqrt(2.0) if orthogonal else None
    layers: list[nn.Module] = [UnitNorm()] if unit_input else []
    if images:
        encoders, inputs = image_encoder(inputs, images, generator)
        layers.append(encoders)
    for width_in, width_out in zip([inputs, *hidden], hidden, strict=False):
        layers += [linear(width_in, width_out, generator, gain), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)
