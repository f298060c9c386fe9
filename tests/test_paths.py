"""Names, paths, and what is printed: whatever is printed is true, and can be pasted."""

import errno
import io
import json
import os
import shlex
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import evaluate
import train
from bench import bench_learning
from common.errors import ConfigError, Stopped, key_value
from configs.compose import evaluate_config, parse, quoted, train_config
from configs.files import read_run
from configs.sweep import expand, read_sweep
from runtime import session
from runtime.console import number
from runtime.curves import read_scalars
from runtime.evaluation import Evaluator
from runtime.launch.door import enter
from runtime.launch.signals import Stop
from runtime.launch.sweep import sweep
from runtime.logger import Logger
from storage import rundir
from tools import compare, export, reproduce
from tools.shared import new_folder

start, play = partial(enter, "train", train.run), partial(enter, "evaluate", evaluate.run)
TINY = ["env.id=tests.helpers:Counting-v0", "env.kwargs.show_episode=false",
        "env.kwargs.ends=truncated", "env.kwargs.reward=1e-5",
        "env.num_envs=2", "agent.n_steps=4", "agent.hidden=[4]", "total_steps=16",
        "eval.episodes=1"]  # fmt: skip
MODULE = "env.id=tests.helpers:Counting-v0"
NAMES = [
    *("date=2026-01-02", "lr=0.1,seed=2", "a,b", "it's", 'a "b" c', "a  b", "[x] (1) {y}", "é 漢"),
    *(
        "1st",
        "1e5",
        "range(3)",
        "a;b&c",
        "#a",
        "C:\\runs\\a",
        "=",
        "/a/[b]/c",
        '"',
        "a\\,b",
        "^!<>",
    ),
]


class StopAfter(Stop):
    """A signal comes at the given look for one."""

    def __init__(self, looks):
        super().__init__()
        self.left = looks

    def check(self):
        self.left -= 1
        if self.left == 0:
            raise Stopped("stopped: by a test; go on", 75)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, in which everything happens in one second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda form, *_: "20260102-030405")
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "run"
    assert start([*TINY, f"run_dir={path}"]) == 0
    return path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# names of the present second


def rows(text):
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines[1:]]


def ended(job, value):
    """In place of a process: a run that goes where `train.py` would, and reaches a return."""
    path = session.begin(train_config(job))
    rundir.write_json(path / "result.json", {"return_mean": value, "steps": 9,
                                             "steps_per_second": 1.0})  # fmt: skip
    return 0


def test_sweeps_of_one_second_have_folders_and_tables_of_their_own(here, monkeypatch, capsys):
    """The second begins while the first is at its first job."""
    value = [1.0]

    def call(job, due):
        if value[0] == 1.0:
            value[0] = 2.0
            assert sweep(["-m", "seed=3,4"]) == 0
            value[0] = 1.5
        return ended(job, value[0])

    monkeypatch.setattr("runtime.launch.sweep.call", call)
    assert sweep(["-m", "seed=1,2"]) == 0
    said = capsys.readouterr().out
    second, first = said.split("run directories: ")[1:]
    assert second.startswith("runs/sweeps/20260102-030405-2/0 ")
    assert first.startswith("runs/sweeps/20260102-030405/0 ")
    assert [row[3] for row in rows(said) if len(row) > 3] == ["2.0", "2.0", "return", "1.5", "1.5"]
    assert len(list(Path("runs/sweeps").iterdir())) == 2


def test_a_table_is_read_from_where_its_jobs_went(here, monkeypatch, capsys):
    def call(job, due):
        if not Path("out/0").exists():  # another run takes the name just now
            Path("out/0").mkdir()
            rundir.write_json(Path("out/0/result.json"), {"return_mean": 9.0})
        return ended(job, 1.0)

    monkeypatch.setattr("runtime.launch.sweep.call", call)
    assert sweep(["-m", "seed=1,2", "run_dir=out"]) == 0
    said = capsys.readouterr()
    assert [row[3] for row in rows(said.out)] == ["1.0", "1.0"]
    assert "but that of job 0, which was taken: out/0-2" in said.out
    assert "this run is written to out/0-2" in said.err
    assert not rundir.existing("out/0.went")


def test_a_second_sweep_does_not_write_into_the_folder_of_a_living_one(here, monkeypatch, capsys):
    codes = []

    def call(job, due):
        if not codes:
            codes.append(0)
            codes.append(sweep(["-m", "seed=1,2", "run_dir=out", "resume=auto"]))
        return ended(job, 1.0)

    monkeypatch.setattr("runtime.launch.sweep.call", call)
    assert sweep(["-m", "seed=1", "run_dir=out"]) == 0
    assert codes == [0, 4]
    said = capsys.readouterr()
    assert said.err.startswith("error: out: is in use by process ")
    assert not Path("out/lock").exists()


