"""The processes that torchrun has started."""

import os

import torch
from torch import distributed as dist

from common.errors import ConfigError
from runtime.launch.ranks import Ranks


def meet(device: str) -> Ranks:
    """All of them, met; one where torchrun has started none.

    Raises:
        ConfigError: they cannot have a GPU each.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return Ranks()
    local, neighbours = (
        int(os.environ.get(name, default))
        for name, default in (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", str(size)))
    )
    require_devices(device, neighbours)
    ranks = Ranks(int(os.environ["RANK"]), size, local, neighbours)
    ranks.join(device)
    return ranks


def require_devices(device: str, neighbours: int) -> None:
    """Raises ConfigError where the processes of this machine cannot have a GPU each."""
    if not device.startswith("cuda"):
        return
    if not dist.is_nccl_available():
        raise ConfigError("device: several processes need NCCL to use GPUs, which this torch does "
                          "not have; use device=cpu")  # fmt: skip
    if device != "cuda" and neighbours > 1:
        raise ConfigError(f"device: {device} cannot be that of {neighbours} processes; use "
                          "device=cuda, which gives each its own")  # fmt: skip
    if torch.cuda.device_count() < neighbours:
        raise ConfigError(f"device: {neighbours} processes need a GPU each, and this machine has "
                          f"{torch.cuda.device_count()}; start as many, or use "
                          "device=cpu")  # fmt: skip
