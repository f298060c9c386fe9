"""Observations -> parameters of policies, and values; torch only."""

from networks.actors import (
    CategoricalActor,
    FullGaussianActor,
    GaussianActor,
    MultiCategoricalActor,
)
from networks.critics import Critic, DiscreteCritic, Value
from networks.encoder import Encoder, torso
from networks.layers import EnsembleNorm
from networks.normalizer import Pixels, RunningNorm, SomePixels, inverse_deviation

__all__ = [
    "CategoricalActor",
    "Critic",
    "DiscreteCritic",
    "Encoder",
    "EnsembleNorm",
    "FullGaussianActor",
    "GaussianActor",
    "MultiCategoricalActor",
    "Pixels",
    "RunningNorm",
    "SomePixels",
    "Value",
    "inverse_deviation",
    "torso",
]
