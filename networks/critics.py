"""Values of states and of state-action pairs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from networks.layers import ACTIVATIONS, EnsembleLinear, linear


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
    ) -> None:
        super().__init__()
        self.members = members
        layers: list[nn.Module] = []
        for width_in, width_out in zip([obs_dim + action_dim, *hidden], hidden, strict=False):
            layers += [
                EnsembleLinear(members, width_in, width_out, generator),
                ACTIVATIONS[activation](),
            ]
        self.layers = nn.Sequential(*layers, EnsembleLinear(members, hidden[-1], 1, generator))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        inputs = torch.cat([obs, action], dim=-1)  # (*, O + A)
        rows = inputs.reshape(-1, inputs.shape[-1])  # (B, O + A)
        value = self.layers(rows.expand(self.members, -1, -1))  # (E, B, 1)
        return value.reshape(self.members, *inputs.shape[:-1])
