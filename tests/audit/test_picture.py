"""The picture of an audit: bars and red line stand where the numbers say."""

import math

import numpy as np
import pytest
import torch

from audit.density import Curve, Finding
from audit.picture import (
    BARS,
    BELOW,
    BINS,
    CLAIM,
    ERROR,
    HEIGHT,
    LEFT,
    LINE,
    RIGHT,
    TOP,
    WIDTH,
    histogram,
    picture,
    ticks,
)


def rgb(colour):
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def finding(*curves):
    return Finding(0.0, 1.0, 0.0, (), curves)


def uniform(density=None, low=0.0, high=1.0):
    """4,000 even draws, and a density over more than their range."""
    draws = torch.linspace(low, high, 4000, dtype=torch.float64)
    grid = torch.linspace(low - 1.0, high + 1.0, 301, dtype=torch.float64)
    claimed = torch.full_like(grid, 1.0 / (high - low))
    return Curve(draws, grid, claimed if density is None else density(grid), "action")


def where(pixels, colour, column=0, row=0, start=0, end=HEIGHT - BELOW + 4):
    """(rows, columns) within the axes of a panel of the pixels that are nearly of this colour."""
    top, left = TOP + HEIGHT * row, WIDTH * column
    panel = pixels[top + start : top + end, left : left + WIDTH].astype(int)
    return np.nonzero(np.abs(panel - rgb(colour)).max(-1) < 12)


def test_a_column_per_state_and_a_row_per_curve():
    states = [finding(*[uniform() for _ in range(8)]) for _ in range(4)]
    pixels = picture(states)
    assert (pixels.shape, pixels.dtype) == ((TOP + 8 * HEIGHT, 4 * WIDTH, 3), np.uint8)
    for column in range(4):
        for row in range(8):
            assert len(where(pixels, BARS, column, row)[0]) > 1000
            assert len(where(pixels, CLAIM, column, row)[0]) > 100


def test_the_line_lies_on_the_bars_of_the_right_density_and_ends_with_them():
    pixels = picture([finding(uniform())])
    bars, line = where(pixels, BARS), where(pixels, CLAIM)
    assert abs(bars[0].min() - line[0].mean()) < 2.0
    assert (line[1].min(), line[1].max()) >= (LEFT - 1, LEFT)
    assert line[1].max() <= WIDTH - RIGHT
    assert line[1].max() - line[1].min() > 0.95 * (WIDTH - LEFT - RIGHT)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_line_of_a_wrong_density_lies_off_by_its_factor(factor):
    pixels = picture([finding(uniform(lambda grid: torch.full_like(grid, factor)))])
    bars, line = where(pixels, BARS), where(pixels, CLAIM)
    floor = bars[0].max() + 1
    assert (floor - line[0].mean()) / (floor - bars[0].min()) == pytest.approx(factor, rel=0.05)


@pytest.mark.parametrize("factor", [1.0, 0.5, 2.0])
def test_the_error_below_is_the_logarithm_of_the_factor(factor):
    pixels = picture([finding(uniform(lambda grid: torch.full_like(grid, factor)))])
    start = HEIGHT - BELOW + 42
    dots = where(pixels, CLAIM, start=start, end=start + ERROR)
    largest = 1.1 * (abs(math.log(factor)) + 2 / math.sqrt(4000 / BINS))
    height = ERROR * (0.5 - 0.5 * math.log(factor) / largest)
    assert abs(dots[0].mean() - height) < 1.5
    assert np.ptp(dots[1]) > 0.9 * (WIDTH - LEFT - RIGHT)


def test_a_bin_with_few_draws_has_no_error():
    draws = torch.cat([torch.linspace(0.0, 0.5, 4000), torch.linspace(0.9, 1.0, 9)]).double()
    curve = Curve(draws, torch.linspace(0, 1, 301).double(), torch.ones(301).double(), "action")
    start = HEIGHT - BELOW + 42
    dots = where(picture([finding(curve)]), CLAIM, start=start, end=start + ERROR)
    assert dots[1].max() < LEFT + 0.55 * (WIDTH - LEFT - RIGHT)


