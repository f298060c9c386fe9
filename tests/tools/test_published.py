"""Published curves beside one's own: what is printed, what is drawn, and where it comes from."""

import re
from pathlib import Path

import numpy as np
import pytest

from runtime.console import aligned
from tests.tools.test_compare import planted
from tools import compare
from tools.published import FOLDER, beside, family, published

FAMILIES = ["half_cheetah", "hopper", "walker2d", "ant", "humanoid"]


def of(name, who):
    (found,) = [one for one in published()[name] if one.source["who"] == who]
    return found


def test_every_curve_has_a_source_at_a_revision_and_a_licence():
    assert list(published()) == FAMILIES
    licences = (FOLDER / "LICENCES.md").read_text()
    for one in (one for curves in published().values() for one in curves):
        repository = "/".join(one.source["source"].split("/")[3:5])
        (under,) = re.findall(rf"\* {repository}, (.*): .*", licences)
        assert one.source["licence"] == under
        assert re.match(
            r"https://github.com/[^/]+/[^/]+/(blob|tree)/[0-9a-f]{40}/", one.source["source"]
        )
        assert (np.diff(one.steps) > 0).all()
        assert one.seeds >= 5
    assert all(len(curves) == 9 for curves in published().values())
    assert sum(file.stat().st_size for file in FOLDER.glob("*.csv")) < 20_000


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "HalfCheetah-v5 reset_noise_scale=0.2"])
def test_a_line_has_all_that_a_reader_needs(task):
    line = of("half_cheetah", "CrossQ").line(task, 100_000)
    assert line.startswith(f"CrossQ on HalfCheetah-v4 (yours is {task}): ")
    # Of all ten seeds of the file, by its means at 100,000 steps: 8112 and a deviation of 944.
    assert "mean 8,112, deviation 944, IQM 8,365 at step 100,000; 10 seeds, updates" in line
    source = "arXiv 1902.05605; dojeon-ai/SimbaV2, Apache-2.0"
    assert line.endswith(f"per step: 1, 8.6 million parameters on HalfCheetah ({source})")


def test_one_version_has_no_remark_and_a_step_is_within_the_curve():
    own = of("half_cheetah", "XuanCe SAC")
    assert "IQM 4,551 at step 100,000" in own.line("HalfCheetah-v5", 100_000)
    ten = dict(zip(own.steps, own.mean, strict=True))
    middle = f"mean {(ten[40_000] + ten[50_000]) / 2:,.0f}, "
    assert middle in own.line("HalfCheetah-v5", 45_000)  # between two points, on their line
    assert f"mean {own.mean[-1]:,.0f}, " in own.line("HalfCheetah-v5", 5_000_000)
    assert "at step 1,000,000;" in own.line("HalfCheetah-v5", 5_000_000)


def test_names_are_those_of_the_environments():
    tasks = ["HalfCheetah-v5", "Hopper-v5", "Ant-v5"]
    assert list(beside("ant,half_cheetah", tasks)) == ["HalfCheetah-v5", "Ant-v5"]
    assert beside("", tasks) == {}
    assert [family(task) for task in ("HalfCheetah-v5", "Walker2d-v4", "Ant-v5 x=1")] == [
        *("half_cheetah", "walker2d", "ant")
    ]


def test_the_command_of_the_page_draws_curves_behind_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for env in ("half_cheetah", "hopper"):
        curve = {10_000: 0.0, 60_000: 9.0}
        planted(Path("runs/cheetah"), env, curve, f"env={env}", "agent=sac")
    figures = []
    monkeypatch.setattr(compare, "save", lambda figure, *_, **__: figures.append(figure))
    page = (FOLDER.parent.parent / "runs.md").read_text()
    (given,) = re.findall(r"\npython tools/compare.py (.* published=.*)\n", page)
    assert compare.main(given.split()) == 0
    (written,) = tmp_path.glob("runs/comparisons/*/comparison.md")
    assert aligned(written.read_text()) in capsys.readouterr().out
    text = written.read_text().splitlines()
    assert "HalfCheetah-v5: One run has no spread; train five or more of each group." in text
    *lines, later = [line for line in text if line.startswith("- ")]
    assert later == "- not evaluated by step 60,000: FlashSAC"
    assert len(lines) == 8
    assert sum("on HalfCheetah-v4 (yours is HalfCheetah-v5): " in line for line in lines) == 7
    assert all(" at step 60,000; " in line for line in lines)
    first, second = figures[0].axes
    assert len(second.lines) == 1  # of Hopper no curves are wanted
    own, *others = first.lines
    assert len(others) == 8
    drawn = {line.get_label(): line for line in others}["CrossQ, HalfCheetah-v4"]
    np.testing.assert_array_equal(drawn.get_xdata(), np.arange(10_000, 60_001, 10_000))
    np.testing.assert_array_equal(drawn.get_ydata(), of("half_cheetah", "CrossQ").mean[:6])
    assert drawn.get_zorder() < own.get_zorder()


@pytest.mark.parametrize(
    ("given", "error"),
    [(["published=halfcheetah"], "there is no 'halfcheetah'; did you mean half_cheetah?"),
     (["published=ant"], "no run is of ant, all are of CartPole-v1; add runs of it"),
     (["published=ant", "tag=losses/actor"], "are returns, and tag is losses/actor; leave it out")],
)  # fmt: skip
def test_what_cannot_be_drawn_is_one_line(given, error, tmp_path, capsys):
    planted(tmp_path, "a", {100: 1.0})
    assert compare.main([str(tmp_path), *given, f"out={tmp_path / 'out'}"]) == 2
    assert capsys.readouterr().err == f"error: published: {error}\n"
    assert not (tmp_path / "out").exists()
