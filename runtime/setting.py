"""What the bits of a run depend on, beside its configuration: the same need the same of it."""

import dataclasses
import hashlib
import json
import sys
from typing import TYPE_CHECKING, Any

import torch

from runtime import rundir
from runtime.backends import source
from runtime.errors import ConfigError

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


def require_same_run(recorded: dict[str, Any], config: "TrainConfig") -> None:
    """Raises ConfigError where the configuration is not that of a checkpoint, or asks for less.

    A schedule keeps its first horizon: steps after it are made at a learning rate of 0.
    """
    from configs.resume import differences
    from configs.schema import TrainConfig
    from configs.validate import build

    recorded = dataclasses.asdict(build(TrainConfig, recorded, recorded=True))
    present = json.loads(json.dumps(dataclasses.asdict(config)))  # as a checkpoint has it
    for key, was, now in differences(recorded, present):
        raise ConfigError(
            f"{key}: {now} is not what the run was made with, {was}; restore config.yaml"
        )
    total, planned = config.total_steps, int(recorded["total_steps"])
    if total < planned:
        raise ConfigError(f"total_steps: {total} is less than the {planned} that the run was made "
                          "with; restore config.yaml")  # fmt: skip
    if config.agent.lr_schedule == "linear" and total > planned:
        print(f"warning: agent.lr_schedule=linear has fallen to 0 at step {planned:,}, after which "
              "nothing is learned; train longer from the start instead",
              file=sys.stderr)  # fmt: skip


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not as it was, in words."""
    return [
        f"{name} was {before.get(name)}, is {value}"
        for name, value in now.items()
        if name not in RECORDED and before.get(name) != value
    ]