@pytest.mark.parametrize("beyond", [30.0, float("inf"), float("nan")])
def test_a_claim_beyond_all_bounds_leaves_the_picture_and_the_bars_stay_visible(beyond):
    def density(grid):
        return torch.where(grid > 0.5, beyond, 1.0).double()

    pixels = picture([finding(uniform(density))])
    bars, line = where(pixels, BARS), where(pixels, CLAIM)
    middle = (LEFT + WIDTH - RIGHT) / 2
    assert bars[0].max() - bars[0].min() > 25
    assert line[1].min() < LEFT + 3
    assert line[1].max() < middle + 8  # no plateau at the top
    assert np.abs(line[0][line[1] < middle - 5] - bars[0].min()).max() < 4


def test_a_peak_that_leaves_the_picture_is_marked_with_its_height():
    def density(grid):
        return torch.where((grid > 0.2) & (grid < 0.3), 30.0, 1.0).double()

    above = {"start": 8, "end": 17}  # of the axes
    assert len(where(picture([finding(uniform())]), CLAIM, **above)[0]) == 0
    arrow = where(picture([finding(uniform(density))]), CLAIM, **above)
    place = LEFT + 0.2 * (WIDTH - LEFT - RIGHT)
    assert 5 < len(arrow[0]) < 40
    assert abs(arrow[1].mean() - place) < 4


def test_a_title_stands_above_all_and_takes_as_many_lines_as_it_needs():
    bare = picture([finding(uniform())])
    pixels = picture([finding(uniform())], title="wrong: " + "word " * 16)
    head = len(pixels) - len(bare)
    assert head == 3 * LINE
    assert np.array_equal(pixels[head:], bare)
    assert all(pixels[LINE * row : LINE * (row + 1)].min() < 100 for row in range(3))
    assert picture([finding()], title="nothing was drawn").shape == (TOP + LINE, WIDTH, 3)


def test_the_error_of_a_bin_is_that_of_its_share_of_a_steep_density():
    quantiles = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    grid = torch.linspace(0.0, 1.0, 4001, dtype=torch.float64)[1:] ** 2
    curve = Curve(quantiles**2, grid, 0.5 / grid.sqrt(), "action")  # infinite at 0
    start = HEIGHT - BELOW + 42
    dots = where(picture([finding(curve)]), CLAIM, start=start, end=start + ERROR)
    assert abs(dots[0][dots[1] < LEFT + 5].mean() - ERROR / 2) < 0.3 * ERROR


def test_probabilities_are_dots_on_the_bars():
    draws = torch.tensor([0] * 1000 + [1] * 3000)
    curve = Curve(draws, torch.arange(2), torch.tensor([0.25, 0.75]), "choice")
    pixels = picture([finding(curve)])
    bars, dots = where(pixels, BARS), where(pixels, CLAIM)
    middle = (LEFT + WIDTH - RIGHT) / 2
    floor = bars[0].max() + 1
    right = dots[0][dots[1] > middle].mean()
    left = dots[0][dots[1] < middle].mean()
    assert (floor - left) / (floor - right) == pytest.approx(1 / 3, rel=0.06)
    assert abs(bars[0].min() - right) < 2


@pytest.mark.parametrize("size", [1e-15, 0.0])
@pytest.mark.parametrize("mean", [0.0, -0.99999])
def test_draws_that_are_nearly_alike_are_drawn_too(mean, size):
    draws = mean + size * torch.linspace(-1, 1, 4000, dtype=torch.float64)
    curve = Curve(draws, draws[::40], torch.ones(100).double(), "action")
    assert len(where(picture([finding(curve)]), BARS)[0]) > 20


def test_the_histogram_is_numpys():
    draws = np.random.default_rng(0).normal(3.0, 2.0, 4000)
    edges, heights = histogram(draws)
    wanted, places = np.histogram(draws, BINS, density=True)
    assert np.allclose(edges, places)
    assert np.allclose(heights, wanted)


@pytest.mark.parametrize(
    ("low", "high", "least", "expected"),
    [
        (0.0, 1.05, 0.0, [0.0, 0.5, 1.0]),
        (-0.97, 0.93, 0.0, [-0.5, 0.0, 0.5]),
        (0.0, 70.0, 0.0, [0.0, 20.0, 40.0, 60.0]),
        (-2e-9, 2e-9, 0.0, [-2e-9, -1e-9, 0.0, 1e-9, 2e-9]),
        (-0.5, 1.5, 1.0, [0.0, 1.0]),
        (-0.5, 17.5, 1.0, [0.0, 5.0, 10.0, 15.0]),
        (-0.5, 9.5, 1.0, [0.0, 2.0, 4.0, 6.0, 8.0]),
    ],
)
def test_ticks_are_round_numbers(low, high, least, expected):
    assert ticks(low, high, 4, least) == expected
