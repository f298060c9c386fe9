"""Streams are reproducible, independent of each other and of every global generator."""

import random

import numpy as np
import torch

from common.seeding import derive, restore_generator, stream


def test_paths_and_seeds_give_different_streams():
    paths = (("a",), ("b",), ("a", 0), ("a", 1), ("b", 1), ("a", 1, 0))
    seeds = {derive(s, *path) for s in range(50) for path in paths}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_streams_repeat_and_touch_nothing_global():
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    first = torch.rand(5, generator=stream(3, "act"))
    assert torch.equal(first, torch.rand(5, generator=stream(3, "act")))
    assert not torch.equal(first, torch.rand(5, generator=stream(3, "update")))
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_it_goes_on_where_it_was():
    generator = torch.Generator().manual_seed(1)
    torch.rand(3, generator=generator)
    state = generator.get_state()
    expected = torch.rand(3, generator=generator)
    other = torch.Generator().manual_seed(2)
    restore_generator(other, state)
    assert torch.equal(torch.rand(3, generator=other), expected)


def test_the_state_of_another_kind_of_device_leaves_it_at_its_beginning():
    generator = torch.Generator().manual_seed(1)
    restore_generator(generator, torch.zeros(16, dtype=torch.uint8))  # as long as that of a GPU
    assert torch.equal(
        torch.rand(3, generator=generator),
        torch.rand(3, generator=torch.Generator().manual_seed(1)),
    )