def test_whatever_is_named_by_the_second_claims_its_folder_at_once(here, monkeypatch, capsys):
    """Twice each, and nothing is in the first folder when the second is made."""
    monkeypatch.setattr(compare.comparison, "find", lambda paths, tag: [])
    monkeypatch.setattr(compare, "draw", lambda *_: None)
    monkeypatch.setattr(compare, "report", lambda *_: "")
    for door, folder in (
        (lambda: new_folder("", "runs/verify"), "verify"),
        (lambda: new_folder("", "runs/bench"), "bench"),
        (lambda: compare.compare(["x"]), "comparisons"),
    ):
        door()
        door()
        made = sorted(Path("runs", folder).iterdir())
        assert [path.name for path in made] == ["20260102-030405", "20260102-030405-2"]
    went = []
    monkeypatch.setattr(bench_learning, "learn", lambda *given: went.append(given[3]))
    for name in ("draw", "line"):
        monkeypatch.setattr(bench_learning, name, lambda *_: "")
    for _ in range(2):
        assert bench_learning.main(["only=cartpole-a2c", "seeds=0"]) == 0
    assert len(went) == len(set(went))


def test_repetitions_of_one_second_are_two(here, made, monkeypatch):
    went, real = [], subprocess.run

    def run(command, **options):
        if command[0] == "git":
            return real(command, **options)
        (run_dir,) = (parse(word)[2] for word in command if word.startswith("run_dir="))
        went.append(run_dir)
        assert os.listdir(run_dir) == []  # it is there, so that no other takes it
        if len(went) == 1:
            reproduce.main([f"run={made}", MODULE])
        return subprocess.CompletedProcess(command, 2)

    monkeypatch.setattr(subprocess, "run", run)
    assert reproduce.main([f"run={made}", MODULE]) == 2
    assert len(set(went)) == 2
    assert not any(map(os.path.exists, went))  # nothing has begun there


# paths


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_taken_as_it_is_and_printed_so_that_it_can_be_pasted(name):
    (word,) = shlex.split(key_value("resume", name))
    command = str(Stopped("stopped: x; y", 75).at(name, "m:A-v0")).partition("continue with ")[2]
    pasted = shlex.split(command)
    assert pasted[:3] == ["python", "train.py", word]
    assert parse(word)[2] == name
    assert train_config([f"run_dir={quoted(name)}", *TINY]).run_dir == name
    for key in ("run", "run_dir", "resume", "policy", "out"):
        if name not in ('"', "a\\,b"):  # in which the grammar reads marks of its own
            assert parse(f"{key}={name}")[2] == name


@pytest.mark.skipif(os.name != "posix", reason="its shell")
def test_a_shell_reads_every_printed_word_as_it_was():
    names = [*NAMES, "$HOME `x` $(y)", "a\tb", "\\", "!x"]
    words = " ".join(key_value("run", name) for name in names if name.isprintable())
    done = subprocess.run(["sh", "-c", f"printf '%s\\n' {words}"], capture_output=True, check=True)
    read = [parse(word)[2] for word in done.stdout.decode().splitlines()]
    assert read == [name for name in names if name.isprintable()]


def test_what_reads_as_something_else_says_how_to_quote_it():
    for text in ("[a]", "{a: 1}", "true"):
        with pytest.raises(ConfigError) as caught:
            train_config([f"run_dir={text}"])
        (word,) = shlex.split(str(caught.value).partition("quote it, ")[2])
        assert train_config([word]).run_dir == text
    for text in ("", '""', '"a\nb"', '"a\0b"', '" "'):
        with pytest.raises(ConfigError, match=r"^run_dir: "):
            train_config([f"run_dir={text}"])


@pytest.mark.parametrize(
    "name",
    [
        'date=2026-01-02, it\'s [1] {"é"}/a  b',
        "/".join([f"{'x' * 58}; {'y' * 60}"] * 3),
        os.fsdecode(b"lat\xe9in"),
    ],
)
def test_a_run_anywhere_is_stopped_resumed_and_evaluated(name, here, capsys):
    """By the very command that is printed, however long it is."""
    stopped = partial(enter, "train", partial(train.run, stop=StopAfter(2)))
    assert stopped([*TINY, f"run_dir={quoted(name)}"]) == 75
    line = capsys.readouterr().err.splitlines()[-1]
    command = line.partition("the run is saved; continue with ")[2]
    if name.isprintable():
        arguments = shlex.split(command)[2:]
    else:  # `$'...'` is no matter of shlex
        arguments = [f"resume={quoted(name)}", MODULE]
        assert command == f"python train.py $'resume=\"lat\\351in\"' {MODULE}"
    assert start([*arguments, "total_steps=24"]) == 0
    *_, board, evaluation = capsys.readouterr().out.splitlines()
    if name.isprintable():
        assert evaluate_config(shlex.split(evaluation)[2:]).run == name
        assert shlex.split(board)[2] == str(Path(name).parent)
    assert json.loads((Path(name) / "result.json").read_text())["steps"] == 24
    assert read_scalars(Path(name), "eval/return_mean")[-1][0] == 24
    assert play([f"run={quoted(name)}", MODULE, "episodes=1"]) == 0
    assert (Path(name) / "evaluation.json").exists()
    assert read_run(Path(name)).run_dir == name


