"""One seed, many independent streams; nothing uses a global random state."""

import zlib

import numpy as np
import torch
from torch import Tensor


def derive(seed: int, *path: str | int) -> int:
    """A 63-bit seed for `path` below `seed`; different paths give independent streams."""
    keys = tuple(zlib.crc32(part.encode()) if isinstance(part, str) else part for part in path)
    words = np.random.SeedSequence(entropy=seed, spawn_key=keys).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def stream(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The torch generator of the stream `name`; first weights are drawn on the CPU, always."""
    device = "cpu" if name == "init" else device
    return torch.Generator(device).manual_seed(derive(seed, name))


def go_on(generator: torch.Generator, state: Tensor) -> None:
    """Sets the generator to a saved state, unless that is of another kind of device."""
    if state.numel() == generator.get_state().numel():
        generator.set_state(state.cpu())
