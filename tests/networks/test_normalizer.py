"""Running statistics equal those of the whole stream, whatever the batches."""

import numpy as np
import torch

from networks import RunningNorm


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


def test_constant_and_far_observations_stay_finite():
    norm = RunningNorm(1)
    norm.update(torch.full((10, 1), 5.0))
    assert norm(torch.tensor([5.0, 6.0])).tolist() == [0.0, 10.0]


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
