"""On-policy storage: T steps of N environments, used once."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from data.transition import Spec, Transition

LARGE = 1 << 20  # bytes of observations (T, N, O), above which successors are not stored apart
NEXT_OBS = Transition._fields.index("next_obs")


class Rollout:
    """Collects `n_steps` transitions of (N, ·) and yields them as one Transition of (T, N, ·).

    Large observations are stored once: the successors of a step are the observations of the next
    one. Where an episode ended, these differ, and the successors are stored beside the arrays.
    A batch is valid until the next `add`. Added observations must not be changed in place.
    """

    warming_up = False

    def __init__(self, n_steps: int, device: torch.device | str = "cpu") -> None:
        self.n_steps = n_steps
        self.device = torch.device(device)
        self.filled = 0
        self.once = False  # whether observations are stored once
        self._fields: list[Tensor] = []  # as in Transition, without next_obs if `once`
        self._rows: list[list[Tensor]] = []  # views of them, one list for each step
        self._last_next_obs = torch.empty(0)  # next_obs (N, O) of the last step
        self._successors: dict[int, Tensor] = {}  # step -> next_obs that is not the next obs

    @staticmethod
    def bytes_for(n_steps: int, count: int, spec: Spec) -> int:
        """Largest memory for N = `count` environments: every step ends an episode."""
        fields = 2 * spec.action_bytes + 4 + 2  # and latent, reward, flags
        return n_steps * count * (2 * spec.obs_bytes + fields)

    def add(self, transition: Transition) -> None:
        """Stores one step of all environments, with all fields, `latent` too."""
        fields = [field for field in transition if field is not None]
        assert len(fields) == len(transition)
        obs, last = transition.obs, self._last_next_obs
        if not self._fields:
            self.once = self.n_steps * obs.nbytes > LARGE
        if self.once:
            if self.filled and obs is not last and not torch.equal(obs, last):
                self._successors[self.filled - 1] = last
            self._last_next_obs = fields.pop(NEXT_OBS)
        if not self._fields:
            self._fields = [
                torch.zeros((self.n_steps, *field.shape), dtype=field.dtype, device=self.device)
                for field in fields
            ]
            self._rows = [list(row) for row in zip(*self._fields, strict=True)]
        torch._foreach_copy_(self._rows[self.filled], fields)
        self.filled += 1

    def batches(self) -> Iterator[Transition]:
        """One Transition (T, N, ·) once `n_steps` are stored, otherwise nothing."""
        if self.filled == self.n_steps:
            fields = self._fields.copy()
            if self.once:
                next_obs = fields[0].roll(-1, 0)
                for step, successors in {**self._successors, -1: self._last_next_obs}.items():
                    next_obs[step] = successors
                fields.insert(NEXT_OBS, next_obs)
            self.filled, self._successors = 0, {}
            yield Transition(*fields)

    def state_dict(self) -> dict[str, Any]:
        if not self.filled:
            return {"fields": []}
        state: dict[str, Any] = {"fields": [field[: self.filled] for field in self._fields]}
        if self.once:
            ends, successors = list(self._successors), list(self._successors.values())
            state |= {"following": self._last_next_obs, "ends": ends, "successors": successors}
        return state

    def restore(self, state: dict[str, Any], pieces: Iterable[Any] = ()) -> None:
        """Restores a `state_dict`, also one with the successors of every step."""
        self.filled, self._fields, self._successors = 0, [], {}
        fields = [list(field.cpu()) for field in state["fields"]]  # rows of each
        if "following" in state:
            next_obs = [*fields[0][1:], state["following"].cpu()]
            for end, successors in zip(state["ends"], state["successors"], strict=True):
                next_obs[int(end)] = successors.cpu()
            fields.insert(NEXT_OBS, next_obs)
        for row in zip(*fields, strict=True):
            self.add(Transition(*row))
