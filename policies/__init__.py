"""Parameters -> actions and their exact densities."""

from policies.base import Policy, Reparameterised
from policies.categorical import Categorical
from policies.gaussian import Gaussian
from policies.load import load
from policies.tanh_gaussian import TanhGaussian

__all__ = ["Categorical", "Gaussian", "Policy", "Reparameterised", "TanhGaussian", "load"]
