"""Independent random streams from one seed; no global random state is used."""

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
    """The torch generator of the stream `name`; that of initial weights is always on the CPU."""
    device = "cpu" if name == "init" else device
    return torch.Generator(device).manual_seed(derive(seed, name))


def restore_generator(generator: torch.Generator, state: Tensor) -> None:
    """Restores the state of a generator, unless it was saved on another kind of device."""
    if state.numel() == generator.get_state().numel():
        generator.set_state(state.cpu())