def test_a_run_in_a_folder_that_has_no_suffix_is_refused(here, capsys):
    for name in (".", "..", "/"):
        assert start([*TINY, f"run_dir={name}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: run_dir: {name} is there already; ")
    assert os.listdir() == []
    assert start([*TINY, "run_dir=.", "resume=auto"]) == 0
    assert Path("result.json").exists()


def test_a_folder_that_cannot_be_made_is_one_exit_code(here, monkeypatch, capsys):
    Path("file").write_text("")
    doors = [start, lambda given: sweep(["-m", *given, "seed=1,2"])]
    for door in doors:
        assert door([*TINY, "run_dir=file/run"]) == 2
        assert capsys.readouterr().err.startswith("error: run_dir: file/run")
    assert os.listdir() == ["file"]
    Path("mine").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "mine"
                        and access(path, mode))  # fmt: skip
    for door in doors:
        assert door([*TINY, "run_dir=mine", "resume=auto"]) == 2
        assert "mine cannot be written; choose another" in capsys.readouterr().err
    assert os.listdir("mine") == []


def test_a_sweep_lies_in_one_folder_whose_name_may_have_commas():
    for text in ("lr=0.1,seed=2", '"a,b"', "'a,b'", "it's"):
        read = read_sweep(["-m", "seed=1,2", f"run_dir={text}"])
        assert read.folder == Path(text if text[-1] in "2s" else "a,b")
        assert [train_config(job).run_dir for job in read.jobs] == [
            str(read.folder / number) for number in ("0", "1")
        ]
    assert read_sweep(["-m", "seed=1", "hydra.sweep.dir=a=b,c"]).folder == Path("a=b,c")
    with pytest.raises(ConfigError, match="give one, in quotes if it has a comma"):
        read_sweep(["-m", "seed=1,2", "run_dir=a,b"])


# a run that is not to be written


def forbid(monkeypatch, folder):
    """As a mount that may only be read."""
    access, write = os.access, rundir.write_synced

    def written(path, content):
        if folder in path.parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        write(path, content)

    monkeypatch.setattr(rundir, "write_synced", written)

    def accessible(path, mode):
        return folder not in (Path(path), *Path(path).parents) and access(path, mode)

    monkeypatch.setattr(os, "access", accessible)


def test_a_run_of_a_colleague_is_evaluated_and_its_summary_goes_elsewhere(
    here, made, monkeypatch, capsys
):
    forbid(monkeypatch, made)
    before = contents(made)
    assert play([f"run={made}", MODULE, "episodes=2"]) == 0
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith(f"warning: {made}/evaluation.json: cannot be written, Read-only")
    assert line.endswith("; give out=FOLDER to keep the summary")
    assert "return 3e-05" in said.out
    assert play([f"run={made}", MODULE, "episodes=2", "out=mine/deep"]) == 0
    assert json.loads(Path("mine/deep/evaluation.json").read_text())["episodes"] == 2
    assert capsys.readouterr().err == ""
    assert contents(made) == before
    Path("file").write_text("")
    assert play([f"run={made}", "out=none"]) == 2  # for its environment is not repeated
    assert not Path("none").exists()
    capsys.readouterr()
    assert play([f"run={made}", MODULE, "out=file/x"]) == 2
    assert capsys.readouterr().err.startswith("error: out: file/x cannot be made, Not a directory;")
    with pytest.raises(ConfigError, match=r"^out: "):
        evaluate_config(["run=x", "out="])


