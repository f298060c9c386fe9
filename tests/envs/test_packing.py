"""Images of bytes among other numbers: kept as rows of bytes, and read as they were."""

import struct

import numpy as np
import pytest
import torch

from data import Spec
from envs.envs import apart, pack
from networks.normalizer import RunningNorm, SomePixels, Unpack
from runtime.audits import at_states
from tests.helpers import agent, batch, numbers

CASES = [
    (10, [(3, 9)]),  # in the middle
    (7, [(0, 4)]),  # first
    (7, [(2, 7)]),  # last
    (16, [(1, 4), (4, 9), (11, 14)]),  # neighbours, and one further
    (6, [(0, 4), (4, 6)]),  # nothing else
]


def drawn(obs_dim, ranges, leading=(2, 5)):
    """Observations and their rows: bytes in the images, numbers of all sizes beside them."""
    generator = np.random.default_rng(0)
    size = 10.0 ** generator.integers(-40, 38, (*leading, obs_dim))
    obs = (size * generator.normal(size=size.shape)).astype(np.float32)
    for start, stop in ranges:
        obs[..., start:stop] = generator.integers(0, 256, (*leading, stop - start))
    rest, images = apart(obs, ranges)
    return obs, rest, pack(rest, images.astype(np.uint8))


def test_a_row_is_its_numbers_lowest_byte_first_then_its_images():
    rows = pack(np.array([[1.5, -2.0]], np.float32), np.array([[7, 0, 255]], np.uint8))
    assert rows.tobytes() == struct.pack("<ff", 1.5, -2.0) + bytes([7, 0, 255])
    obs = [[1.5, 7.0, 0.0, 255.0, -2.0]]
    assert Unpack(5, [(1, 4)])(torch.from_numpy(rows)).tolist() == obs


@pytest.mark.parametrize(("obs_dim", "ranges"), CASES)
def test_what_is_read_is_what_was_kept_to_the_last_bit(obs_dim, ranges):
    obs, rest, rows = drawn(obs_dim, ranges)
    assert (rows.dtype, rows.shape[-1]) == (np.uint8, 4 * rest.shape[-1] + obs_dim - rest.shape[-1])
    spec = Spec(obs_dim, 2, True, bytes=tuple(ranges))
    assert (spec.obs_bytes, spec.image_bytes) == (rows.shape[-1], obs_dim - rest.shape[-1])
    read, rows = Unpack(obs_dim, ranges), torch.from_numpy(rows)
    assert torch.equal(read(rows), torch.from_numpy(obs))
    assert torch.equal(read(torch.from_numpy(obs)), torch.from_numpy(obs))
    for given in (rows, torch.from_numpy(obs)):
        assert torch.equal(read.numbers(given), torch.from_numpy(rest))
    for one in rows[0]:  # which begin anywhere in memory
        assert torch.equal(read(one), read(one.clone()))


@pytest.mark.parametrize(("obs_dim", "ranges"), CASES)
@pytest.mark.parametrize("kind", [SomePixels, RunningNorm])
def test_rows_and_numbers_are_one_to_what_is_first(kind, obs_dim, ranges):
    obs, _, rows = drawn(obs_dim, ranges, leading=(20,))
    obs, rows = torch.from_numpy(obs), torch.from_numpy(rows)
    (one, other) = (kind(obs_dim, ranges) for _ in range(2))
    for norm, given in ((one, rows), (other, obs)):
        if kind is RunningNorm:
            norm.update(given[:7])
            norm.update(given[7:])
    assert torch.equal(one(rows), other(obs))
    for (name, mine), theirs in zip(one.state_dict().items(), other.state_dict().values(),
                                    strict=True):  # fmt: skip
        assert torch.equal(mine, theirs), name
    images = torch.cat([torch.arange(*image) for image in ranges])
    assert torch.equal(one(rows)[:, images], obs[:, images] * (1.0 / 255.0))
    if kind is RunningNorm:  # of images nothing is learned
        assert not one.seen_mean[images].any()


AMONG = {
    "continuous": Spec(10, 2, False, images=((3, (2, 3, 1)),), bytes=((3, 9),)),
    "discrete": Spec(10, 2, True, images=((3, (2, 3, 1)),), bytes=((3, 9),)),
}


@pytest.mark.parametrize("normalise_obs", [False, True])
@pytest.mark.parametrize(
    ("name", "kind"),
    [("a2c", "discrete"), ("ppo", "continuous"), ("sac", "continuous"),
     ("sac_discrete", "discrete")],
)  # fmt: skip
def test_agents_act_and_learn_from_rows_as_from_numbers(name, kind, normalise_obs):
    """To the last bit."""
    spec, changes = AMONG[kind], {"batch_size": 4, "epochs": 2} if name == "ppo" else {}
    one, other = (agent(name, spec, normalise_obs=normalise_obs, **changes) for _ in range(2))
    rows = batch(4, 3, spec=spec) if one.settings.on_policy else batch(12, spec=spec)
    read = Unpack(spec.obs_dim, spec.bytes)
    plain = rows._replace(obs=read(rows.obs), next_obs=read(rows.next_obs))
    assert (rows.obs.dtype, plain.obs.dtype) == (torch.uint8, torch.float32)
    first = numbers(one.state_dict()["modules"])
    for learner, given in ((one, rows), (other, plain)):
        learner.observe(given)
        learner.update(given)
        learner.update(given)
    mine, theirs = (numbers(learner.state_dict()) for learner in (one, other))
    assert torch.equal(mine, theirs)
    assert not torch.equal(numbers(one.state_dict()["modules"]), first)
    both = [(one, rows.obs.flatten(0, -2)), (other, plain.obs.flatten(0, -2))]
    for greedy in (True, False):
        assert torch.equal(*(learner.act(obs, greedy)[0] for learner, obs in both))
    found = [at_states(learner, obs[:1], torch.Generator().manual_seed(0)) for learner, obs in both]
    assert found[0][0].pit_ks == found[1][0].pit_ks
