"""Plain lines where stdout is no terminal: few, and with the numbers to watch."""

import sys

from runtime.console import LINES, Progress


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


def test_the_time_left_is_that_of_the_present_speed(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("runtime.console.time.perf_counter", lambda: now[0])
    progress = Progress(1000)
    for step in range(1, 1001):
        now[0] += 0.001 if step <= 300 else 2.0  # the first ones without an update
        progress.update(step)
    told = [line.rsplit("  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert told[5:10] == ["1 s left", "29 s left", "1298 s left", "1198 s left", "1098 s left"]


def test_steps_without_an_update_tell_no_time(capsys):
    progress = Progress(1000, learning_starts=120)
    for step in range(1, 251):
        progress.update(step)
    said = [line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()]
    assert said[:3] == ["not yet learning"] * 3
    assert [text.endswith("s left") for text in said[3:]] == [False, True]
