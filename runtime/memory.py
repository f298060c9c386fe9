"""Checks before a run whether it fits into memory, which a buffer uses as it fills."""

import math
from bisect import bisect_right
from typing import Any

import torch

from common.errors import ConfigError
from common.limits import limits
from configs.schema import TrainConfig
from data import Replay, Rollout, Spec

USABLE = 0.9  # of what is free now
GIB, MIB = 1 << 30, 1 << 20
PLAIN, GRAPHS = 96 * MIB, 352 * MIB  # all else that a run loads, without and with acceleration
COPIES = 4  # of a rollout while it is saved: its own, and three by which safetensors writes it
SAVED = 128 * MIB  # of a replay, which is saved in pieces of 16 MiB, and successors of as many
PIECE = 32 * MIB  # of images that are evaluated at once, of rows that PPO puts in order
LARGE_IMAGE = 36  # pixels, from which on the encoder begins with strides
ENCODERS = 4  # that keep what the gradient needs: of the actor, of two critics, and their targets


def require_memory(
    config: TrainConfig, spec: Spec, device: torch.device, processes: int = 1
) -> None:
    """Raises ConfigError where the buffer, an update and a checkpoint of it do not fit.

    Of as many processes as are about to make one; the line names the largest buffer that fits.
    """
    settings: Any = config.agent
    count = int(config.env.num_envs)
    name, unit, step = "buffer_size", "transitions", 1
    if settings.on_policy:
        name, unit = "n_steps", f"steps of env.num_envs={count}"
        batch = getattr(settings, "batch_size", 1)
        step = batch // math.gcd(batch, count)  # of which it has to be a multiple
    size = getattr(settings, name)
    what, free = min(limits(device), key=lambda limit: limit[1], default=("", math.inf))

    def needed(size: int) -> int:
        return processes * bytes_for(config, spec, size)

    if needed(size) <= USABLE * free:
        return
    budget = 0.95 * USABLE * free  # a little less may be free then
    multiples = range(0, size + 1, step)
    fits = multiples[max(1, bisect_right(multiples, budget, key=needed)) - 1]
    remedy = "free memory or raise that limit"
    if fits:
        others = () if settings.on_policy else ("batch_size", "learning_starts")
        keys = [name, *(key for key in others if getattr(settings, key) > fits)]
        values = " ".join(f"agent.{key}={fits}" for key in keys)
        remedy = f"at most {values} would fit"
    raise ConfigError(
        f"agent.{name}: {size:,} {unit} need {needed(size) / GIB:.2f} GiB, with an update and a "
        f"checkpoint, and {what} leaves {free / GIB:.2f}; {remedy}"
    )


def bytes_for(config: TrainConfig, spec: Spec, size: int) -> int:
    """Largest memory of a run with so many transitions or steps in its buffer."""
    settings: Any = config.agent
    count = int(config.env.num_envs)
    rest = PLAIN if config.accelerate == "none" else GRAPHS
    a_row = row_bytes(spec, settings.hidden)
    if not settings.on_policy:
        stored = Replay.bytes_for(size, count, spec)
        return rest + stored + max(settings.batch_size * a_row, min(SAVED, COPIES * stored))
    rows, stored = size * count, Rollout.bytes_for(size, count, spec)
    update = rows * spec.obs_bytes  # next_obs, as it is handed out
    if hasattr(settings, "epochs"):
        evaluated = min(rows, PIECE // (4 * spec.obs_dim) + count) if spec.images else rows
        update += evaluated * row_bytes(spec, settings.hidden, 1 / 3)  # no layer is kept
        update += settings.batch_size * a_row
        update += min(PIECE, rows * spec.obs_bytes)
    else:
        update += rows * a_row
    if config.accelerate != "none":
        update += rows * 2 * spec.obs_bytes  # the example
    return rest + stored + max(update, COPIES * stored)


def row_bytes(spec: Spec, hidden: list[int], encoders: float = ENCODERS) -> int:
    """Approximate memory of an observation in an update: read, decoded, and in every layer."""
    inside = 24 * sum(hidden)
    for _, shape in spec.images:
        channels, *sides = sorted(shape)
        a_pixel = 48 if min(sides) >= LARGE_IMAGE else 768  # see networks/encoder.py
        inside += int(encoders * a_pixel * math.prod(shape) // channels)
    return 12 * spec.obs_dim + inside
