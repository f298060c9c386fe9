"""A run is repeated to the last bit, and where it is not, the step is named."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from common.errors import Stopped
from configs.compose import train_config
from runtime.launch.door import enter
from runtime.launch.signals import Stop
from storage import provenance, rundir
from tests.test_meeting import rewritten
from tools import reproduce
from tools.reproduce import comparable, differing, verdict
from train import run as train

SHORT = ["total_steps=1920", "eval.episodes=1", "agent.hidden=[8]", "log.every=640"]
start = partial(enter, "train", train)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "run"
    assert start([*SHORT, f"run_dir={path}"]) == 0
    return path


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture
def here(monkeypatch):
    """Repeats in this process, where a new one is no matter: the test after this has one."""
    begin = subprocess.run

    def call(command, **options):
        if command[:2] != [sys.executable, str(reproduce.TRAIN)]:
            return begin(command, **options)
        return subprocess.CompletedProcess(command, start(command[2:]))

    monkeypatch.setattr(subprocess, "run", call)


def test_a_run_is_repeated_to_the_last_bit(run, capsys):
    assert reproduce.main(["run_dir=again"]) == 2
    assert capsys.readouterr().err == "error: run: is missing; give a run directory\n"
    assert reproduce.main([f"run={run}", "run_dir=again"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("equal: ")
    assert last.endswith("logged numbers, and the state at the end, to the last bit")
    assert int(last.split()[1]) > 50


def test_a_change_is_named_by_its_first_step(run, here, capsys):
    text = (run / "config.yaml").read_text()
    assert "lr: 0.0015\n" in text
    (run / "config.yaml").write_text(text.replace("lr: 0.0015\n", "lr: 0.001501\n"))
    rewritten(run, lambda state: state["spaces"].update(action="Discrete(2, start=7)"))
    assert reproduce.main([f"run={run}"]) == 1
    out = capsys.readouterr().out.splitlines()
    (line,) = [x for x in out if x.startswith("different")]
    told = "note: the environment's action space was Discrete(2, start=7), is Discrete(2)"
    assert out[-1] == told
    (again,) = Path("runs").glob("*/*/*/*")  # apart from where runs to compare lie
    assert again.parent == Path("runs/reproduced/CartPole-v1/a2c")
    # Weights differ from the first update on, and so what is logged with it.
    assert line == "different from step 640 on, equal up to 384:"


def test_what_may_explain_a_difference_is_told(run):
    made = rundir.read_result(run)
    assert made["versions"]["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert not any("instructions" in line for line in reproduce.surroundings(run, made))
    made["versions"] |= {"instructions": "OLDER", "torch": "1", "mujoco": "1"}
    told = reproduce.surroundings(run, made)
    for name, was in (("instructions", "OLDER"), ("torch", "1"), ("mujoco", "1")):
        assert any(line.startswith(f"{name} was {was}, is ") for line in told)


class StopAfter(Stop):
    """A signal comes at the given look for one."""

    def __init__(self, looks):
        super().__init__()
        self.left = looks

    def check(self):
        self.left -= 1
        if self.left == 0:
            raise Stopped("stopped: by a test; go on", 75)


def test_a_run_that_was_stopped_is_compared_as_far_as_it_went(here, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stopped = partial(train, stop=StopAfter(70))  # of 15 steps of 128 environments
    assert enter("train", stopped, [*SHORT, "log.every=128", "run_dir=run"]) == 75
    monkeypatch.setattr(provenance, "revision", lambda: "0" * 40)  # committed since
    assert reproduce.main(["run=run", "run_dir=again"]) == 0
    said = capsys.readouterr().out
    assert "note: the run did not reach its end" in said
    assert f"is {'0' * 40}" in said
    assert said.splitlines()[-1].endswith("logged numbers")
    assert int(said.splitlines()[-1].split()[1]) > 5


def test_a_run_without_a_log_is_not_called_equal(run, capsys):
    for events in run.glob("events.out.tfevents.*"):
        events.unlink()
    (run / "result.json").unlink()
    assert reproduce.main([f"run={run}", "run_dir=again"]) == 2
    assert capsys.readouterr().err.startswith("error: run: ")


def test_a_run_that_was_made_longer_is_repeated(here, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    constant = "agent.lr_schedule=constant"  # a schedule would have kept its first horizon
    uneven = "log.every=500"  # of which the first end is no multiple
    assert start([*SHORT, constant, uneven, "run_dir=run"]) == 0
    assert start(["resume=run", "total_steps=2560"]) == 0
    assert reproduce.main(["run=run", "run_dir=again"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("equal: ")


@pytest.fixture
def rows(monkeypatch):
    """The rows of a run with these curves."""
    monkeypatch.setattr(reproduce, "read_curves", lambda curves: curves)
    return reproduce.rows


def test_a_row_that_is_missing_at_the_end_is_a_difference(rows):
    curve = [(1, 1.0), (2, 2.0), (3, 3.0)]
    was = rows({"loss/x": curve})
    assert comparable(was, rows({"loss/x": curve[:2]}), True)[0] == was
    now = rows({"loss/x": [(1, 1.0), (3, 2.5), (4, 4.0)]})
    one, other = comparable(rows({"loss/x": [*curve, (4, 4.0)]}), now, True)
    assert one == other == rows({"loss/x": [(1, 1.0), (4, 4.0)]})


def test_where_two_logs_part(rows):
    was = {"a": [(1, 1.0), (2, 2.0), (3, 3.0)], "b": [(2, 5.0)], "time/x": [(1, 1.0)]}

    def difference(**others):
        return differing(rows(was), rows({**was, **others}))

    assert difference(**{"time/x": [(1, 2.0)]}) == []
    assert difference(a=[(1, 1.0), (2, 2.5), (3, 3.5)]) == [(2, "a"), (3, "a")]
    assert difference(b=[]) == [(2, "b")]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ([(1, 1.5), (2, 2.5)], "different from step 1 on:\n  a was 1.0, is 1.5\n"),
        ([(1, 1.0), (2, 2.5)], "different from step 2 on, equal up to 1:\n  a was 2.0, is 2.5\n"),
        ([(1, 1.0)], "different from step 2 on, equal up to 1:\n  a was 2.0, is None\n"),
    ],
)
def test_the_first_step_that_differs_is_printed(other, said, monkeypatch, tmp_path, capsys):
    curves = {"one": {"a": [(1, 1.0), (2, 2.0)]}, "two": {"a": other}}
    monkeypatch.setattr(reproduce, "read_curves", lambda path: curves[path.name])
    for name in curves:
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text('{"steps": 2}')
    assert verdict(tmp_path / "one", tmp_path / "two") == 1
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("setting", "after"),
    [
        (("diff.noprefix", "true"), b"one = 2\n"),
        (("diff.mnemonicPrefix", "true"), b"one = 2\r\ntwo = 2\r\n"),
        (("color.ui", "always"), b"name = '\xe9'\n"),
    ],
)
def test_code_that_is_not_committed_is_kept_with_the_run(setting, after, tmp_path, monkeypatch):
    root, path = tmp_path / "checkout", tmp_path / "run"
    root.mkdir()
    path.mkdir()

    def git(*arguments):
        name = ["-c", "user.name=n", "-c", "user.email=n@n"]
        subprocess.run(["git", *name, *arguments], cwd=root, check=True, capture_output=True)

    git("init")
    (root / "code.py").write_text("one = 1\n")
    git("add", ".")
    git("commit", "-m", "one")
    monkeypatch.setattr(provenance, "ROOT", root)
    provenance.keep_patch(path)
    assert not list(path.iterdir())
    git("config", *setting)
    (root / "code.py").write_bytes(after)
    (root / "agents").mkdir()
    for fresh in ("mine.py", "agents/mine é.py", "notes.txt"):
        (root / fresh).write_bytes(after)
    provenance.keep_patch(path)
    git("checkout", "code.py")
    git("clean", "-fdq")
    git("apply", str(path / provenance.PATCH))
    assert {file.relative_to(root).as_posix() for file in root.rglob("*.*") if file.is_file()
            and ".git" not in file.parts} == {"code.py", "mine.py", "agents/mine é.py"}  # fmt: skip
    for file in ("code.py", "mine.py", "agents/mine é.py"):
        assert (root / file).read_bytes() == after
    monkeypatch.setattr(provenance, "ROOT", tmp_path)  # outside git
    assert (provenance.revision(), provenance.uncommitted()) == ("none", b"")


@pytest.mark.parametrize(
    ("arguments", "word"), [(["run=nowhere"], "run"), (["x=1"], "x"), (["run_dir=a"], "run")]
)
def test_bad_input_is_one_line(arguments, word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert reproduce.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {word}: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["env=pendulum", "agent=sac", "agent.alpha=0.1"],
        ["+experiment=textbook_a2c", "seed=5"],
        ["env=lunar_lander_continuous", "agent=ppo", "threads=2"],
        ["env.id=a:B-v0", "env.kwargs.text='x, y=[1]'", "env.kwargs.deep={c:1.5}", "agent=a2c"],
        [
            r"run_dir='C:\\Users\\josé (1)\\runs'",
            r"env.kwargs.texts=['a\\b','é, \"c\"']",
            "env.id=a:B-v0",
        ],
        ["env.id=a:B-v0", "env.kwargs.parts=[{a:1,b:['x y']}]", "env.kwargs.none={}"],
    ],
)
def test_a_command_line_composes_to_the_configuration_of_the_run(arguments):
    config = train_config(["run_dir=somewhere", *arguments])
    assert train_config(reproduce.overrides(config)) == config
