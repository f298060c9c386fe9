"""Values of states and of state-action pairs."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from networks.encoder import ImageEncoders, Images
from networks.layers import ACTIVATIONS, EnsembleLinear, EnsembleNorm


class Ensemble(nn.Module):
    """Members that each have layers of their own, evaluated by one batched product per layer.

    Args:
        members: E.
        obs_dim: O.
        action_dim: numbers that each member reads beside the observation.
        normalise: whether the outputs of a hidden layer are normalised before its activation.
        images: in an observation; all members share their encoders.
        outputs: K, of each member.
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
    ) -> None:
        super().__init__()
        self.members = members
        encoder = ImageEncoders(obs_dim, images, generator)
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise([encoder.width + action_dim, *hidden]):
            layers.append(EnsembleLinear(members, width_in, width_out, generator))
            if normalise:
                layers.append(EnsembleNorm(members, width_out))
            layers.append(ACTIVATIONS[activation]())
        last = EnsembleLinear(members, hidden[-1], outputs, generator)
        self.layers = nn.Sequential(*layers, last)
        self.encoder = encoder  # behind the layers, as in the state of an optimiser

    def every(self, inputs: Tensor) -> Tensor:
        """inputs (*, width) -> outputs of every member, (E, *, K)."""
        rows = inputs.reshape(-1, inputs.shape[-1])  # (B, width)
        outputs: Tensor = self.layers(rows.expand(self.members, -1, -1))  # (E, B, K)
        return outputs.reshape(self.members, *inputs.shape[:-1], outputs.shape[-1])


class Critic(Ensemble):
    """obs (*, O), action (*, A) -> Q of every member (E, *); with K outputs, (E, *, K)."""

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        outputs = self.every(torch.cat([self.encoder(obs), action], dim=-1))
        return outputs.squeeze(-1) if outputs.shape[-1] == 1 else outputs


class Value(nn.Module):
    """obs (*, O) -> V(obs) (*,).

    Args:
        torso: its own, or the actor's.
        head: features -> (*, 1).
        bounded: ends in tanh, for tasks whose returns are scaled into [-1, 1].
    """

    def __init__(self, torso: nn.Module, head: nn.Linear, bounded: bool = False) -> None:
        super().__init__()
        self.torso, self.head, self.bounded = torso, head, bounded

    def forward(self, obs: Tensor) -> Tensor:
        return self.from_features(self.torso(obs))

    def from_features(self, features: Tensor) -> Tensor:
        value = self.head(features).squeeze(-1)
        return torch.tanh(value) if self.bounded else value
