"""What the bits of a run depend on, beside its configuration: the same need the same of it."""

import hashlib
from typing import TYPE_CHECKING, Any

import torch

from runtime import rundir
from runtime.backends import source

if TYPE_CHECKING:
    from configs.schema import TrainConfig

PHYSICS = {"mujoco": "mujoco", "Box2D": "box2d", "ale_py": "ale-py"}  # module -> package
RECORDED = ("revision",)  # for whoever reads it; the code itself is compared


def setting(config: "TrainConfig", device: torch.device) -> dict[str, Any]:
    """By name: threads, device, the instructions of the processor, versions, the code.

    The environment has been made, so that its module is loaded.
    """
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    own = source(config.env.id)
    physics = [package for name, package in PHYSICS.items() if name.encode() in own]
    return {
        "threads": int(config.threads),
        "accelerate": config.accelerate,
        "device": config.device,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "kind": kind,
        **rundir.versions(*physics),
        "revision": rundir.revision(),
        "code": hashlib.sha256(rundir.code()).hexdigest()[:12],
        "the environment's code": hashlib.sha256(own).hexdigest()[:12],
    }


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not as it was, in words."""
    return [
        f"{name} was {before.get(name)}, is {value}"
        for name, value in now.items()
        if name not in RECORDED and before.get(name) != value
    ]
