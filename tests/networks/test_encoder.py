"""Images: both orders of their dimensions, and the layers that fit their size."""

import pytest
import torch

from networks.actor_critic import Critic, torso
from networks.encoder import FEATURES, Encoder, ImageEncoders
from networks.normalizer import Pixels


def made(shape, seed=0):
    return Encoder(shape, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("side", [(5, 7), (84, 60)])
def test_channels_first_and_last_are_the_same_image(side):
    last, first = made((*side, 3)), made((3, *side))
    images = torch.rand(2, 4, *side, 3)
    features = last(images.flatten(2))
    assert features.shape == (2, 4, FEATURES)
    # Not bit for bit: the convolution of strided pixels sums in another order.
    torch.testing.assert_close(first(images.movedim(-1, 2).flatten(2)), features)
    wrong = images.flatten(2)  # the same bytes, read in the other order
    assert (first(wrong) - features).abs().max() > 0.1


@pytest.mark.parametrize(
    ("shape", "last"),
    [((8, 8, 17), True), ((17, 8, 8), False), ((9, 4, 3), True), ((3, 4, 9), False)],
)
def test_the_sides_are_the_two_that_are_equal(shape, last):
    assert made(shape).channels_last is last


@pytest.mark.parametrize(
    ("shape", "inputs"),
    [
        ((84, 84, 4), 7 * 7 * 64),
        ((36, 36, 1), 64),
        ((35, 36, 1), 35 * 36 * 32),
        ((1, 2, 2), 4 * 32),
    ],
)
def test_the_layers_fit_the_image(shape, inputs):
    assert made(shape).last.in_features == inputs


def test_every_weight_comes_from_the_generator():
    torch.manual_seed(0)
    one = made((8, 8, 1), seed=3).state_dict()
    torch.manual_seed(1)
    other = made((8, 8, 1), seed=3).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(made((8, 8, 1), seed=4).last.weight, one["last.weight"])


def test_features_feel_every_pixel_and_none_of_another_image():
    encoder = made((6, 6, 2))
    images = torch.rand(2, 72, requires_grad=True)
    encoder(images)[0].square().sum().backward()
    assert (images.grad[0] != 0).all()
    assert (images.grad[1] == 0).all()


def test_critics_and_torsos_read_images_and_every_weight_learns():
    generator = torch.Generator().manual_seed(0)
    layers, images = ([8], "tanh", generator), [(0, (6, 6, 2))]
    obs, action = torch.rand(5, 72), torch.rand(5, 3)
    critic = Critic(2, 72, 3, *layers, images=images)
    choices = Critic(2, 72, 0, *layers, images=images, outputs=3)
    body = torso(72, *layers, images=images)
    outputs = {critic: critic(obs, action), choices: choices(obs), body: body(obs)}
    assert [tuple(made.shape) for made in outputs.values()] == [(2, 5), (2, 5, 3), (5, 8)]
    for network, output in outputs.items():
        output.square().sum().backward()
        assert all((weight.grad != 0).any() for weight in network.parameters())


def test_pixels_are_bytes_between_0_and_1():
    scaled = Pixels()(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled, torch.tensor([0.0, 0.2, 1.0]))


def test_encoders_read_each_image_and_leave_the_rest():
    """Two images among five other numbers: as their encoders read them, in the same order."""
    encoders = ImageEncoders(
        5 + 72 + 12, [(2, (6, 6, 2)), (76, (2, 2, 3))], torch.Generator().manual_seed(0)
    )
    obs = torch.rand(4, 3, 89)
    seen = encoders(obs)
    assert seen.shape == (4, 3, encoders.width) == (4, 3, 5 + 2 * FEATURES)
    first, second = encoders.encoders
    expected = [obs[..., :2], first(obs[..., 2:74]), obs[..., 74:76], second(obs[..., 76:88]),
                obs[..., 88:]]  # fmt: skip
    assert torch.equal(seen, torch.cat(expected, -1))
    assert not torch.equal(first.last.weight[:, :32], second.last.weight[:, :32])
