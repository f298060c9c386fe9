"""Values of states and of state-action pairs."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from networks.encoder import Images, eyes
from networks.layers import ACTIVATIONS, EnsembleLinear, EnsembleNorm, linear


class Value(nn.Module):
    """obs (*, O) -> V(obs) (*,).

    Args:
        torso: its own, or the actor's.
        bounded: ends in tanh, for tasks whose returns are scaled into [-1, 1].
    """

    def __init__(
        self,
        torso: nn.Module,
        features: int,
        generator: torch.Generator,
        orthogonal: bool = False,
        bounded: bool = False,
    ) -> None:
        super().__init__()
        self.torso = torso
        self.head = linear(features, 1, generator, 1.0 if orthogonal else None)
        self.bounded = bounded

    def forward(self, obs: Tensor) -> Tensor:
        return self.from_features(self.torso(obs))

    def from_features(self, features: Tensor) -> Tensor:
        value = self.head(features).squeeze(-1)
        return torch.tanh(value) if self.bounded else value


class Ensemble(nn.Module):
    """inputs (*, widths[0]) -> what every member makes of them, (E, *, widths[-1]).

    One batched product per layer.

    Args:
        members: E.
        widths: of all layers, from the inputs to the outputs.
        normalise: what each hidden layer gives to its activation is normalised.
    """

    def __init__(
        self,
        members: int,
        widths: Sequence[int],
        activation: str,
        generator: torch.Generator,
        normalise: bool,
    ) -> None:
        super().__init__()
        self.members = members
        layers: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise(widths[:-1]):
            layers.append(EnsembleLinear(members, width_in, width_out, generator))
            if normalise:
                layers.append(EnsembleNorm(members, width_out))
            layers.append(ACTIVATIONS[activation]())
        last = EnsembleLinear(members, widths[-2], widths[-1], generator)
        self.layers = nn.Sequential(*layers, last)

    def every(self, inputs: Tensor) -> Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1])  # (B, inputs)
        made: Tensor = self.layers(rows.expand(self.members, -1, -1))  # (E, B, outputs)
        return made.reshape(self.members, *inputs.shape[:-1], made.shape[-1])


class Critic(Ensemble):
    """obs (*, O), action (*, A) -> Q of every member (E, *); with K outputs, (E, *, K)."""

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
    ) -> None:
        encoder, width = eyes(obs_dim, images, generator)
        widths = [width + action_dim, *hidden, outputs]
        super().__init__(members, widths, activation, generator, normalise)
        self.encoder = encoder  # of all members

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        made = self.every(torch.cat([self.encoder(obs), action], dim=-1))
        return made.squeeze(-1) if made.shape[-1] == 1 else made


class DiscreteCritic(Ensemble):
    """obs (*, O) -> Q of every member and action (E, *, K)."""

    def __init__(
        self,
        members: int,
        obs_dim: int,
        actions: int,
        hidden: Sequence[int],
        activation: str,
        generator: torch.Generator,
        normalise: bool = False,
        images: Images = (),
    ) -> None:
        encoder, width = eyes(obs_dim, images, generator)
        super().__init__(members, [width, *hidden, actions], activation, generator, normalise)
        self.encoder = encoder

    def forward(self, obs: Tensor) -> Tensor:
        return self.every(self.encoder(obs))
