"""The grids, p-values and rows that the gallery is made of."""

import json

import numpy as np
import pytest
import torch

from audit.chance import bartlett
from policies import FullGaussian, TanhFullGaussian, TanhGaussian
from tools.gallery import report
from tools.gallery.densities import case
from tools.gallery.sections import joint


@pytest.mark.parametrize("std", [0.001, 0.2, 3.0])
@pytest.mark.parametrize("mean", [0.0, -5.0, 20.0])
def test_the_grid_integrates_any_squashed_density(mean, std):
    grid = case(TanhGaussian, [mean], [std]).grid
    assert grid.integral == pytest.approx(1, abs=1e-7)
    latent = torch.tensor([[mean - std], [mean], [mean + 2 * std]], dtype=torch.float64)
    expected = torch.special.ndtr(torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64))
    assert (grid.pit(latent) - expected).abs().max() < 2e-5


def test_the_grid_follows_correlation():
    grid = case(TanhFullGaussian, [1.0, 8.0], [[0.5, 0.0], [-0.9, 0.2]]).grid
    assert grid.integral == pytest.approx(1, abs=1e-7)


def test_the_p_value_of_the_covariance_is_uniform_and_sees_a_correlation():
    right = case(FullGaussian, [1.0, 3.0], [[0.15, 0.0], [0.044, 0.033]])
    found = []
    for seed in range(200):
        noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((100, 2)))
        found.append(bartlett(right.whitened(right.mean + noise @ right.tril.T)))
    assert min(found) > 1e-4
    assert np.mean(np.array(found) < 0.1) < 0.2
    independent = case(FullGaussian, [1.0, 3.0], [[0.15, 0.0], [0.0, 0.055]])
    assert bartlett(independent.whitened(right.mean + noise @ right.tril.T)) < 1e-6


def test_a_log_prob_with_a_dimension_too_many_is_averaged_over_it():
    assert joint(torch.tensor([[1.0, 3.0]]), torch.Size([1])).tolist() == [2.0]
    assert joint(torch.tensor([1.0, 3.0]), torch.Size([2])).tolist() == [1.0, 3.0]


def test_no_number_never_passes():
    for relation in ("<=", ">="):
        assert not report.Check("", "", float("nan"), 1.0, relation).passed


def test_a_row_without_numbers_is_still_json():
    row = report.as_json(report.Check("section", "name", float("nan"), float("inf")))
    assert json.dumps(row, allow_nan=False)
    assert (row["figure"], row["bound"], row["passed"]) == ("nan", "inf", False)
