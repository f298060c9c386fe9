"""What the bits of a run depend on, beside its configuration: the same need the same of it."""

import hashlib
from typing import Any

import torch

from runtime import rundir


def setting(threads: int, name: str, device: torch.device) -> dict[str, Any]:
    """By name: threads, device, the instructions of the processor, versions, the code."""
    patch = rundir.uncommitted(code_alone=True)
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "threads": threads,
        "device": name,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "kind": kind,
        **rundir.versions(),
        "revision": rundir.revision(),
        "code that is not committed": hashlib.sha256(patch).hexdigest()[:12] if patch else "none",
    }


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [f"{name} was {before.get(name)}, is {now[name]}" for name in now
            if before.get(name) != now[name]]  # fmt: skip
