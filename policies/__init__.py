"""Policies: from parameters to actions and their exact densities."""

from importlib import import_module
from pathlib import Path
from typing import Any

from policies.base import Policy
from policies.categorical import Categorical, MultiCategorical
from policies.full_gaussian import FullGaussian, TanhFullGaussian
from policies.gaussian import Gaussian, TanhGaussian
from policies.information import kl_divergence, largest_entropy

# By the names of agent.policy; of those that fit an agent and an action space, the first is `auto`.
POLICIES: dict[str, type[Policy]] = {
    "categorical": Categorical,
    "multi_categorical": MultiCategorical,
    "gaussian": Gaussian,
    "tanh_gaussian": TanhGaussian,
    "full_gaussian": FullGaussian,
    "tanh_full_gaussian": TanhFullGaussian,
}

__all__ = [
    "POLICIES",
    "Categorical",
    "FullGaussian",
    "Gaussian",
    "MultiCategorical",
    "Policy",
    "TanhFullGaussian",
    "TanhGaussian",
    "kl_divergence",
    "largest_entropy",
    "load",
]


def load(run_dir: str | Path, checkpoint: str = "latest", env_id: str | None = None) -> Any:
    """The policy of a run, for a notebook: see `runtime.deploy.trained.load`."""
    found = import_module("runtime.deploy.trained")  # a higher floor, imported only here
    return found.load(run_dir, checkpoint, env_id)
