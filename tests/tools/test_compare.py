"""Comparing runs: published numbers, groups by what differs, and the door itself."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from configs.compose import train_config
from configs.files import to_yaml
from runtime.launch.door import enter
from runtime.logger import Logger
from tools import compare
from tools.comparison import (
    Run,
    find,
    grouped,
    interquartile_mean,
    interval,
    mean,
    overlapping,
    probability_of_improvement,
    resampled,
    scored,
    welch,
)
from train import run as train

# Efron and Tibshirani 1993, An Introduction to the Bootstrap, table 2.1: days that mice survived.
TREATED = np.array([94.0, 197, 16, 38, 99, 141, 23])
CONTROL = np.array([52.0, 104, 146, 10, 51, 30, 40, 27, 46])


def test_the_bootstrap_of_the_mice_is_that_of_the_book():
    generator = np.random.default_rng(0)
    drawn = np.stack([resampled([TREATED], generator)[0] for _ in range(20_000)])
    # Table 2.2, standard errors for infinitely many samples: mean 23.36, median 37.83.
    assert drawn.mean(1).std() == pytest.approx(23.36, rel=0.02)
    assert np.median(drawn, axis=1).std() == pytest.approx(37.83, rel=0.02)


def test_an_interval_is_that_of_the_book():
    low, high = interval(lambda drawn: drawn[0].mean(), [TREATED])
    # Table 13.1, percentiles 2.5 and 97.5 of 1,000 samples: an end errs by 2 days there, by 1.4
    # here. At 90 % the upper one would be near 126.7, the book's percentile 95.
    assert low == pytest.approx(45.9, abs=4)
    assert high == pytest.approx(135.4, abs=4)


def test_interquartile_means_by_hand():
    # the worked example of Wikipedia's article, then small ones
    assert interquartile_mean([np.array([5.0, 8, 4, 38, 8, 6, 9, 7, 7, 3, 1, 6])]) == 6.5
    assert interquartile_mean([np.array([1.0, 2]), np.array([3.0])]) == 2.0
    assert interquartile_mean([np.array([1.0, 2, 30, 3, 100])]) == pytest.approx(35 / 3)
    for count in range(1, 20):
        numbers = np.random.default_rng(count).standard_normal(count)
        expected = scipy.stats.trim_mean(numbers, 0.25)
        assert interquartile_mean([numbers]) == pytest.approx(expected)


def test_the_probability_of_improvement_is_the_share_of_won_pairs():
    found = probability_of_improvement([TREATED], [CONTROL])
    statistic = scipy.stats.mannwhitneyu(TREATED, CONTROL).statistic
    assert found == pytest.approx(statistic / (7 * 9))
    assert probability_of_improvement([np.array([1.0, 2])], [np.array([1.0, 0])]) == 0.875
    # Wikipedia's worked example of this statistic: in THHHHHTTTTTH, tortoises win 11 of 36 races
    places = {kind: -np.flatnonzero([one == kind for one in "THHHHHTTTTTH"]) for kind in "TH"}
    assert probability_of_improvement([places["T"]], [places["H"]]) == pytest.approx(11 / 36)
    both = probability_of_improvement([TREATED, CONTROL], [CONTROL, TREATED])
    assert both == pytest.approx(0.5)  # each task counts the same


@pytest.mark.slow
def test_an_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        low, high = interval(mean, [generator.standard_normal(40)], seed=trial)
        hits += bool(low <= 0.0 <= high)
    assert 0.88 <= hits / 100 <= 0.99  # 95 %, less what 40 runs cost


def test_an_interval_is_that_of_another_library():
    scores = np.random.default_rng(1).standard_normal(40)
    error = scores.std() / 40**0.5
    low, high = interval(lambda drawn: drawn[0].mean(), [scores])
    other = scipy.stats.bootstrap(
        (scores,), np.mean, method="percentile", n_resamples=20_000, rng=1
    ).confidence_interval
    # Of 2,000 samples, an end errs by 0.06 standard errors; at 90 % it would be 0.3 further in.
    assert low == pytest.approx(other.low, abs=0.2 * error)
    assert high == pytest.approx(other.high, abs=0.2 * error)


def test_strata_are_drawn_within_each_task():
    low, high = interval(mean, [np.full(5, 1.0), np.full(5, 3.0)])
    assert (low, high) == (2.0, 2.0)  # drawn from all ten, it would vary


def test_the_order_is_that_of_the_means():
    """Not of the medians or the interquartile means, nor that of single runs."""
    ends = {"a": [0.0, 0, 0, 0, 90], "b": [9.0, 9, 9, 9, 9], "c": [8.0, 8, 8, 8, 0]}
    steps = np.array([1.0, 2])
    groups = {
        ("task", label): [Run(Path(), None, "task", {}, steps, np.array([0, end])) for end in some]
        for label, some in ends.items()
    }
    assert [label for _, label in scored(groups)] == ["a", "b", "c"]


def planted(folder, name, values, *overrides):
    """A run directory with a curve, as training would leave it."""
    path = folder / name
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(to_yaml(train_config([*overrides, f"run_dir={path}"])))
    logger = Logger(path)
    for step, value in values.items():
        logger.write(step, {"eval/return_mean": value})
    logger.close()


def printed(capsys):
    """What was printed, with one space between words."""
    return re.sub(" +", " ", capsys.readouterr().out)


def test_groups_are_made_by_what_differs_in_a_task_and_an_agent(tmp_path, capsys):
    curve = {100: 1.0, 200: 2.0}
    for seed in (1, 2):
        planted(tmp_path, f"a{seed}", curve, f"seed={seed}", "agent.lr=1e-2")
        planted(tmp_path, f"b{seed}", curve, f"seed={seed}", "eval.episodes=3")
        planted(tmp_path, f"p{seed}", curve, f"seed={seed}", "env=pendulum")
    same = ("threads=2", "audit.every=7", "env.timeout=9", "env.vectorization=async")
    for seed, key in enumerate(same, 3):  # no difference in kind
        planted(tmp_path, key.replace("=", "-"), curve, f"seed={seed}", "agent.lr=1e-2", key)
    planted(tmp_path / "deeper", "s", curve, "agent=sac", "env=pendulum")
    groups = grouped(find([str(tmp_path)], "eval/return_mean"))
    assert {group: len(runs) for group, runs in groups.items()} == {
        ("CartPole-v1", "a2c lr=0.01"): 2 + 4,
        ("CartPole-v1", "a2c lr=0.0015"): 2,
        ("Pendulum-v1", "a2c"): 2,  # tuned for that task, and not compared there
        ("Pendulum-v1", "sac"): 1,
    }
    planted(
        tmp_path, "long", curve, "env=pendulum", "agent.lr=1e-2", "agent.hidden=[128,256,256,128]"
    )
    assert compare.main([str(tmp_path), f"out={tmp_path / 'out'}"]) == 0
    out = printed(capsys)
    name = "#1: a2c hidden=[128, 256, 256, 128] lr=0.01"  # of which another task has the rate alone
    assert name in out.splitlines()
    assert "| Pendulum-v1 | #1 | 1 | 200 | 2 |" in out


def test_a_run_that_went_on_is_of_the_same_group_at_one_rate_alone(tmp_path, capsys):
    for seed, steps in enumerate((300, 600)):
        for rate in ("constant", "linear"):
            planted(tmp_path, f"{rate}{steps}", {300: 1.0}, f"total_steps={steps}",
                    f"agent.lr_schedule={rate}", f"seed={seed}")  # fmt: skip
    expected = {
        "lr_schedule=constant": 2,
        "lr_schedule=linear total_steps=300": 1,
        "lr_schedule=linear total_steps=600": 1,
    }
    groups = grouped(find([str(tmp_path)], "eval/return_mean"))
    assert {label: len(runs) for (_, label), runs in groups.items()} == expected
    # one of the seed of another that went as far is no sample of its own, whatever was planned
    planted(tmp_path, "begun", {150: 1.0}, "total_steps=900", "agent.lr_schedule=constant")
    planted(tmp_path, "other", {150: 1.0}, "agent.lr_schedule=constant", "eval.every=99")
    planted(tmp_path, "same", {300: 2.0}, "agent.lr_schedule=constant", "eval.every=98")
    groups = grouped(find([str(tmp_path)], "eval/return_mean"))
    assert {label: len(runs) for (_, label), runs in groups.items()} == expected
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"warning: {tmp_path / name} has the settings and the seed of "
        f"{tmp_path / 'constant300'}; left out"
        for name in ("same", "begun", "other")
    ]


def test_runs_of_several_processes_are_a_group_of_their_own(tmp_path):
    for seed in (1, 2):
        planted(tmp_path, f"a{seed}", {100: 1.0}, f"seed={seed}")
    (tmp_path / "a2/result.json").write_text('{"ranks": 2}')
    groups = grouped(find([str(tmp_path)], "eval/return_mean"))
    labels = {label: len(runs) for (_, label), runs in groups.items()}
    assert labels == {"ranks=1": 1, "ranks=2": 1}


def test_returns_of_episodes_that_were_cut_at_other_lengths_are_no_one_group(tmp_path, capsys):
    for length in (30, 60):
        planted(
            tmp_path, f"a{length}", {100: -length}, f"eval.max_length={length}", f"seed={length}"
        )
    assert compare.main([str(tmp_path), f"out={tmp_path / 'out'}"]) == 0
    out = printed(capsys)
    assert "| a2c | 2 |" in out
    assert "cut episodes short" not in out  # none was
    for length in (30, 60):
        (tmp_path / f"a{length}/result.json").write_text('{"episodes_cut": 1}')
    assert compare.main([str(tmp_path), f"out={tmp_path / 'out'}"]) == 0
    out = printed(capsys)
    assert "| CartPole-v1 | eval.max_length=30 | 1 | 100 | -30 | | -30 | -30 |" in out  # of one
    assert "| CartPole-v1 | eval.max_length=60 | 1 | 100 | -60 | | -60 | -60 |" in out
    assert f"{tmp_path / 'a30'}, {tmp_path / 'a60'} cut episodes short (eval.max_length)" in out
    assert "Fewer than five" not in out  # no interval is shown


def test_a_log_that_cannot_be_read_is_one_line(tmp_path, capsys):
    planted(tmp_path, "a", {100: 1.0})
    (events,) = (tmp_path / "a").glob("events*")
    events.unlink()
    events.mkdir()
    assert compare.main([str(tmp_path), f"out={tmp_path / 'out'}"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'a'}: its event files cannot be read, ")


def test_a_run_that_cannot_be_read_is_left_out_and_the_others_are_written_as_csv(tmp_path, capsys):
    for name in ("a", "b"):
        planted(tmp_path, name, {100: 1.0, 200: 2.5}, f"seed={ord(name)}")
    file = tmp_path / "b/config.yaml"
    file.write_text(file.read_text().replace("name: a2c", "name: of_my_branch"))
    out = tmp_path / "out"
    assert compare.main([str(tmp_path), "csv=true", f"out={out}"]) == 0
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith(f"warning: run: {file}, ")
    assert "of_my_branch" in line
    assert line.endswith("; the run is left out")
    rows = (out / "curves.csv").read_text().splitlines()
    run, tag = tmp_path / "a", "eval/return_mean"
    assert rows == ["run,tag,step,value", f"{run},{tag},100,1.0", f"{run},{tag},200,2.5"]
    assert said.out.endswith("comparison.md, comparison.png, curves.csv\n")


def test_a_report_by_hand(tmp_path, capsys):
    ends = [1.0, 2.0, 30.0, 3.0, 100.0]
    for seed, last in enumerate(ends):
        curve = {100: 0.0, 200: last, 300: 7.0}
        if seed == 3:  # of other steps: between two points, a value lies on their line
            curve = {100: 0.0, 300: 2 * last}
        planted(tmp_path, f"a{seed}", curve, f"seed={seed}")
    for seed in range(5):
        curve = {100: 0.0, 200: 50.0}  # shorter: the others are judged at 200, too
        planted(tmp_path, f"b{seed}", curve, f"seed={seed}", "agent.lr=1e-2")
    out = tmp_path / "out"
    assert compare.main([str(tmp_path), "threshold=20", f"out={out}"]) == 0
    lines = (out / "comparison.md").read_text().splitlines()
    best, *cells = [
        line.strip("| ").split(" | ") for line in lines if line.startswith("| CartPole")
    ]
    assert cells[0][:5] == ["CartPole-v1", "lr=0.0015", "5", "200", "27.2"]
    low, high = interval(mean, [np.array(ends)])
    assert cells[0][5] == f"{low:.4g} to {high:.4g}"
    assert cells[0][6:] == ["1", "100", "200, 2 of 5"]
    assert best[:6] == ["CartPole-v1", "lr=0.01", "5", "200", "50", "50 to 50"]
    assert best[-1] == "200, 5 of 5"
    what = "lr=0.01 has the highest mean, lr=0.0015 the next. 5 and 5 runs do not show that"
    p, least, needed = welch(np.full(5, 50.0), np.array(ends))
    chance = f"(Welch's t test, p = {p:.2g})"
    more = f"they show a difference of {least:.4g} or more with 80 % power"
    seen = f"to show the 22.8 seen here takes {needed} of each."
    assert f"CartPole-v1: {what} they differ {chance}. With this spread {more}; {seen}" in lines
    (pair,) = [line.strip("| ").split(" | ") for line in lines if line.startswith("| lr=")]
    assert pair[:4] == ["lr=0.01", "lr=0.0015", "1", "0.80"]
    low, high = interval(probability_of_improvement, [np.full(5, 50.0)], [np.array(ends)])
    assert (low, high) == (0.4, 1.0)  # of four in five, drawn five times
    assert pair[4] == "0.40 to 1.00"
    assert (out / "comparison.png").stat().st_size > 5_000
    assert "written to" in capsys.readouterr().out


def test_a_run_that_ends_before_others_begin_is_left_out(tmp_path, capsys):
    planted(tmp_path, "long", {500: 1.0, 1000: 2.0})
    planted(tmp_path, "short", {100: 50.0}, "agent.lr=1e-2")
    planted(tmp_path, "other", {100: 7.0}, "env=pendulum")
    assert compare.main([str(tmp_path), f"out={tmp_path / 'out'}"]) == 0
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    where = "step 500, at which most on CartPole-v1 have a value"
    assert line == f"warning: {tmp_path / 'short'}: the last value is before {where}; left out"
    shown = re.sub(" +", " ", said.out).splitlines()
    table = [line.strip("| ").split(" | ") for line in shown if "-v1 |" in line]
    assert [row[0] for row in table] == ["CartPole-v1", "Pendulum-v1"]
    assert table[0][3:5] == ["1,000", "2"]


def test_groups_on_several_tasks_are_told_over_all_of_them(tmp_path, capsys):
    ends = {"cartpole": ([0.0, 50, 100, 50], [100.0, 100, 100, 50]),
            "pendulum": ([-200.0, -1000, -200, -600], [-600.0, -600, -600, -600])}  # fmt: skip
    for env, sides in ends.items():
        for rate, values in zip(("0.1", "0.2"), sides, strict=True):
            for seed, value in enumerate(values):
                planted(tmp_path, f"{env}{rate}{seed}", {100: value}, f"env={env}",
                        f"seed={seed}", f"agent.lr={rate}")  # fmt: skip
    planted(tmp_path, "more", {100: 200.0}, "agent.lr=0.3")  # on one task alone
    assert compare.main([str(tmp_path), f"out={tmp_path / 'out'}"]) == 0
    table = printed(capsys).split("IQM, each task's lowest run as 0")[1].split("\n\n")[0]
    cells = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert [row[:4] for row in cells] == [
        ["lr=0.2", "2", "8", "0.50"],
        ["lr=0.1", "2", "8", "0.38"],
    ]
    scores = [np.array([0.0, 0.25, 0.5, 0.25]), np.array([1.0, 0, 1, 0.5])]
    assert interquartile_mean(scores) == 0.375  # the mean of 0.25, 0.25, 0.5 and 0.5
    low, high = interval(interquartile_mean, scores)
    assert cells[1][4] == f"{low:.2f} to {high:.2f}"


def test_one_long_run_leaves_the_many_short_ones_in(tmp_path, capsys):
    for seed in range(5):
        planted(tmp_path, f"short{seed}", {100: 1.0, 200: 2.0}, f"seed={seed}")
        planted(tmp_path, f"long{seed}", {500 + seed: 1.0, 1000: 2.0}, f"seed={seed}", "agent.lr=1")
    planted(tmp_path, "middle", {200: 3.0, 300: 1.0}, "seed=9")

    def kept():
        runs = overlapping(find([str(tmp_path)], "eval/return_mean"))
        capsys.readouterr()
        return {run.path.name for run in runs}

    assert kept() == {*(f"short{seed}" for seed in range(5)), "middle"}
    planted(tmp_path, "late", {900: 1.0, 950: 2.0}, "seed=7", "agent.lr=0.5")
    planted(tmp_path, "short5", {100: 1.0, 200: 2.0}, "seed=5")
    overlapping(find([str(tmp_path)], "eval/return_mean"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path / 'late'}, {tmp_path / 'long0'}")
    assert "the first value is after step 200, at which most" in line
    for name in ("late", "short5"):
        shutil.rmtree(tmp_path / name)
    planted(tmp_path, "long5", {600: 1.0, 1000: 2.0}, "seed=5", "agent.lr=1")
    assert kept() == {f"long{seed}" for seed in range(6)}  # as many, and longer
    runs = find([str(tmp_path)], "eval/return_mean")
    overlapping(runs)
    (line,) = capsys.readouterr().err.splitlines()
    middle, *short = (tmp_path / name for name in ("middle", "short0", "short1"))
    what = "the last value is before step 600, at which most on CartPole-v1 have a value"
    assert line == f"warning: {middle}, {short[0]}, {short[1]} and 3 more: {what}; left out"


def test_a_run_that_shortens_the_comparison_is_named(tmp_path, capsys):
    for seed in (1, 2, 3):
        planted(tmp_path, f"long{seed}", {100: 1.0, 1000: 2.0}, f"seed={seed}")
    planted(tmp_path, "late", {100: 1.0, 900: 2.0}, "seed=4")
    assert compare.main([str(tmp_path), f"out={tmp_path / 'out'}"]) == 0
    assert capsys.readouterr().err == ""
    planted(tmp_path, "short", {100: 1.0, 200: 2.0}, "seed=5")
    assert compare.main([str(tmp_path), f"out={tmp_path / 'out'}"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "short ends at step 200, and all on CartPole-v1 are compared there" in line


def test_what_a_search_tried_and_what_repeats_a_run_are_no_samples(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2, 3):
        planted(tmp_path, f"runs/a{seed}", {100: 1.0}, f"seed={seed}")
        digest = "same" if seed > 1 else "other"
        Path(f"runs/a{seed}/result.json").write_text(json.dumps({"state_digest": digest}))
    planted(tmp_path, "runs/tuning/out/trial-0000/s0", {100: 1.0}, "agent.lr=0.1")
    Path("runs/tuning/out/study.journal").write_text("")

    def found(path):
        return sorted(run.path.name for run in find([path], "eval/return_mean"))

    assert found("runs") == found(".") == found(str(tmp_path)) == ["a1", "a2"]
    assert "runs/a3 is runs/a2 again, bit for bit; left out" in capsys.readouterr().err
    planted(tmp_path, "runs/reproduced/b", {100: 2.0}, "seed=1")
    assert found("runs") == found(".") == ["a1", "a2"]
    assert found("runs/reproduced") == ["b"]
    assert found("runs/tuning/out") == found("runs/tuning/out/trial-0000") == ["s0"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["nowhere"], "nowhere"), (["x=1"], "x"), (["threshold=a", "."], "threshold"),
     (["tag=eval/return_mean"], "runs"), (["."], "contains no run")],
)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_made(arguments, word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert compare.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert word in line
    assert not list(tmp_path.iterdir())


def test_runs_that_were_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        for lr in ("1e-3", "1e-2"):
            short = ["total_steps=1280", "eval.every=640", "eval.episodes=2", f"agent.lr={lr}"]
            assert enter("train", train, [*short, f"seed={seed}"]) == 0
    capsys.readouterr()
    assert compare.main(["runs"]) == 0
    said = printed(capsys)
    assert "| lr=0.001 | 2 | 1,280 |" in said
    assert said.index("is above one of") < said.index("Fewer than five runs")  # of both tables
    assert len(list(tmp_path.glob("runs/comparisons/*/comparison.png"))) == 1
