"""Parameters -> actions and their exact densities."""

from policies.base import Policy, Reparameterised
from policies.categorical import Categorical
from policies.full_gaussian import FullGaussian
from policies.gaussian import Gaussian
from policies.multi_categorical import MultiCategorical
from policies.squashed import largest_entropy
from policies.tanh_full_gaussian import TanhFullGaussian
from policies.tanh_gaussian import TanhGaussian
from runtime.deploy.load import load

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
