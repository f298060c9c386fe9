"""A stream of random numbers goes on where it was, on the kind of device that it was of."""

import torch

from common.generators import go_on


def test_it_goes_on_where_it_was():
    generator = torch.Generator().manual_seed(1)
    torch.rand(3, generator=generator)
    state = generator.get_state()
    expected = torch.rand(3, generator=generator)
    other = torch.Generator().manual_seed(2)
    go_on(other, state)
    assert torch.equal(torch.rand(3, generator=other), expected)


def test_the_state_of_another_kind_of_device_leaves_it_at_its_beginning():
    generator = torch.Generator().manual_seed(1)
    go_on(generator, torch.zeros(16, dtype=torch.uint8))  # as long as that of a GPU
    assert torch.equal(
        torch.rand(3, generator=generator),
        torch.rand(3, generator=torch.Generator().manual_seed(1)),
    )