def test_a_film_of_a_run_of_a_colleague_goes_elsewhere(here, made, monkeypatch, capsys):
    forbid(monkeypatch, made)
    monkeypatch.setattr(Path, "mkdir", mkdir := forbidden_mkdir(made))
    assert play([f"run={made}", MODULE, "video=true"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (f"error: video: {made}/video cannot be used, Read-only file system; give "
                    "out=FOLDER")  # fmt: skip
    assert mkdir.refused
    asked = []

    def camera(env, folder, name):
        asked.append(folder)
        raise ConfigError("video: enough; stop")

    monkeypatch.setattr("runtime.deploy.film.recorder", camera)
    monkeypatch.setattr(Evaluator, "filming", lambda judge: judge)
    assert play([f"run={made}", MODULE, "video=true", "out=mine", "episodes=1"]) == 2
    assert asked == [Path("mine/video")]


def forbidden_mkdir(folder):
    mkdir = Path.mkdir

    def refuse(self, *given, **options):
        if folder in self.parents:
            refuse.refused = True
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        mkdir(self, *given, **options)

    return refuse


def test_a_file_of_a_run_of_a_colleague_goes_elsewhere(here, made, monkeypatch, capsys):
    forbid(monkeypatch, made)
    before = contents(made)
    given = [f"run={made}", MODULE, "format=torch", "episodes=1"]
    assert export.main(given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: out: {made} cannot be written; give out=FILE.pt2"
    assert export.main([*given, "out=my files/a.pt2"]) == 0
    assert sorted(os.listdir("my files")) == ["a.pt2", "a.pt2.json"]
    assert contents(made) == before
    monkeypatch.setattr("runtime.deploy.exported.write", full)
    assert export.main([*given, "out=b.pt2"]) == 4
    assert "b.pt2: cannot be written, No space left on device; free the disk\n" in (
        capsys.readouterr().err
    )


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# logs


@pytest.mark.parametrize("purge_step", [None, 5])
@pytest.mark.parametrize("where", ["event_file", "RecordWriter.write"])
def test_a_log_that_cannot_be_begun_is_one_warning(
    where, purge_step, tmp_path, monkeypatch, capsys
):
    module = (
        "runtime.logger." if where == "event_file" else "tensorboard.summary.writer.record_writer."
    )
    monkeypatch.setattr(module + where, full)
    logger = Logger(tmp_path, purge_step)
    for step in range(50):
        logger.write(step, {"a": 1.0})
    logger.text("a", "b")
    logger.close()
    said = capsys.readouterr().err
    assert said.count("warning: logging stopped") == said.count("\n") == 1, said


# numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0"), (500, "500.0"), (-148.374, "-148.37"), (9.5, "9.5"), (9.5e-5, "9.5e-05"),
     (0.0123456, "0.012346"), (12345.678, "12345.7"), (1e20 / 3, "3.3333e+19"), (1e6, "1e+06"),
     (-1.23456e-7, "-1.2346e-07"), (0.0099999999, "0.01"), (99.99999, "100.0"),
     (float("nan"), "nan"), (float("-inf"), "-inf")],
)  # fmt: skip
def test_numbers_have_five_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("reward", "shown"), [(1e-5, "3e-05"), (1e20, "3e+20"), (1.0, "3.0")])
def test_returns_are_told_in_whatever_unit_they_are(reward, shown, here, monkeypatch, capsys):
    monkeypatch.setattr("runtime.launch.sweep.call", lambda job, due: start(job))
    given = [*TINY, f"env.kwargs.reward={reward}", "agent.reward_scale=1e-6"]
    assert sweep(["-m", *given, "run_dir=out"]) == 0
    said = capsys.readouterr().out
    assert f"final evaluation: return {shown}, deviation 0.0, over 1 episode" in said
    assert rows(said)[0][3] == shown
    assert play(["run=out/0", MODULE, "episodes=2"]) == 0
    assert f"\nreturn {shown}, standard error 0.0, deviation 0.0, from {shown} to {shown}\n" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("name", ["runs/trail ", " lead", "a/ b ", " a,b "])
def test_a_folder_whose_name_ends_with_a_space_is_that_folder(name):
    for key in ("run", "run_dir", "resume", "policy", "out"):
        assert parse(f"{key}={name}")[2] == name
    assert train_config([f"run_dir={name}", *TINY]).run_dir == name


@pytest.mark.parametrize("env_id", ["größe:Größe-v0", "a.größe:ns/Größe-v0", "été-v1"])
def test_an_id_is_taken_with_any_letters_and_printed_so(env_id):
    command = str(Stopped("stopped: x; y", 75).at("run", f"m:{env_id}"))
    assert train_config([shlex.split(command)[-1], "agent=a2c"]).env.id == f"m:{env_id}"
    assert evaluate_config(["run=x", f"env.id={env_id}"]).env.id == env_id
    assert [parse(argument)[2] for argument in expand(f"env.id={env_id}")] == [env_id]


@pytest.mark.skipif(os.name != "posix", reason="its shell")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_letters_that_the_output_has_not_are_printed_so_that_they_can_be_pasted(
    encoding, monkeypatch
):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    word = key_value("run", "läufe 値/'x'")
    assert word.isascii()
    said = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert parse(said.stdout.decode())[2] == "läufe 値/'x'"
