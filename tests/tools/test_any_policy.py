"""`tools/verify.py of=...`: anyone's policy from the command line."""

import json
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from tests.tracked import ROOT
from tools import verify

MINE = """
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.distributions import Normal

normal = Normal(1.0, 2.0)

@dataclass
class Settings:
    size: int = 1

def right():
    return normal

def wrong(shift=0.3):
    return normal.sample, lambda action: normal.log_prob(action) + shift

def narrow(low, high):
    return Normal(torch.as_tensor(low), torch.as_tensor(high))

def pairs(count=1500):
    action = normal.sample((count,))
    return action, normal.log_prob(action) + 0.5, 7.0

def actor():
    return pairs

def explodes():
    raise RuntimeError("boom")

def ends():
    raise SystemExit(0)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "ends.py").write_text("raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("mine", None)


def test_a_right_policy_passes_and_the_report_is_written(here, capsys):
    assert verify.main(["of=mine:right", "draws=2000", "seed=3", "out=report"]) == 0
    printed = capsys.readouterr().out
    assert "pit_ks of component 0" in printed
    assert "right: 2,000 draws" in printed
    written = json.loads((here / "report" / "report.json").read_text())
    assert (written["passed"], written["of"], written["seed"]) == (True, "mine:right", 3)
    text = (here / "report" / "report.md").read_text()
    assert "2,000 draws" in text
    assert "![picture](picture.png)" in text
    assert "| \\|normaliser - 1\\| | " in text
    assert (here / "report" / "picture.png").stat().st_size > 3000


def test_a_wrong_policy_fails(here, capsys):
    assert verify.main(["of=mine:wrong", "draws=2000"]) == 1
    assert "too high by exactly 0.3 nat" in capsys.readouterr().out
    assert verify.main(["of=mine:wrong", "args=[0.0]", "draws=2000"]) == 0
    assert len(list((here / "runs" / "verify").iterdir())) == 2


def test_lists_are_tensors_and_the_shape_is_checked(here, capsys):
    given = ["of=mine:narrow", "args=[[1.0,2.0],[0.5,0.5]]", "draws=2000"]
    assert verify.main(given) == 1
    assert "gives 2 numbers for each action" in capsys.readouterr().out
    assert verify.main([*given, "dim=3"]) == 2


def test_a_file_by_its_path_and_pairs_that_a_function_returns_or_a_file_holds(here, capsys):
    (here / "sub").mkdir()
    (here / "mine.py").rename(here / "sub" / "mine.py")
    path = "of=sub/mine.py"
    assert verify.main([f"{path}:right", "draws=2000"]) == 0
    for of in (f"{path}:pairs", f"{path}:actor"):
        assert verify.main([of, "draws=2000"]) == 1
    assert verify.main([f"{path}:pairs", "args=[1200]"]) == 1
    action, log_pi, _ = import_module("mine").pairs()
    np.savez(here / "right.npz", actions=action, log_pi=log_pi - 0.5)
    np.savez(here / "wrong.npz", actions=action, log_pi=log_pi)
    assert verify.main(["pairs=right.npz", "out=report"]) == 0
    assert json.loads((here / "report" / "report.json").read_text())["pairs"] == "right.npz"
    assert verify.main(["pairs=wrong.npz"]) == 1
    assert capsys.readouterr().out.count("too high by exactly 0.5 nat") == 4


def test_words_of_the_table_are_explained_below_it(here, capsys):
    assert verify.main(["of=mine:right", "draws=2000"]) == 0
    printed = capsys.readouterr().out
    for word in ("pit_ks", "normaliser", "mistakes that fit to rounding"):
        assert printed.count(f"\n{word}: ") == 1
    assert "\n|normaliser - 1| " in printed
    assert "\n\n\n" not in printed
    assert "control" not in printed


def test_a_distribution_of_torch_needs_no_file(tmp_path):
    command = [sys.executable, str(ROOT / "tools/verify.py"), "of=torch.distributions:Normal"]
    done = subprocess.run(
        [*command, "args=[4.0,0.8]"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["of=mine"], "of: mine is not MODULE:NAME; e.g."),
        (["of=nowhere:x"], "of: importing nowhere raised ModuleNotFoundError"),
        (["of=mine:rigth"], "did you mean right?"),
        (["of=ends:x"], 'put what ends it under if __name__ == "__main__"'),
        (["of=mine:ends"], "of: mine:ends: raised SystemExit: 0; name a distribution"),
        (
            ["of=torch.distributions:Multinomial", "args=[5,[0.5,0.5]]"],
            "draws counts; give sample=",
        ),
        (["of=torch.distributions:Nomal"], "did you mean Normal?"),
        (["of=nowhere.py:x"], "nowhere.py raised FileNotFoundError"),
        (["pairs=nowhere.npz"], "np.savez(FILE, actions=actions, log_pi=log_pi) writes"),
        (["pairs=mine.py"], "pairs: mine.py was not read"),
        (["pairs=a.npz", "of=mine:right"], "pairs: of= is given, too; give one"),
        (["of=mine:explodes"], "of: mine:explodes: raised RuntimeError: boom; name a distribution"),
        (["of=mine:narrow", "args=[1]"], "args: narrow raised TypeError"),
        (["of=mine:right", "low=-1", "high=1"], "lies below low=-1"),
        (["of=mine:right", "low=x"], "low: must be a finite number or a list"),
        (["of=mine:right", "draws=10"], "draws: "),
        (["of=mine:right", "samples=10"], "samples: "),
        (["of=mine:normal.loc"], "of: mine:normal.loc: a Tensor came"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(here, capsys, arguments, words):
    assert verify.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1
    assert not (here / "runs").exists()
