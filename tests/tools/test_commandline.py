"""What the command of the gallery takes, and what it says to what it does not."""

import os

import pytest

from tools import verify
from tools.gallery.settings import SECTIONS


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nonsense"], "nonsense"),
        (["sectoin=all"], "did you mean section"),
        (["section=tanh_norml"], "did you mean tanh_normal"),
        (["mean=3"], "section=NAME"),
        (["section=normal", "limit=1"], "limit"),
        (["section=tanh_normal", "std=-1"], "std"),
        (["section=tanh_normal", "std=nan"], "std"),
        (["section=tanh_normal", "mean=abc"], "mean"),
        (["section=tanh_diagonal", "mean=[1]"], "mean"),
        (["section=tanh_full", "scale_tril=[[1,1],[0,1]]"], "scale_tril"),
        (["section=tanh_full", "scale_tril=[[1,0],[3,0.1]]"], "scale_tril"),
        (["section=tanh_full", "scale_tril=3"], "scale_tril"),
        (["section=log_exp", "values=[[1,2],[3]]"], "values"),
        (["section=log_softmax", "probs=[0.5,0.4]"], "probs"),
        (["samples=10"], "samples"),
        (["seed=x"], "seed"),
        (["seed=-1"], "seed"),
        (["false_alarms=1.5"], "false_alarms"),
        (["section=log_exp", "out=/dev/null/x"], "out"),
        (["section=" + "[" * 20_000], "section"),
        (["mean=" + "[" * 200_000], "mean"),
    ],
    ids=lambda value: value[-1][:30] if isinstance(value, list) else value,
)
def test_bad_input_is_one_line_and_nothing_is_made(tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    assert verify.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    assert ";" in line
    assert named in line
    assert os.listdir() == []


def test_help_lists_every_section_and_key_with_its_default(capsys):
    assert verify.main(["--help"]) == 0
    text = capsys.readouterr().out
    for section in SECTIONS:
        assert f"section={section}:" in text
    for default in ("mean=5.0", "std=0.2", "samples=5000", "seed=0", "scale_tril=[[0.15,0.0],["):
        assert default in text
