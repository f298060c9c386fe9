"""What the bits of a run depend on, beside its configuration: the same need the same of it."""

import hashlib
import os
import sys
from typing import TYPE_CHECKING, Any

import torch

from common.errors import ConfigError
from envs.backends import source
from storage import rundir

if TYPE_CHECKING:
    from configs.schema import TrainConfig

PHYSICS = {"mujoco": "mujoco", "Box2D": "box2d", "ale_py": "ale-py"}  # module -> package
RECORDED = ("revision",)  # for whoever reads it; the code itself is compared
VARIABLES = (  # by which libraries choose instructions, precision, or how many threads add up
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "OMP_NUM_THREADS", "OMP_DYNAMIC"),
    *("OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES"),
    *("NPY_ENABLE_CPU_FEATURES", "GLIBC_TUNABLES", "NVIDIA_TF32_OVERRIDE"),
    *("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG"),
)


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
        "variables": variables(),
    }


def variables() -> dict[str, str]:
    """Those of this process that change arithmetic, where they are set.

    ATEN_CPU_CAPABILITY is not among them: torch says what came of it, the instructions.
    """
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def require_same_run(recorded: dict[str, Any], config: "TrainConfig") -> None:
    """Raises ConfigError where the configuration is not that of a checkpoint, or asks for less.

    A schedule keeps its first horizon: steps after it are made at a learning rate of 0.
    """
    from configs.resume import differing

    for key, was, now in differing(recorded, config):
        raise edited(key, was, now)
    total, planned = config.total_steps, int(recorded["total_steps"])
    if total < planned:
        raise ConfigError(f"total_steps: {total} is less than the {planned} that the run was made "
                          "with; restore config.yaml")  # fmt: skip
    if config.agent.lr_schedule == "linear" and total > planned:
        print(f"warning: agent.lr_schedule=linear has fallen to 0 at step {planned:,}, after which "
              "nothing is learned; train longer from the start instead",
              file=sys.stderr)  # fmt: skip


def edited(key: str, was: object, now: object) -> ConfigError:
    return ConfigError(
        f"{key}: {now} is not what the run was made with, {was}; restore config.yaml"
    )


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not as it was, in words."""
    return [
        f"{name} was {before.get(name)}, is {value}"
        for name, value in now.items()
        if name not in (*RECORDED, "variables") and before.get(name) != value
    ] + changed_variables(before.get("variables"), now.get("variables", {}))


def changed_variables(before: dict[str, str] | None, now: dict[str, str]) -> list[str]:
    """The same of variables; those of a run that has recorded none are not known."""
    return [
        f"{name} was {before.get(name, 'not set')}, is {now.get(name, 'not set')}"
        for name in VARIABLES
        if before is not None and before.get(name) != now.get(name)
    ]
