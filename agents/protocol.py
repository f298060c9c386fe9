"""What the loop knows of an agent."""

from typing import Any, Protocol

import torch
from torch import Tensor

from data import Transition


class Acting(Protocol):
    """obs -> action: what it takes to be evaluated."""

    def act(
        self, obs: Tensor, deterministic: bool = False, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """(action, latent) for obs (N, O), drawn from the agent's generator unless given one.

        A deterministic action was not drawn: it stands in both places.
        """

    @property
    def device(self) -> torch.device:
        """Where the weights are."""


class Agent(Acting, Protocol):
    """obs -> action, batch -> new weights. Knows no configuration tree, logger or step count."""

    def explore(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """(action, latent) uniform over the action space, while a replay buffer warms up.

        The same for as many steps as the agent holds one.
        """

    def parameters(self, obs: Tensor) -> tuple[Tensor, ...]:
        """The arguments of its policy's class at obs (N, O), without gradients."""

    def observe(self, transition: Transition) -> None:
        """Shows each fresh transition once to the running statistics."""

    def update(self, batch: Any) -> dict[str, Tensor]:
        """One update, on what the buffer of its kind hands out; returns detached metrics.

        0-d are averaged over the log interval (names ending in _min, _max by that); of the last
        update in it, 1-d are shown as histograms, 2-d (*, A) as the mean of each of the first
        columns.
        """

    @property
    def diverged(self) -> Tensor:
        """0-d bool: a loss or gradient was not finite; nothing has been committed since."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on: weights, optimiser, counters, generators."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
