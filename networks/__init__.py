"""Observations -> parameters of policies, and values; torch only."""

from networks.actors import (
    CategoricalActor,
    FullGaussianActor,
    GaussianActor,
    MultiCategoricalActor,
)
from networks.critics import Critic, DiscreteCritic, Value
from networks.encoder import Encoder
from networks.layers import (
    ACTIVATIONS,
    EnsembleLinear,
    EnsembleNorm,
    linear,
)
from networks.normalizer import Pixels, RunningNorm, SomePixels
from networks.torso import UnitNorm, torso

__all__ = [
    "ACTIVATIONS",
    "CategoricalActor",
    "Critic",
    "DiscreteCritic",
    "Encoder",
    "EnsembleLinear",
    "EnsembleNorm",
    "FullGaussianActor",
    "GaussianActor",
    "MultiCategoricalActor",
    "Pixels",
    "RunningNorm",
    "SomePixels",
    "UnitNorm",
    "Value",
    "linear",
    "torso",
]
