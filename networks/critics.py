"""Values of states and of state-action pairs."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

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


class Critic(nn.Module):
    """obs (*, O), action (*, A) -> Q of every member (E, *), one batched product per layer."""

    def __init__(
        self,
        members: int,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        activation: str,
        generator: torch.Generator,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.members = members
        widths = [obs_dim + action_dim, *hidden, 1]
        self.layers = ensemble(members, widths, activation, generator, normalise)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return every(self.layers, self.members, torch.cat([obs, action], dim=-1)).squeeze(-1)


class DiscreteCritic(nn.Module):
    """obs (*, O) -> Q of every member and action (E, *, K), one batched product per layer."""

    def __init__(
        self,
        members: int,
        obs_dim: int,
        actions: int,
        hidden: Sequence[int],
        activation: str,
        generator: torch.Generator,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.members = members
        widths = [obs_dim, *hidden, actions]
        self.layers = ensemble(members, widths, activation, generator, normalise)

    def forward(self, obs: Tensor) -> Tensor:
        return every(self.layers, self.members, obs)


def ensemble(
    members: int,
    widths: Sequence[int],
    activation: str,
    generator: torch.Generator,
    normalise: bool,
) -> nn.Sequential:
    """Layers of these widths, from the inputs to the outputs, for each member.

    Args:
        normalise: what each hidden layer gives to its activation is normalised.
    """
    layers: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(widths[:-1]):
        layers.append(EnsembleLinear(members, width_in, width_out, generator))
        if normalise:
            layers.append(EnsembleNorm(members, width_out))
        layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers, EnsembleLinear(members, widths[-2], widths[-1], generator))


def every(layers: nn.Module, members: int, inputs: Tensor) -> Tensor:
    """(*, inputs) -> what each member makes of it, (E, *, outputs)."""
    rows = inputs.reshape(-1, inputs.shape[-1])  # (B, inputs)
    made: Tensor = layers(rows.expand(members, -1, -1))  # (E, B, outputs)
    return made.reshape(members, *inputs.shape[:-1], made.shape[-1])
