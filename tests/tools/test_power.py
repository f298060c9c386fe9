"""What so many runs can show: a table of power, the noncentral t, and draws."""

import re

import numpy as np
import pytest
import scipy.stats

from tests.tracked import ROOT
from tools import compare
from tools.comparison import MOST, welch


def spread(count, deviation, mean=0.0):
    """As many numbers of this mean and standard deviation."""
    numbers = np.arange(count) - (count - 1) / 2
    return mean + deviation * numbers / numbers.std(ddof=1)


def test_so_many_runs_are_needed_as_in_a_table_of_power():
    """Cohen 1988, Statistical Power Analysis, table 2.4.1, two-sided 5 %, power 0.80."""
    table = {0.2: 393, 0.5: 64, 0.8: 26, 1.2: 12}
    for effect, count in table.items():
        found = welch(spread(3, 7.0), spread(5, 7.0, 7.0 * effect))
        assert abs(found.needed - count) <= 1
    assert welch(spread(3, 1.0), spread(3, 1.0)).needed == MOST  # no difference is seen


@pytest.mark.parametrize("count", [2, 3, 4, 5, 10, 20])
def test_the_smallest_difference_is_that_of_the_noncentral_t(count):
    least = welch(spread(count, 3.0), spread(count, 3.0, 5.0)).least
    critical = scipy.stats.t.ppf(0.975, 2 * count - 2)
    shown = scipy.stats.nct.sf(critical, 2 * count - 2, least / 3.0 * (count / 2) ** 0.5)
    assert shown == pytest.approx(0.8, abs=0.002)


def test_four_in_five_draws_show_the_smallest_difference():
    """Of unequal groups; were it 5 % larger or smaller, the share would differ by 0.04."""
    least = welch(spread(5, 3.0), spread(9, 1.0)).least
    generator = np.random.default_rng(0)
    ours = generator.normal(0.0, 3.0, (20_000, 5))
    theirs = generator.normal(least, 1.0, (20_000, 9))
    p = scipy.stats.ttest_ind(ours, theirs, axis=1, equal_var=False).pvalue
    assert np.mean(p <= 0.05) == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize("counts", [(2, 2), (3, 3), (3, 9), (5, 5), (20, 10)])
def test_the_p_value_is_that_of_welch(counts):
    generator = np.random.default_rng(0)
    for far in (0.0, 1.0, 3.0):
        ours, theirs = generator.normal(far, 3.0, counts[0]), generator.normal(0.0, 1.0, counts[1])
        expected = scipy.stats.ttest_ind(ours, theirs, equal_var=False).pvalue
        assert welch(ours, theirs).p == pytest.approx(expected, abs=2e-3, rel=0.01)


def test_no_sentence_contradicts_another():
    """What is shown takes no more runs, and what is not takes more than there are."""
    seen = []
    for count, difference in ((2, 1.0), (2, 9.0), (4, 1.3), (4, 2.2), (9, 0.8), (9, 1.2)):
        ours, theirs = spread(count, 1.0, difference), spread(count, 1.0)
        said, found = compare.verdict(ours, theirs), welch(ours, theirs)
        seen.append("runs show that they differ" in said)
        assert seen[-1] == (found.p <= 0.05) == ("takes" not in said)
        if not seen[-1]:
            assert "do not show that they differ" in said
            assert f"takes {found.needed:,} of each" in said
            assert found.needed > count
            assert found.least > difference
    assert seen == [False, True] * 3


def test_a_highest_mean_that_few_runs_make_is_remarked():
    one, other = np.array([0.0, 0.0, 90.0]), np.array([10.0, 10.0, 20.0])
    said = compare.ranking({"a": one, "b": other})
    remark = ", though a run of it is above one of the next with probability 0.33. "
    assert said == f"a has the highest mean, b the next{remark}"
    assert compare.ranking({"a": one + 20, "b": other}).endswith("b the next. ")
    assert compare.ranking({"a": one, "b": one[::-1]}) == "a and b have the same mean. "


def test_the_page_has_the_sentence_of_the_first_sweep():
    """As it is printed for the returns in the table of the quickstart."""
    rows = re.findall(
        r"agent.lr=(\S+) .* \| 0 \| (-\S+) ", (ROOT / "docs/quickstart.md").read_text()
    )
    best = {
        f"lr={rate}": np.array([float(end) for lr, end in rows if lr == rate]) for rate, _ in rows
    }
    said = f"{compare.ranking(best)}{compare.verdict(*best.values())}\n"
    assert said in (ROOT / "docs/runs.md").read_text()


def test_runs_without_a_spread_are_named():
    alone = "One run has no spread; train five or more of each group."
    assert compare.verdict(np.array([1.0]), np.array([1.0, 2])) == alone
    assert compare.verdict(np.array([1.0])) == alone
    same = compare.verdict(np.array([1.0, 1]), np.array([2.0, 2]))
    assert same == "These runs have no spread."
    assert compare.verdict(np.array([1.0, 2])).startswith("2 runs of each group, with this spread")
