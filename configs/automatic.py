"""The values of `auto`: rules on the configuration, the cores and the compiler, never a timing.

A rule that measured would choose otherwise on another day, and a run could not be repeated.
"""

import dataclasses
import math
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from configs.agents import PPOConfig
from configs.schema import Acceleration, TrainConfig

NATIVE = ("CartPole-v1", "Pendulum-v1")  # ids whose copies as arrays are exact (envs/native.py)
TRACEABLE = (2, 13)  # the first torch that traces gradients as a part of the graph
WORTH_COMPILING = 20_000  # updates, for each graph compiled; docs/performance_once.md


RULES: dict[str, Callable[[Any], Any]] = {  # key -> value; a rule may read the keys above its own
    "env.num_envs": lambda run: 8 if run.agent.on_policy else 1,
    "env.vectorization": lambda run: (
        "native" if run.env.id in NATIVE and not (run.env.kwargs or run.env.wrappers) else "sync"
    ),
    "threads": lambda run: threads(run),
    "accelerate": lambda run: acceleration(run)[0],
    "log.every": lambda run: max(50, run.total_steps // 100),
    "eval.every": lambda run: max(1, run.total_steps // 10),
    "checkpoint.every": lambda run: max(1, run.total_steps // 10),
    "audit.every": lambda run: max(
        run.total_steps // 4, round(10_000 * cycle(run)[0] / cycle(run)[1])
    ),
}


def resolve(config: TrainConfig) -> TrainConfig:
    """Replaces every `auto` in RULES by its value; ConfigError if a value is not possible here."""
    for key, rule in RULES.items():
        if attrgetter(key)(config) == "auto":
            config = replaced(config, key, rule(config))
    mode = config.accelerate
    if mode != "none" and processes() > 1:
        why = f"{mode} makes one graph of an update, in which processes cannot average gradients"
        raise ConfigError(f"accelerate: {why}; use none")
    if mode == "compile" and compiler() is None:
        why = "compile needs a C++ compiler and Python's headers, which are not found"
        raise ConfigError(f"accelerate: {why}; install g++ and python3-dev, or use none")
    if mode == "cudagraph" and not config.device.startswith("cuda"):
        why = f"cudagraph needs device=cuda, got {config.device}"
        raise ConfigError(f"accelerate: {why}; use compile or none")
    require_minibatches(config)
    return config


def replaced(config: TrainConfig, key: str, value: Any) -> TrainConfig:
    """The configuration with another value of one key, in full."""
    group, _, name = key.rpartition(".")
    if group:
        name, value = group, dataclasses.replace(getattr(config, group), **{name: value})
    return dataclasses.replace(config, **{name: value})


def require_minibatches(config: TrainConfig) -> None:
    """Raises ConfigError where a rollout is not a whole number of minibatches, or one advantage."""
    agent: Any = config.agent
    copies, rollout = int(config.env.num_envs), cycle(config)[0]
    if isinstance(agent, PPOConfig) and rollout % agent.batch_size:
        whole = agent.batch_size // math.gcd(agent.batch_size, copies)
        longer = -(-agent.n_steps // whole) * whole
        raise ConfigError(
            f"agent.batch_size: {agent.batch_size} does not divide the rollout of "
            f"agent.n_steps={agent.n_steps} x env.num_envs={copies} = {rollout} steps; "
            f"use agent.n_steps={longer}"
        )
    if agent.on_policy and rollout * processes() == 1 and agent.normalise_advantage:
        why = "1 x env.num_envs=1 is a single advantage, and 0 when normalised"
        remedy = "raise it, or set agent.normalise_advantage=false"
        raise ConfigError(f"agent.n_steps: {why}; {remedy}")


def cycle(config: TrainConfig) -> tuple[int, float]:
    """Environment steps, and gradient steps, from one batch of experience to the next."""
    agent: Any = config.agent
    if not agent.on_policy:
        return 1, max(agent.updates_per_step, 1e-9)
    steps = agent.n_steps * int(config.env.num_envs)
    return steps, agent.epochs * steps / agent.batch_size if isinstance(agent, PPOConfig) else 1


def updates(config: TrainConfig) -> int:
    """Updates in the whole run, of which one of PPO has many gradient steps."""
    agent: Any = config.agent
    if agent.on_policy:
        return config.total_steps // cycle(config)[0]
    learning = config.total_steps - agent.learning_starts + 1
    return max(0, int(learning * agent.updates_per_step))  # as the replay counts them


def threads(config: TrainConfig) -> int:
    """1 for small networks, where a second thread saves a tenth of the time."""
    work = getattr(config.agent, "batch_size", 256) * max(config.agent.hidden) ** 2
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    own = (cores or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of torchrun's processes
    return 1 if work < 4_000_000 else max(1, min(4, own))


def processes() -> int:
    """How many torchrun has started for this run; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def acceleration(config: TrainConfig) -> tuple[Acceleration, str]:
    """How `accelerate=auto` runs updates, and why."""
    if processes() > 1:
        return "none", "several processes average between gradient and step"
    if config.device.startswith("cuda"):
        return "cudagraph", "a GPU is named"
    graphs = 1 if getattr(config.agent, "policy_delay", 1) == 1 else 2
    per_update = cycle(config)[1] if config.agent.on_policy else 1
    planned, least = int(updates(config) * per_update), WORTH_COMPILING * graphs
    why = f"{planned:,} update{'s' * (planned != 1)}, compiling pays from {least:,} on"
    if planned < least:
        return "none", why
    if not compiles():
        return "none", f"{planned:,} updates would pay, but it needs torch 2.13 and a C++ compiler"
    return "compile", why


def compiles() -> bool:
    """Whether updates can be compiled here."""
    return compiler() is not None and torch_version() >= TRACEABLE


def torch_version() -> tuple[int, int]:
    """Major and minor, without importing torch."""
    major, minor = version("torch").split(".")[:2]
    return int(major), int(minor)


def compiler() -> str | None:
    """The C++ compiler that torch would use; None without one, or without Python's headers."""
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return None
    usual = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    return shutil.which(os.environ.get("CXX", usual))
