"""Parameters -> actions and their exact densities."""

from importlib import import_module
from typing import TYPE_CHECKING

from policies.base import Policy, Reparameterised
from policies.categorical import Categorical
from policies.full_gaussian import FullGaussian
from policies.gaussian import Gaussian
from policies.multi_categorical import MultiCategorical
from policies.squashed import largest_entropy
from policies.tanh_full_gaussian import TanhFullGaussian
from policies.tanh_gaussian import TanhGaussian

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.deploy.trained import TrainedPolicy

__all__ = [
    "Categorical",
    "FullGaussian",
    "Gaussian",
    "MultiCategorical",
    "Policy",
    "Reparameterised",
    "TanhFullGaussian",
    "TanhGaussian",
    "largest_entropy",
    "load",
]


def load(
    run_dir: "str | Path", checkpoint: str = "latest", env_id: str | None = None
) -> "TrainedPolicy":
    """The policy of a run, for a notebook: `runtime.deploy.trained.load`, imported when called."""
    found = import_module("runtime.deploy.trained")  # above this floor, and only here
    return found.load(run_dir, checkpoint, env_id)
