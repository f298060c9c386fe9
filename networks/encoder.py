"""Encoders from images in observations to features."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.layers import Linear, uniform

FEATURES = 128
Images = Sequence[tuple[int, Sequence[int]]]  # first component in an observation, and shape
LARGE = 36  # pixels, the smallest side that the layers of Mnih et al. accept
# (channels, side of the kernel, stride, padding) of each layer
COARSE = ((32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0))  # Mnih et al. 2015, doi 10.1038/nature14236
FINE = ((32, 3, 1, 1), (32, 3, 1, 1))


class Encoder(nn.Module):
    """Pixels (*, H W C) or (*, C H W) -> features (*, 128) in [-1, 1].

    Convolutions, then a linear layer, layer normalisation and tanh (Yarats et al. 2021,
    arXiv 1910.01741, appendix B).

    Args:
        shape: of one image, in the order of the environment. If two neighbours are equal, they are
            the sides; otherwise the channels are the smaller of first and last.
    """

    def __init__(self, shape: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.shape = tuple(shape)
        first, middle, last = shape
        square = (first == middle) != (middle == last)
        self.channels_last = first == middle if square else last < first
        channels, *sides = (last, first, middle) if self.channels_last else shape
        layers: list[nn.Module] = []
        for width, kernel, stride, padding in COARSE if min(sides) >= LARGE else FINE:
            with torch.random.fork_rng(devices=[]):  # keeps the global generator unchanged
                convolution = nn.Conv2d(channels, width, kernel, stride, padding)
            uniform(convolution.weight, channels * kernel * kernel, generator)
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
            layers += [convolution, nn.ReLU()]
            sides = [(side + 2 * padding - kernel) // stride + 1 for side in sides]
            channels = width
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.last = Linear(channels * math.prod(sides), FEATURES, generator)

    def forward(self, obs: Tensor) -> Tensor:
        pixels = obs.reshape(-1, *self.shape)
        pixels = pixels.movedim(-1, 1) if self.channels_last else pixels
        features = functional.layer_norm(self.last(self.layers(pixels)), (FEATURES,))
        return torch.tanh(features).reshape(*obs.shape[:-1], FEATURES)


class ImageEncoders(nn.Module):
    """Observations (*, O) -> (*, `width`): each image in them by an encoder of its own.

    The other components stay, in their order; those after the O, a mask of actions, are not used.
    """

    def __init__(self, obs_dim: int, images: Images, generator: torch.Generator) -> None:
        super().__init__()
        self.inputs = obs_dim
        self.spans = [(start, start + math.prod(shape)) for start, shape in images]
        self.encoders = nn.ModuleList(Encoder(shape, generator) for _, shape in images)
        self.width = obs_dim - sum(stop - start - FEATURES for start, stop in self.spans)

    def forward(self, obs: Tensor) -> Tensor:
        parts, rest = [], 0
        for (start, stop), encoder in zip(self.spans, self.encoders, strict=True):
            parts += [obs[..., rest:start], encoder(obs[..., start:stop])]
            rest = stop
        return torch.cat([*parts, obs[..., rest : self.inputs]], dim=-1)
