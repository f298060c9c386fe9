"""The lists of planted errors fit the code, and the runner tells which are not seen."""

import re
import threading
from pathlib import Path

import pytest

from bench import planted
from bench.planted import Plant, measure, plants
from common.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
LISTED = plants("*.yaml", "")


@pytest.mark.parametrize("file", sorted({plant.file for plant in LISTED}))
def test_every_listed_error_fits_the_file_it_is_planted_in(file, tmp_path):
    text = (ROOT / file).read_text(encoding="utf-8")
    copy = tmp_path / file
    copy.parent.mkdir(parents=True, exist_ok=True)
    for plant in LISTED:
        if plant.file == file:
            copy.write_text(text, encoding="utf-8")
            assert plant.apply(tmp_path) == text
            assert copy.read_text(encoding="utf-8") != text


def test_every_listed_error_has_a_name_of_its_own_and_tests_that_are_there():
    assert len({plant.name for plant in LISTED}) == len(LISTED)
    for plant in LISTED:
        assert plant.tests or plant.equivalent, plant.name
        for test in plant.tests:
            file, _, function = re.sub(r"\[.*", "", test).partition("::")
            assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), test


@pytest.mark.parametrize("text", ["nothing of it", "a = 1\na = 1\n"])
def test_an_error_whose_text_is_not_there_once_is_refused(text, tmp_path):
    (tmp_path / "a.py").write_text(text)
    with pytest.raises(ConfigError, match=r"one: a\.py has its text [02] times; correct the list"):
        Plant("one", "a.py", "a = 1", "a = 2").apply(tmp_path)


@pytest.mark.parametrize(("codes", "code", "words"), [
    ([0, 1, 1], 0, "2 of 2 seen; 1 change nothing"),
    ([0, 1, 0], 1, "two: NOT SEEN"),
])  # fmt: skip
def test_what_is_not_seen_is_told_and_each_error_is_taken_out_again(
    codes, code, words, monkeypatch, capsys
):
    found, answers = [], iter(codes)

    def run(root, tests, limit):
        found.append((root / "LICENSE").read_text(encoding="utf-8").count("an error"))
        return next(answers), "a test"

    listed = [Plant(name, "LICENSE", "MIT License", f"an error {name}", ("t",), why)
              for name, why in (("one", ""), ("two", ""), ("three", "a word"))]  # fmt: skip
    monkeypatch.setattr(planted, "run", run)
    monkeypatch.setattr(planted, "plants", lambda name, words: listed)
    assert measure(["jobs=1"]) == code
    assert found == [0, 1, 1]
    assert words in capsys.readouterr().out


def test_errors_planted_at_once_are_each_alone_in_a_copy(monkeypatch, capsys):
    listed = [Plant(str(i), "LICENSE", "MIT License", f"an error {i}", ("t",)) for i in range(6)]
    both = threading.Barrier(2, timeout=30)

    def run(root, tests, limit):
        count = (root / "LICENSE").read_text(encoding="utf-8").count("an error")
        if limit != planted.SUITE:
            both.wait()
        return count, "a test"

    monkeypatch.setattr(planted, "run", run)
    monkeypatch.setattr(planted, "plants", lambda name, words: listed)
    assert measure([]) == 0
    assert "6 of 6 seen" in capsys.readouterr().out


def test_a_suite_that_fails_without_an_error_is_refused(monkeypatch):
    monkeypatch.setattr(planted, "run", lambda root, tests, limit: (1, "tests/a.py::test"))
    with pytest.raises(ConfigError, match=r"without an error, tests/a\.py::test fails"):
        measure(["only=A2C"])
