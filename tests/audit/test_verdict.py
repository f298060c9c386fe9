"""Anyone's density: right ones pass whatever they are handed in as, wrong ones are named."""

import math

import pytest
import torch
from torch import distributions as dist
from torch.distributions.transforms import AffineTransform, TanhTransform

import audit

MEAN, STD = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.3, 1.0, 0.1])
TRIL = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.2, 0.0], [-0.5, 0.1, 0.05]])
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def squashed(base, *maps):
    return dist.TransformedDistribution(base, [TanhTransform(), *maps])


def diagonal(mean=MEAN, std=STD):
    return dist.Independent(dist.Normal(mean, std), 1)


def gaussian(x, mean=1.0, std=2.0):
    """By hand, for numpy and torch."""
    return -0.5 * ((x - mean) / std) ** 2 - math.log(std) - HALF_LOG_2PI


RIGHT = {
    "normal": dist.Normal(4.0, 0.8),
    "beta": dist.Beta(0.5, 2.0),
    "gamma": dist.Gamma(2.0, 3.0),
    "laplace": dist.Laplace(0.0, 1.0),
    "cauchy": dist.Cauchy(0.0, 1.0),
    "mixture": dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.3, 0.7])),
        dist.Normal(torch.tensor([-3.0, 2.0]), torch.tensor([0.1, 1.0])),
    ),
    "tanh": squashed(dist.Normal(torch.tensor(0.5), torch.tensor(0.6))),
    "saturated": squashed(dist.Normal(torch.tensor(5.0), torch.tensor(0.2))),
    "box": squashed(dist.Normal(torch.tensor(0.5), torch.tensor(0.6)), AffineTransform(0.0, 2.0)),
    "several": diagonal(),
    "correlated": squashed(dist.MultivariateNormal(MEAN, scale_tril=TRIL)),
    "boxes": squashed(diagonal(), AffineTransform(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]))),
    "no gaussian": dist.Independent(dist.Laplace(MEAN, STD), 1),
    "a batch of one": dist.Independent(dist.Normal(MEAN[None], STD[None]), 1),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_distribution_of_torch_passes(name):
    report = audit.check(RIGHT[name])
    assert report.passed, str(report)
    assert report.verdict.startswith("right: 20,000 draws")
    assert report.form is None
