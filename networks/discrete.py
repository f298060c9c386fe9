"""Discrete actions: their log-probabilities, and a value of each."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.actor_critic import Ensemble, Head


class CategoricalActor(nn.Module):
    """obs (*, O) -> (log_probs (*, K),), normalised: logsumexp over K is 0.

    Args:
        masked: whether the last components of an observation permit actions (1) or forbid them (0).
    """

    def __init__(self, torso: nn.Module, head: Head, actions: int, masked: bool = False) -> None:
        super().__init__()
        self.torso, self.head = torso, head(actions)
        self.actions, self.masked = actions, masked

    def forward(self, obs: Tensor, features: Tensor | None = None) -> tuple[Tensor]:
        logits = self.head(self.torso(obs) if features is None else features)
        if self.masked:
            logits = logits.masked_fill(obs[..., -self.actions :] == 0, -torch.inf)
        return (functional.log_softmax(logits, dim=-1),)


class MultiCategoricalActor(CategoricalActor):
    """obs (*, O) -> (log_probs (*, D, K),), normalised; -inf where component d has fewer actions.

    Args:
        choices: number of actions of each component; K is the largest.
        masked: as above, for the actions of the first component, then those of the second, ...
    """

    absent: Tensor  # (D, K) bool
    places: Tensor  # (D, K) of each action in a mask

    def __init__(
        self, torso: nn.Module, head: Head, choices: Sequence[int], masked: bool = False
    ) -> None:
        super().__init__(torso, head, len(choices) * max(choices), masked)
        self.total = sum(choices)
        absent = torch.arange(max(choices)) >= torch.tensor(choices).unsqueeze(-1)
        places = (~absent).flatten().cumsum(0).unflatten(0, absent.shape) - 1
        self.register_buffer("absent", absent, persistent=False)
        self.register_buffer("places", places, persistent=False)

    def forward(self, obs: Tensor, features: Tensor | None = None) -> tuple[Tensor]:
        outputs = self.head(self.torso(obs) if features is None else features)
        forbidden = self.absent
        if self.masked:
            forbidden = forbidden | (obs[..., -self.total :][..., self.places] == 0)
        logits = outputs.unflatten(-1, forbidden.shape[-2:]).masked_fill(forbidden, -torch.inf)
        return (functional.log_softmax(logits, dim=-1),)


class DiscreteCritic(Ensemble):
    """obs (*, O) -> Q of every member and action (E, *, K); the last `mask` of O are left out."""

    def __init__(
        self, members: int, obs_dim: int, actions: int, *layers: Any, mask: int = 0, **options: Any
    ) -> None:
        self.inputs, options["outputs"] = obs_dim - mask, actions
        super().__init__(members, self.inputs, 0, *layers, **options)

    def forward(self, obs: Tensor) -> Tensor:
        return self.every(self.encoder(obs[..., : self.inputs]))
