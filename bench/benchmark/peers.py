"""Stable-Baselines3 and SBX as contestants, and what of them is installed."""

import importlib.util
import os
from pathlib import Path
from typing import Any

from bench.benchmark.contestants import Spec
from common.errors import ConfigError

MODULES = {"SB3": "stable_baselines3", "SBX": "sbx"}
INSTALL = 'pip install -c constraints.txt ".[bench]"'
ONE_XLA_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def require(*modules: str) -> None:
    """Raises ConfigError unless all modules are installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ConfigError(f"bench: {module} is not installed; {INSTALL}")


def make_model(spec: Spec, seed: int = 0) -> Any:
    """The peer's algorithm on its environments, on the device and with the threads it is given."""
    if spec["library"] == "SBX":  # read when JAX is imported
        os.environ["JAX_PLATFORMS"] = spec["device"]
        if spec["threads"] == 1:
            os.environ["XLA_FLAGS"] = ONE_XLA_THREAD
    import torch

    torch.set_num_threads(spec["threads"])
    library = importlib.import_module(MODULES[spec["library"]])
    from stable_baselines3.common.env_util import make_vec_env

    settings = {name: schedule(value) for name, value in spec["settings"].items()}
    algorithm = getattr(library, spec["algorithm"])
    envs = make_vec_env(spec["env"], spec["num_envs"], seed=seed)
    return algorithm("MlpPolicy", envs, device=spec["device"], verbose=0, seed=seed, **settings)


def schedule(value: Any) -> Any:
    """`lin_X`, as RL Zoo writes it: X times the share of the run that remains."""
    if not isinstance(value, str) or not value.startswith("lin_"):
        return value
    first = float(value.removeprefix("lin_"))
    return lambda remaining: max(remaining, 0.0) * first  # the last rollout may pass the end


class Peer:
    """A peer that trains as many steps as asked for.

    Args:
        spec: what `contestants.peer` gives.
        folder: not needed; a peer writes nothing.
    """

    def __init__(self, spec: Spec, folder: Path) -> None:
        self.model = make_model(spec)
        self.about = {"threads": spec["threads"]}
        # Collecting the metrics: every fourth episode (SAC), every hundredth rollout (A2C, whose
        # own `learn` says so).
        self.interval = 4 if spec["algorithm"] == "SAC" else 100

    def run(self, steps: int) -> dict[str, Any]:
        model = self.model
        first, updates = model.num_timesteps, model._n_updates
        model.learn(steps, log_interval=self.interval, reset_num_timesteps=False)
        return {"steps": model.num_timesteps - first, "updates": model._n_updates - updates}

    def close(self) -> None:
        self.model.env.close()
