"""Networks for the log-probabilities of discrete actions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.actor_critic import Head


def masked_log_softmax(logits: Tensor, forbidden: Tensor) -> Tensor:
    """log_softmax over the permitted actions; -inf, without a gradient, for the forbidden."""
    return functional.log_softmax(logits.masked_fill(forbidden, -torch.inf), dim=-1)


class CategoricalActor(nn.Module):
    """obs (*, O) -> (log_probs,), (*, K) or (*, D, K), normalised: logsumexp over K is 0.

    Args:
        choices: K; or the number of actions of each of D choices. K is then the largest of them,
            and the row of a choice with fewer actions ends in -inf.
        masked: whether observations end in a mask of actions, 1 permitted and 0 forbidden: those of
            the first choice, then those of the second, ...
    """

    absent: Tensor  # (K,) or (D, K) bool
    places: Tensor  # (K,) or (D, K), of each action in a mask

    def __init__(
        self, torso: nn.Module, head: Head, choices: int | Sequence[int], masked: bool = False
    ) -> None:
        super().__init__()
        sizes = torch.tensor(choices)
        absent = torch.arange(int(sizes.max())) >= sizes.unsqueeze(-1)
        places = (~absent).flatten().cumsum(0).unflatten(0, absent.shape) - 1
        self.torso, self.head = torso, head(absent.numel())
        self.total, self.masked, self.uneven = int(sizes.sum()), masked, bool(absent.any())
        self.register_buffer("absent", absent, persistent=False)
        self.register_buffer("places", places, persistent=False)

    def forward(self, obs: Tensor, features: Tensor | None = None) -> tuple[Tensor]:
        outputs = self.head(self.torso(obs) if features is None else features)
        logits, forbidden = outputs.unflatten(-1, self.absent.shape), self.absent
        if self.masked:
            forbidden = forbidden | (obs[..., -self.total :][..., self.places] == 0)
        if self.masked or self.uneven:
            return (masked_log_softmax(logits, forbidden),)
        return (functional.log_softmax(logits, dim=-1),)
