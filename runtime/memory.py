"""Whether a run will fit, asked before anything is allocated: memory is taken as it fills."""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from common.errors import ConfigError
from data import Replay, Rollout, Spec

if TYPE_CHECKING:
    from configs.schema import TrainConfig

USABLE = 0.9  # of what is free now
GIB, MIB = 1 << 30, 1 << 20
PLAIN, GRAPHS = 96 * MIB, 352 * MIB  # all else that a run loads, without and with acceleration
COPIES = 4  # of a rollout while it is saved: its own, and three by which safetensors writes it
SAVED = 128 * MIB  # of a replay, which is saved in pieces of 16 MiB, and successors of as many
PIECE = 32 * MIB  # of images that are evaluated at once, of rows that PPO puts in order
LARGE_IMAGE = 36  # pixels, from which on the encoder begins with strides
ENCODERS = 4  # that keep what the gradient needs: of the actor, of two critics, and their targets


def require_memory(
    config: "TrainConfig", spec: Spec, device: torch.device, processes: int = 1
) -> None:
    """Raises ConfigError where the buffer, an update and a checkpoint of it do not fit.

    The line names what they need, what the tightest limit leaves, and the largest that fits.

    Args:
        config: of the run.
        spec: of the environment.
        device: where the buffer is to lie.
        processes: how many are about to make one there.
    """
    settings: Any = config.agent
    name = "n_steps" if settings.on_policy else "buffer_size"
    size = int(getattr(settings, name))
    what, free = min(limits(device), key=lambda limit: limit[1], default=("", math.inf))

    def needed(size: int) -> int:
        return processes * bytes_for(config, spec, size)

    if needed(size) <= USABLE * free:
        return
    count = int(config.env.num_envs)
    unit, step = "transitions", 1
    if settings.on_policy:
        unit = f"steps of env.num_envs={count}"
        batch = int(getattr(settings, "batch_size", 1))
        step = batch // math.gcd(batch, count)  # of which it has to be a multiple
    fits = largest(needed, 0.95 * USABLE * free, size, step)  # a little less may be free then
    remedy = "free memory or raise that limit"
    if fits:
        also = [key for key in ("batch_size", "learning_starts")
                if not settings.on_policy and getattr(settings, key) > fits]  # fmt: skip
        values = " ".join(f"agent.{key}={fits}" for key in (name, *also))
        remedy = f"at most {values} would fit"
    raise ConfigError(
        f"agent.{name}: {size:,} {unit} need {needed(size) / GIB:.2f} GiB, with an update and a "
        f"checkpoint, and {what} leaves {free / GIB:.2f}; {remedy}"
    )


def bytes_for(config: "TrainConfig", spec: Spec, size: int) -> int:
    """What a run takes at most, with so many transitions or steps in its buffer."""
    settings, count = config.agent, int(config.env.num_envs)
    rest = PLAIN if config.accelerate == "none" else GRAPHS
    a_row = row_bytes(spec, settings.hidden)
    if not settings.on_policy:
        batch: int = settings.batch_size  # type: ignore[attr-defined]
        stored = Replay.bytes_for(size, count, spec)
        return rest + stored + max(batch * a_row, min(SAVED, COPIES * stored))
    rows, stored = size * count, Rollout.bytes_for(size, count, spec)
    update = rows * spec.obs_bytes  # next_obs, as it is handed out
    if hasattr(settings, "epochs"):
        evaluated = min(rows, PIECE // (4 * spec.obs_dim) + count) if spec.images else rows
        update += evaluated * row_bytes(spec, settings.hidden, 1 / 3)  # no layer is kept
        update += settings.batch_size * a_row  # type: ignore[attr-defined]
        update += min(PIECE, rows * spec.obs_bytes)
    else:
        update += rows * a_row
    if config.accelerate != "none":
        update += rows * 2 * spec.obs_bytes  # the example
    return rest + stored + max(update, COPIES * stored)


def row_bytes(spec: Spec, hidden: list[int], encoders: float = ENCODERS) -> int:
    """What an observation takes in an update: read and decoded, and in every layer, roughly."""
    inside = 24 * sum(hidden)
    for _, shape in spec.images:
        channels, *sides = sorted(shape)
        a_pixel = 48 if min(sides) >= LARGE_IMAGE else 768  # see networks/encoder.py
        inside += int(encoders * a_pixel * math.prod(shape) // channels)
    return 12 * spec.obs_dim + inside


def largest(needed: Callable[[int], int], budget: float, size: int, step: int) -> int:
    """The largest multiple of `step` below `size` that needs no more, of three digits; else 0."""
    low, high = 0, size // step
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(middle * step) <= budget else (low, middle - 1)
    fits = low * step
    coarse = 10 ** max(0, len(str(fits)) - 3)
    return fits // math.lcm(coarse, step) * math.lcm(coarse, step) or fits


def limits(device: torch.device) -> Iterator[tuple[str, int]]:
    """(what sets it, bytes that it leaves) of every limit that is known here."""
    if device.type == "cuda":
        yield "the GPU", torch.cuda.mem_get_info(device)[0]
        return
    fields = numbers(Path("/proc/meminfo"))
    if "MemAvailable" in fields:
        yield "this machine", fields["MemAvailable"] * 1024
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):  # macOS tells only what it has
        yield "this machine", os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield from control_group()
    yield from process_limits()


def control_group() -> Iterator[tuple[str, int]]:
    """The limit of each control group that this process is in, version 1 or 2."""
    for line in read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            version2 = controllers == ""
            root = Path("/sys/fs/cgroup") if version2 else Path("/sys/fs/cgroup/memory")
            names = ("memory.max", "memory.current", "inactive_file")
            if not version2:
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            here = root / path.lstrip("/")
            for folder in [here, *here.parents]:
                limit, used = read(folder / names[0]).strip(), read(folder / names[1]).strip()
                if limit.isdigit() and used.isdigit():
                    reclaimable = numbers(folder / "memory.stat").get(names[2], 0)
                    yield "the control group", max(0, int(limit) - int(used) + reclaimable)
                if folder == root:
                    break


def process_limits() -> Iterator[tuple[str, int]]:
    """RLIMIT_AS and RLIMIT_DATA, less what this process has."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has none
        return
    page = resource.getpagesize()
    pages = [int(word) for word in read(Path("/proc/self/statm")).split()] or [0] * 7
    for name, used in (("RLIMIT_AS", pages[0]), ("RLIMIT_DATA", pages[5])):
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            yield name, max(0, limit - used * page)


def numbers(path: Path) -> dict[str, int]:
    """`name value` or `name: value kB` lines of a file of the system."""
    words = (line.replace(":", " ").split() for line in read(path).splitlines())
    return {row[0]: int(row[1]) for row in words if len(row) > 1 and row[1].isdigit()}


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
