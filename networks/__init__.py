"""Observations -> parameters of policies, and values; torch only."""

from networks.actors import (
    CategoricalActor,
    FullGaussianActor,
    GaussianActor,
    MultiCategoricalActor,
)
from networks.critics import Critic, DiscreteCritic, Value
from networks.layers import (
    ACTIVATIONS,
    EnsembleLinear,
    EnsembleNorm,
    UnitNorm,
    linear,
    torso,
)
from networks.normalizer import RunningNorm

__all__ = [
    "ACTIVATIONS",
    "CategoricalActor",
    "Critic",
    "DiscreteCritic",
    "EnsembleLinear",
    "EnsembleNorm",
    "FullGaussianActor",
    "GaussianActor",
    "MultiCategoricalActor",
    "RunningNorm",
    "UnitNorm",
    "Value",
    "linear",
    "torso",
]
