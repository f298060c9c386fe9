"""Discrete actions: their log-probabilities, and a value of each."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.actor_critic import Ensemble, Head


class CategoricalActor(nn.Module):
    """obs (*, O) -> log_probs (*, K), normalised: logsumexp over K is 0."""

    def __init__(self, torso: nn.Module, head: Head, actions: int) -> None:
        super().__init__()
        self.torso, self.head = torso, head(actions)

    def forward(self, obs: Tensor) -> Tensor:
        return self.from_features(self.torso(obs))

    def from_features(self, features: Tensor) -> Tensor:
        return functional.log_softmax(self.head(features), dim=-1)


class MultiCategoricalActor(CategoricalActor):
    """obs (*, O) -> log_probs (*, D, K), normalised; -inf where component d has fewer actions.

    Args:
        choices: number of actions of each component; K is the largest.
    """

    absent: Tensor  # (D, K) bool

    def __init__(self, torso: nn.Module, head: Head, choices: Sequence[int]) -> None:
        super().__init__(torso, head, len(choices) * max(choices))
        absent = torch.arange(max(choices)) >= torch.tensor(choices).unsqueeze(-1)
        self.register_buffer("absent", absent, persistent=False)

    def from_features(self, features: Tensor) -> Tensor:
        logits = self.head(features).unflatten(-1, self.absent.shape)
        return functional.log_softmax(logits.masked_fill(self.absent, -torch.inf), dim=-1)


class DiscreteCritic(Ensemble):
    """obs (*, O) -> Q of every member and action (E, *, K)."""

    def __init__(
        self, members: int, obs_dim: int, actions: int, *layers: Any, **options: Any
    ) -> None:
        options["outputs"] = actions
        super().__init__(members, obs_dim, 0, *layers, **options)

    def forward(self, obs: Tensor) -> Tensor:
        return self.every(self.encoder(obs))
