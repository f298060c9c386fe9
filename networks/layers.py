"""Layers, whose initial weights are drawn from a given generator."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.traced import product


class Tanh(nn.Module):
    """tanh(x) = 2 sigmoid(2x) - 1, within 2e-7; MKL's tanh takes eight times as long on AMD."""

    def forward(self, inputs: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return inputs.tanh()
        share = torch.sigmoid(inputs + inputs)
        return share + (share - 1.0)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": Tanh,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}


def uniform(weight: Tensor, inputs: int, generator: torch.Generator) -> Tensor:
    """The weight, drawn uniformly in +-1/sqrt(inputs)."""
    bound = 1.0 / math.sqrt(inputs)
    return nn.init.uniform_(weight, -bound, bound, generator)


class Linear(nn.Linear):
    """(*, inputs) -> (*, outputs), with zero bias and its weight drawn as by `uniform`.

    With `gain` the weight is orthogonal, scaled by it (Andrychowicz et al. 2021, arXiv 2006.05990).
    """

    def __init__(
        self, inputs: int, outputs: int, generator: torch.Generator, gain: float | None = None
    ) -> None:
        super().__init__(inputs, outputs)
        if gain is None:
            uniform(self.weight, inputs, generator)
        else:
            nn.init.orthogonal_(self.weight, gain, generator)

    def reset_parameters(self) -> None:
        """Draws nothing, which keeps the global generator unchanged."""
        nn.init.zeros_(self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            # The compiler fuses this sum with the activation. A plain `+` it would turn into addmm,
            # which first copies the bias into the memory of the product.
            return product(inputs, self.weight.t()) - (-self.bias)
        return super().forward(inputs)


class EnsembleLinear(nn.Module):
    """One linear layer for each member, (E, B, inputs) -> (E, B, outputs), in one product."""

    def __init__(self, members: int, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        weight = uniform(torch.empty(members, inputs, outputs), inputs, generator)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # as in Linear
            return product(inputs, self.weight) + self.bias
        return torch.baddbmm(self.bias, inputs, self.weight)


class EnsembleNorm(nn.Module):
    """Layer normalisation of each member (Ba et al. 2016, arXiv 1607.06450), (E, B, width)."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, 1, width))
        self.bias = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.layer_norm(inputs, inputs.shape[-1:]) * self.weight + self.bias
