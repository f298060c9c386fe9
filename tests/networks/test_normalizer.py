"""Running statistics equal those of the whole stream, whatever the batches."""

import numpy as np
import pytest
import torch

from networks.normalizer import RunningNorm


def stream():
    generator = np.random.default_rng(0)
    return generator.normal([1e3, -2.0, 0.0], [5.0, 0.1, 0.02], size=(999, 3)).astype(np.float32)


def test_statistics_equal_numpy_over_the_whole_stream_whatever_the_batches():
    obs = stream()
    norm = RunningNorm(3)
    for part in np.split(obs, [1, 7, 300, 301, 900]):
        norm.update(torch.from_numpy(part))
    expected = (obs - obs.mean(0, dtype=np.float64)) / obs.std(0, dtype=np.float64)
    assert np.allclose(norm(torch.from_numpy(obs)).numpy(), expected.clip(-10, 10), atol=0.01)
    assert np.allclose(norm.seen_mean.numpy(), obs.mean(0, dtype=np.float64), rtol=1e-12)
    assert np.allclose(norm.seen_square.numpy() / 999, obs.var(0, dtype=np.float64), rtol=1e-9)


def test_a_single_observation_changes_nothing():
    single = RunningNorm(3)
    single.update(torch.from_numpy(stream()[:1]))
    assert torch.equal(single(torch.ones(3)), torch.ones(3))


def test_two_observations_lie_a_deviation_from_their_mean():
    """That of the population, not of a sample."""
    norm = RunningNorm(1)
    norm.update(torch.tensor([[3.0], [7.0]]))
    assert norm(torch.tensor([3.0, 5.0, 7.0, 9.0])).tolist() == [-1.0, 0.0, 1.0, 2.0]


def test_constant_and_far_observations_stay_finite():
    norm = RunningNorm(1)
    norm.update(torch.full((10, 1), 5.0))
    assert norm(torch.tensor([5.0, 6.0, 99.0])).tolist() == [0.0, 1.0, 10.0]


def test_bytes_among_other_numbers_are_divided_by_255_alone():
    normaliser = RunningNorm(5, [(1, 3)])
    plain = RunningNorm(3)
    obs = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    obs[:, 1:3] = torch.randint(256, (50, 2), generator=torch.Generator().manual_seed(0)).float()
    torch.testing.assert_close(normaliser(obs)[:, 1:3], obs[:, 1:3] / 255.0)
    for rows in obs.split(10):
        normaliser.update(rows)
        plain.update(rows[:, [0, 3, 4]])
    torch.testing.assert_close(normaliser(obs)[:, 1:3], obs[:, 1:3] / 255.0)
    torch.testing.assert_close(normaliser(obs)[:, [0, 3, 4]], plain(obs[:, [0, 3, 4]]))


def normalised(obs, ranges=()):
    """Observations (B, O) under statistics of themselves, taken in parts."""
    norm = RunningNorm(obs.shape[-1], ranges)
    for part in obs.split(100):
        norm.update(part)
    return norm(obs)


def draws(size=3):
    return torch.randn(999, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("unit", [2.0**-20, 2.0**-60, 2.0**40])
@pytest.mark.parametrize("ranges", [(), [(1, 2)]])
def test_the_unit_of_an_observation_does_not_matter(unit, ranges):
    """To the last bit where it is a power of two, also beside bytes."""
    obs = draws()
    obs[:, 1] = torch.arange(999) % 256
    scaled = obs * torch.tensor([unit, 1.0 if ranges else unit, unit])
    assert torch.equal(normalised(scaled, ranges), normalised(obs, ranges))
    assert normalised(1e-6 * obs, ranges)[:, 0].std().item() == pytest.approx(1.0, abs=2e-3)


def test_an_offset_does_not_matter_but_for_the_resolution_of_float32():
    obs = draws()
    resolution = 1000 * torch.finfo(torch.float32).eps
    assert torch.allclose(normalised(obs + 1000), normalised(obs), atol=resolution)
    small = normalised(1e-6 * obs + 1e-3)
    assert torch.allclose(small, normalised(obs), atol=resolution)


@pytest.mark.parametrize("value", [0.1, 1000.3, -7e6, 1e-30, 0.0])
def test_a_component_that_changes_by_no_more_than_its_rounding_is_not_scaled(value):
    neighbour = torch.nextafter(torch.tensor(value), torch.tensor(torch.inf))
    for other in (torch.tensor(value), neighbour):
        obs = torch.stack([torch.tensor(value)] * 500 + [other] * 500).unsqueeze(-1)
        seen = normalised(obs)
        assert torch.allclose(seen, obs - obs.mean(dtype=torch.float64).float())
        assert seen.isfinite().all()


def test_a_change_of_few_roundings_is_scaled():
    obs = 1000 + 1e-3 * draws(1)
    assert normalised(obs).std().item() == pytest.approx(1.0, abs=0.05)
