"""What so many runs can show: a table of power, the noncentral t, and draws."""

import numpy as np
import pytest
import scipy.stats

from tests.tracked import ROOT
from tools import compare
from tools.comparison import MOST, detectable


def spread(count, deviation, mean=0.0):
    """As many numbers of this mean and standard deviation."""
    numbers = np.arange(count) - (count - 1) / 2
    return mean + deviation * numbers / numbers.std(ddof=1)


def test_so_many_runs_are_needed_as_in_a_table_of_power():
    """Cohen 1988, Statistical Power Analysis, table 2.4.1, two-sided 5 %, power 0.80."""
    table = {0.2: 393, 0.5: 64, 0.8: 26, 1.2: 12}
    for effect, count in table.items():
        _, needed = detectable(spread(3, 7.0), spread(5, 7.0, 7.0 * effect))
        assert abs(needed - count) <= 1
    assert detectable(spread(3, 1.0), spread(3, 1.0))[1] == MOST  # no difference is seen
    assert detectable(spread(3, 1.0), spread(3, 1.0, 9.0))[1] == 4  # by the permutation test


@pytest.mark.parametrize("count", [2, 3, 4, 5, 10, 20])
def test_the_smallest_difference_is_that_of_the_noncentral_t(count):
    least, _ = detectable(spread(count, 3.0), spread(count, 3.0, 5.0))
    critical = scipy.stats.t.ppf(0.975, 2 * count - 2)
    shown = scipy.stats.nct.sf(critical, 2 * count - 2, least / 3.0 * (count / 2) ** 0.5)
    assert shown == pytest.approx(0.8, abs=0.002)


def test_four_in_five_draws_show_the_smallest_difference():
    """Of unequal groups; were it 5 % larger or smaller, the share would differ by 0.04."""
    least, _ = detectable(spread(5, 3.0), spread(9, 1.0))
    generator = np.random.default_rng(0)
    ours = generator.normal(0.0, 3.0, (20_000, 5))
    theirs = generator.normal(least, 1.0, (20_000, 9))
    p = scipy.stats.ttest_ind(ours, theirs, axis=1, equal_var=False).pvalue
    assert np.mean(p <= 0.05) == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize(("count", "share"), [(4, 0.65), (5, 0.68), (10, 0.76)])
def test_the_permutation_test_shows_it_as_often_as_the_page_has_it(count, share):
    least, _ = detectable(spread(count, 1.0), spread(count, 1.0))
    generator = np.random.default_rng(0)
    ours = generator.normal(0.0, 1.0, (4_000, count))
    theirs = generator.normal(least, 1.0, (4_000, count))
    p = scipy.stats.mannwhitneyu(ours, theirs, axis=1, method="exact").pvalue
    assert np.mean(p <= 0.05) == pytest.approx(share, abs=0.02)
    assert f"{share:.0%} with {count}".replace("%", " %") in (ROOT / "docs/runs.md").read_text()


def test_runs_without_a_spread_are_named():
    assert compare.resolution(np.array([1.0]), np.array([1.0, 2])) == "One run has no spread."
    same = compare.resolution(np.array([1.0, 1]), np.array([2.0, 2]))
    assert same == "These runs have no spread."
    assert "seen here" not in compare.resolution(*[np.array([1.0, 2])] * 2)
