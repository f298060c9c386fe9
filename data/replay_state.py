"""The rows of a replay, copied piece by piece and restored: a run that goes on samples the same."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.seeding import go_on
from data.replay import Replay
from data.stacks import StackReplay


def first_row(replay: Replay) -> int:
    """The number of the oldest transition that a later batch may need."""
    return max(replay.lost, replay.added - replay.ring + replay.count)


def copy_rows(replay: Replay, start: int, stop: int) -> dict[str, Tensor]:
    """Copies of the rows of transitions number `start` to `stop`, for `restore`.

    With the successors stored meanwhile: each step stores those of the one before.
    """
    device, count = replay.generator.device, replay.count
    row = torch.arange(start, stop, device=device) % replay.ring
    before = np.arange(max(start - count, replay.added - replay.capacity), stop - count)
    behind = replay.behind[before % replay.ring]
    return {
        "numbers": torch.arange(start, stop),
        "obs": replay.obs.index_select(0, row),
        **{f"field{i}": field.index_select(0, row) for i, field in enumerate(replay.fields)},
        **({"older": replay.older.index_select(0, row)} if isinstance(replay, StackReplay) else {}),
        "ends": torch.from_numpy(before[behind > 0]),
        "ended": replay.obs.index_select(0, torch.from_numpy(behind[behind > 0]).to(device)),
    }


def restore(replay: Replay, state: dict[str, Any], pieces: Iterable[dict[str, Tensor]]) -> None:
    """Restores `Replay.state_dict` and the pieces of `copy_rows` that hold all since `first_row`.

    Where the first of them are missing, so are their transitions.
    """
    replay.added = state["added"]
    replay.sampled = state["sampled"]
    go_on(replay.generator, state["generator"])
    replay.count = replay.lost = 0
    for piece in pieces:
        obs, fields = piece["obs"], [piece[f"field{i}"] for i in range(4)]
        if not replay.count:
            replay.begin(obs[: state["count"]], fields)
            replay.lost = int(piece["numbers"][0])
        fresh = (piece["numbers"] >= first_row(replay)).nonzero().flatten()
        row = (piece["numbers"][fresh] % replay.ring).to(replay.obs.device)
        for stored, kept in zip((replay.obs, *replay.fields), (obs, *fields), strict=True):
            stored[row] = kept[fresh].to(stored.device)
        if isinstance(replay, StackReplay):
            replay.older[row] = piece["older"][fresh].to(row.device)
            replay.obs[-1] = state["padding"]
        for number, successor in zip(piece["ends"].tolist(), piece["ended"], strict=True):
            if number >= replay.added - replay.capacity:
                replay.store_successor(number, successor)
    if replay.lost > max(0, replay.added - replay.ring + replay.count):  # the first are missing
        replay.lost += replay.spare * replay.count
    if replay.count:
        after = replay.added % replay.ring
        replay.last_next_obs = state["following"].cpu()
        replay.obs[after : after + replay.count] = state["following"]
