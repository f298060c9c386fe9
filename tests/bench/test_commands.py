"""What the measuring tools take: what they do not know is one line, and nothing is begun."""

import pytest

from bench import bench_learning, commands
from common.errors import ConfigError, LogpiError
from runtime.launch.door import tool
from tools.shared import read_keys


@pytest.mark.parametrize(
    "argument", ["speed", "nope=1", "seeds=abc", "seed=abc", "repeats=true", "figure=x", "lanes=0"]
)
def test_what_is_not_known_is_one_line_and_begins_nothing(argument, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert bench_learning.main([argument]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith(f"error: {argument.partition('=')[0]}: ")
    assert not list(tmp_path.iterdir())


def test_the_doors_word_for_a_traceback_is_not_refused():
    assert read_keys(commands.Seeds, ["debug=true", "out=x"])[0].out == "x"


def test_a_folder_that_cannot_be_made_is_told(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert bench_learning.main(["only=cartpole-a2c", f"out={tmp_path / 'file' / 'x'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out: ")


def test_a_tool_that_needs_no_arguments_works_without():
    def work(arguments):
        return 7

    assert tool("usage", work, [], bare=True) == 7
    assert tool("usage", work, []) == 2
    assert tool("usage", work, ["--help"], bare=True) == 0


@pytest.mark.parametrize(
    ("text", "expected"), [("3", [3]), ("", [0, 1]), ("0-2", [0, 1, 2]), ("10-10", [10])]
)
def test_seeds(text, expected):
    assert list(commands.Seeds(seeds=text).chosen(2)) == expected


def test_no_seeds_are_none():
    with pytest.raises(ConfigError, match="seeds: 5-3 are none"):
        read_keys(commands.Seeds, ["seeds=5-3"])


def test_a_seed_whose_training_fails_ends_the_command(tmp_path):
    with pytest.raises(LogpiError, match=r"train\.py nope=1 failed, error: nope: .*; fix it"):
        commands.train_and_evaluate(["nope=1"], 0, tmp_path / "run")
