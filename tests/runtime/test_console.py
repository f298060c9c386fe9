"""Plain lines where stdout is no terminal: few, and with the numbers to watch."""

import sys

import pytest

import train
from runtime.console import LINES, Progress, aligned
from runtime.launch.door import enter


def test_a_long_run_prints_few_lines(capsys):
    progress = Progress(1_000_000)
    for step in range(500, 1_000_001, 500):
        progress.note({"rollout/return": 12.34567, "policy/entropy": 0.5, "other": 1.0})
        progress.update(step)
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert LINES <= len(lines) <= LINES + 2
    assert "return   12.35" in lines[-1]
    assert "entropy     0.5" in lines[-1]
    assert lines[-1].startswith("step 1000000/1000000")
    assert "0 s left" in lines[-1]


def test_a_bar_is_drawn_where_the_terminal_is(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    progress = Progress(10)
    progress.update(10)
    progress.close()
    said = capsys.readouterr()
    assert "10/10" in said.out
    assert said.err == ""


@pytest.mark.parametrize(("rollout", "log"), [(1, 10), (64, 10), (256, 50), (300, 50)])
def test_the_time_left_is_that_of_whole_rollouts_and_evaluations(rollout, log, capsys, monkeypatch):
    """Steps take no time, the update after each rollout does; later all is three times slower."""
    now = [0.0]
    monkeypatch.setattr("runtime.console.time.perf_counter", lambda: now[0])
    steps = range(1, 8001)
    takes = [0.001 + rollout * (s % rollout == 0) + 100 * (s % 800 == log) for s in steps]
    progress = Progress(8000, rollout=rollout, period=max(rollout, 800))
    for step, seconds in zip(steps, takes, strict=True):
        now[0] += seconds * (1 if step <= 4000 else 3)
        if step % log == 0:
            progress.update(step)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    told = {int(words[1].split("/")[0]): words[-3] for words in lines if words[-1] == "left"}
    assert min(told) <= rollout + 400
    for step, left in told.items():
        slower = 1 if step <= 4000 else 3
        wanted = slower * sum(takes[step:])  # as if nothing changed from here on
        if step > 800 + rollout and not 4000 < step < 4800 + rollout:
            assert abs(float(left) - wanted) <= wanted / 8 + slower * (rollout + 100), step
    assert told[8000] == "0"


def test_steps_without_an_update_tell_no_time(capsys):
    progress = Progress(1000, learning_starts=120)
    for step in range(1, 251):
        progress.update(step)
    said = [line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()]
    assert said[:3] == ["not yet learning"] * 3
    assert [text.endswith("s left") for text in said[3:]] == [True, True]


def test_a_line_has_a_dash_for_what_is_not_new(capsys, monkeypatch):
    """And the speed of training, which is not that of evaluations."""
    monkeypatch.setattr("runtime.console.time.perf_counter", lambda: 0.0)
    progress = Progress(20, rollout=2)
    for step in range(1, 7):
        if step in (3, 6):
            progress.note({"rollout/return": float(step)})
        if step in (4, 6):
            progress.note({"eval/return_mean": 8.0, "time/steps_per_second": 4321.4})
        progress.update(step)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "step 1/20 not yet learning"
    assert [line.partition("/20 ")[2] for line in lines[2:5]] == [
        "return 3 0 s left",
        "return - eval 8 4,321 steps/s 0 s left",
        "return - eval - 4,321 steps/s 0 s left",
    ]


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (
            ["agent=ppo", "eval.every=700", "env.num_envs=4", "agent.n_steps=64"],
            (20_000, 0, 0, 256, 700),
        ),
        (["agent=a2c", "env.num_envs=2", "eval.episodes=0"], (20_000, 0, 0, 32, 32)),
        (["agent=sac", "agent.learning_starts=500"], (20_000, 0, 500, 1, 2000)),
    ],
)
def test_a_run_gives_the_lengths_of_its_rollouts(arguments, given, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("runtime.session.Progress", lambda *lengths: seen.append(lengths) or 1 / 0)
    of = ["env.id=Pendulum-v1", "total_steps=20000", "accelerate=none", f"run_dir={tmp_path}/run"]
    assert enter("train", train.run, [*of, *arguments]) == 1
    assert seen == [given]


def test_a_run_that_is_resumed_within_a_rollout_has_no_speed_before_one_has_ended():
    """The first update would be charged to the few steps before it."""
    assert len(Progress(1000, first_step=120, rollout=64).ends) == 0
    assert len(Progress(1000, first_step=128, rollout=64).ends) == 1


def test_columns_of_a_table_are_of_one_width():
    text = "before\n| a | long |\n| --- | --- |\n| x\\|y |  |\n\nafter | it"
    found = "before\n| a    | long |\n|------|------|\n| x\\|y |      |\n\nafter | it"
    assert aligned(text) == found
