"""Sweeps: what is expanded, what is refused before anything begins, and jobs that fail or stop."""

import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from configs.automatic import processes
from configs.compose import quoted, train_config
from configs.files import to_yaml
from configs.sweep import MANY, read_sweep
from runtime.console import aligned
from runtime.launch.signals import CODES, PASSED_ON, passing_on
from runtime.launch.sweep import STOP, Job, ending, handled, sweep, table
from tests.slurm import stand_in
from tools.compare import main as compare
from tools.compare import parse

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
SHORT = ["total_steps=1280", "eval.episodes=1", "eval.every=1280", "agent.hidden=[8]"]


def test_values_are_expanded_into_jobs_and_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["-m", "seed=range(2)", "agent=a2c,ppo", "agent.hidden=[8],[8,8]", "run_dir=here"]
    read = read_sweep(arguments)
    assert read.folder == Path("here")
    assert len(read.jobs) == 8
    assert read.names[0] == "seed=0 agent=a2c agent.hidden=[8]"
    assert read.jobs[7][:3] == ["seed=1", "agent=ppo", "agent.hidden=[8,8]"]
    assert [job[-1] for job in read.jobs] == [f"run_dir=here/{n}" for n in range(8)]
    assert read_sweep(["-m", "seed=1", "hydra.sweep.dir=there"]).folder == Path("there")
    assert read_sweep(["--multirun", "env.kwargs.text='a,b'", "env.id=A-v0"]).names == [""]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["seed=1,x"], "seed"),
        (["agent=a2c,nope"], "agent"),
        (["agent=a2c,sac", "agent.n_steps=5"], "agent.n_steps"),
        (["seed=range(100000)"], "sweep"),
        (["seed=range(40)", "agent.lr=range(1,2,0.01)"], "sweep"),
        (["seed=interval(0,1)"], "seed"),
        (["seed=range(1"], "seed"),
        (["seed=range(0,3,0)"], "seed"),
        (["seed=range(5,1)"], "seed"),
        (["run_dir=a,b"], "run_dir"),
        (["run_dir=a", "hydra.sweep.dir=b"], "run_dir"),
        (["resume=somewhere", "total_steps=1280,2000"], "resume"),
        (["seed=glob(*)"], "seed"),
        (["hydra/launcher=nope"], "hydra/launcher"),
        (["hydra/launcher=joblib", "hydra.launcher.nope=1"], "hydra.launcher.nope"),
        (["hydra/launcher=joblib", "hydra.launcher.n_job=1"], "hydra.launcher.n_job"),
        (["hydra/launcher=joblib", "hydra.launcher._target_=os.system"], "hydra.launcher._target_"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs={_target_:x}"], "hydra.launcher.n_jobs"),
        (
            ["hydra/launcher=joblib", "hydra.launcher.n_jobs=[{x:{_call_:1}}]"],
            "hydra.launcher.n_jobs",
        ),
        (
            ["hydra/launcher=joblib", "hydra.launcher.n_jobs=${oc.env:HOME}"],
            "hydra.launcher.n_jobs",
        ),
        (["hydra.launcher.n_jobs=1"], "hydra.launcher.n_jobs"),
        (["hydra.run.dir=x"], "hydra.run.dir"),
        (["resume=auto,null", "zzz=1"], "zzz"),
    ],
)
def test_bad_input_is_one_line_before_anything_begins(
    arguments, word, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert sweep(["-m", *arguments]) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith(f"error: {word}: ")
    assert said.out == ""
    assert not list(tmp_path.iterdir())


def test_torchrun_starts_no_sweep(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes() == 1  # as other programs, Slurm's among them, leave it
    monkeypatch.setenv("RANK", "0")
    assert processes() == 2
    assert sweep(["-m", "seed=1,2"]) == 2
    assert capsys.readouterr().err.startswith("error: sweep: torchrun starts one run in several")


def test_a_sweep_takes_no_run_of_another_for_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("out/1").mkdir(parents=True)
    assert sweep(["-m", "seed=1,2", "run_dir=out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: run_dir: out holds runs of a sweep already; ")
    assert [path.name for path in Path("out").iterdir()] == ["1"]
    assert len(read_sweep(["-m", "seed=1,2", "run_dir=out", "resume=auto"]).jobs) == 2


@pytest.mark.parametrize(("launcher", "given"), [("basic", []), ("joblib", []),
                                                 ("submitit_slurm", ["resume=auto"])])  # fmt: skip
def test_only_a_cluster_may_begin_a_job_again(launcher, given):
    (job,) = read_sweep(["-m", "seed=1", "run_dir=out", f"hydra/launcher={launcher}"]).jobs
    assert job == ["seed=1", *given, "run_dir=out/0"]


def command(*arguments):
    return [sys.executable, str(TRAIN), "-m", *SHORT, *arguments]


def rows(text):
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines[1:]]


def test_a_sweep_goes_on_with_no_single_run(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/config.yaml").write_text(to_yaml(train_config(["run_dir=run"])))
    assert sweep(["-m", "resume=run", "total_steps=1280,2000"]) == 2
    assert "give its run_dir and resume=auto" in capsys.readouterr().err


def test_a_mistyped_key_of_a_launcher_is_told_with_the_right_one(capsys):
    assert sweep(["-m", "seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_job=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "did you mean hydra.launcher.n_jobs?" in line
    assert "pip install" not in line


def test_a_launcher_is_checked_where_a_job_is_only_shown(capsys):
    assert sweep(["-m", "seed=1,2", "--cfg", "job", "hydra/launcher=nope"]) == 2
    assert sweep(["-m", "seed=1,2", "--cfg", "job", "hydra/launcher=basic"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("error: hydra/launcher: 'nope' is not one of basic, joblib, ")
    assert said.out.startswith("# of the first job\n")


def test_many_jobs_are_told_of_before_they_are_checked(capsys):
    assert len(read_sweep(["-m", f"seed=range({MANY + 1})"]).jobs) == MANY + 1
    assert capsys.readouterr().out == f"checking {MANY + 1} jobs\n"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
def test_a_job_that_is_killed_is_told_so(monkeypatch, tmp_path, capsys):
    script = tmp_path / "train.py"
    script.write_text("import os, sys\nif 'seed=1' in sys.argv: os.kill(os.getpid(), 9)\n")
    monkeypatch.setattr("runtime.launch.sweep.TRAIN", script)
    monkeypatch.chdir(tmp_path)
    assert sweep(["-m", "seed=1,2", "run_dir=out"]) == 137
    said = capsys.readouterr().out
    assert [row[2] for row in rows(said)] == ["137", "0"]
    assert "job 0: was killed by SIGKILL" in said
    assert "run directories: out/0 to out/1, but none of job 0\n" in said


def test_a_signal_decides_the_exit_code_also_after_a_job_that_failed(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    codes = iter([3, 75])
    monkeypatch.setattr("runtime.launch.sweep.call", lambda job, due: next(codes))
    assert sweep(["-m", "seed=1,2,3", "run_dir=out"]) == 75
    said = capsys.readouterr().out
    assert [row[2] for row in rows(said)] == ["3", "75", "not run"]
    assert "\nno run has begun yet, so there is no run directory\n" in said
    assert not Path("out").exists()
    assert said.count("resume=auto continues the sweep") == 1


def test_a_table_of_jobs_takes_any_value_and_names_few_that_did_not_begin(tmp_path):
    shown = aligned(table(["env.kwargs.x='a|b'"] * 9, [0, *[None] * 8], tmp_path, "resume"))
    assert "| 0   | env.kwargs.x='a\\|b' | 0 " in shown
    assert shown.endswith("but none of jobs 1, 2, 3, 4, 5 and 3 more")


def test_a_failed_job_takes_no_other_down(tmp_path, monkeypatch, capfd):
    # Job 0 finds out only when it is built that its environment gives it no update.
    arguments = ["env.num_envs=1280,8", "agent.n_steps=5", "run_dir=out"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", command(*arguments)[1:])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(TRAIN), run_name="__main__")
    assert ended.value.code == 2
    said = capfd.readouterr()
    table = rows(said.out)
    assert [row[2] for row in table] == ["2", "0"]
    assert [row[1] for row in table] == [f"env.num_envs={n}" for n in (1280, 8)]
    assert table[1][4] == "1,280"
    typed = Path("out/1/commands.txt").read_text().splitlines()[1]
    assert typed.endswith(" run_dir=out/1")  # without quotes that nothing needs
    (line,) = [x for x in said.err.splitlines() if x.startswith("error")]
    assert "ends before the first update" in line
    assert compare([str(tmp_path / "out"), f"out={tmp_path / 'compared'}"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
@pytest.mark.parametrize("name", ["out", 'José\'s \\ "runs"'])
def test_launchers_run_the_jobs_and_keep_what_they_say(name, launcher, tmp_path):
    special = (
        ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else ["hydra.launcher.timeout_min=5"]
    )
    where = [f"hydra.sweep.dir={quoted(name)}", f"hydra/launcher={launcher}", *special]
    arguments = command("env.num_envs=8,1280", "agent.n_steps=5", *where)
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert [row[2] for row in rows(done.stdout)] == ["0", "2"]
    assert "job 1: error: total_steps: 1280 ends before the first update" in done.stdout
    assert "final evaluation" in (tmp_path / name / "0.log").read_text()
    assert (tmp_path / name / "0/result.json").exists()


LONG = ["env=pendulum", "agent=sac", "agent.hidden=[8]", "agent.batch_size=8", "total_steps=3000",
        "eval.episodes=1", "eval.every=3000", "env.num_envs=1"]  # fmt: skip


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize("early", ["before it is made", "before it can take it"])
def test_a_signal_at_the_start_of_a_job_is_not_lost(early, tmp_path, monkeypatch):
    make = subprocess.Popen

    def made(command, **options):
        if early == "before it is made":
            os.kill(os.getpid(), signal.SIGTERM)
        process = make([sys.executable, "-c", "import time; time.sleep(60)"], **options)
        if early == "before it can take it":
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return process

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", made)
    began = time.monotonic()
    assert sweep(["-m", "seed=1", "run_dir=out"]) == 75
    assert time.monotonic() - began < 30
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


class Process:
    """In place of a process: signals come while it runs, then it ends."""

    def __init__(self, code, *signals):
        self.code, self.signals, self.sent, self.env = code, signals, [], {}

    def __call__(self, command, env, **_):
        self.env = env
        return self

    def wait(self, timeout):
        if self.signals:
            for number in self.signals:
                os.kill(os.getpid(), number)
            self.signals = ()
            raise subprocess.TimeoutExpired("train.py", timeout)
        return self.code

    def send_signal(self, number):
        self.sent.append(number)


def test_a_signal_ends_a_sweep_whose_job_ends_well_none_the_less(tmp_path, monkeypatch, capsys):
    job = Process(0, signal.SIGTERM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", job)
    assert sweep(["-m", "seed=1,2", "run_dir=out"]) == 75
    assert [row[2] for row in rows(capsys.readouterr().out)] == ["0", "not run"]
    assert PASSED_ON in job.env  # so that what a terminal sends to both is no second signal


def test_a_signal_ends_a_sweep_of_joblib_in_this_process_too(tmp_path, monkeypatch, capsys):
    pytest.importorskip("joblib")
    job = Process(75, signal.SIGINT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", job)
    alone = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"]
    assert sweep(["-m", "seed=1,2", "run_dir=out", *alone]) == 130
    assert [row[2] for row in rows(capsys.readouterr().out)] == ["75", "not run"]
    assert job.sent == [signal.SIGTERM]


def test_a_sweep_of_one_job_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", Process(0))
    assert sweep(["-m", "seed=1", "run_dir=out"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 job; out\n\njob 0 (1 of 1)\n")
    after = "\nnext:\n  python tools/compare.py out\n  tensorboard --logdir out\n"
    assert said.endswith(f"run directories: out/0{after}")
    assert sweep(["-m", "seed=1,2", "run_dir=it's"]) == 0  # and of two how they are compared
    *_, comparison, board = capsys.readouterr().out.splitlines()
    paths, _ = parse(shlex.split(comparison)[2:])
    assert (paths, shlex.split(board)) == (["it's"], ["tensorboard", "--logdir", "it's"])


@pytest.mark.skipif(not hasattr(signal, "SIGUSR2"), reason="as a cluster sends it")
@pytest.mark.parametrize(
    "came", [(signal.SIGTERM, "SIGUSR2"), ("SIGUSR2", signal.SIGTERM), ("SIGUSR2", "SIGUSR2")]
)
def test_a_job_of_a_cluster_is_told_once_and_its_warning_passed_on(came, tmp_path, monkeypatch):
    numbers = [signal.SIGUSR2 if number == "SIGUSR2" else number for number in came]
    job, warned = Process(75, *numbers), []
    monkeypatch.setattr(subprocess, "Popen", job)
    monkeypatch.setattr("runtime.launch.sweep.AFTER", 0.0)
    with handled(["SIGUSR2"], lambda number, frame: warned.append(number)):  # submitit's
        assert Job([[]], tmp_path)(0) == 75
    assert job.sent == [signal.SIGTERM]
    assert warned == [signal.SIGUSR2]


@pytest.mark.parametrize("begun", [None, "0.log", "0/config.yaml"])
def test_a_launcher_that_cannot_begin_is_an_error_of_what_was_asked(
    begun, tmp_path, monkeypatch, capsys
):
    def refused(chosen):
        if begun:
            (chosen.folder / begun).parent.mkdir(exist_ok=True)
            (chosen.folder / begun).write_text("")
        raise RuntimeError("no cluster\nhere")

    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    if not begun:  # of a sweep before
        Path("out/1.log").write_text("")
    monkeypatch.setattr("runtime.launch.sweep.launch", refused)
    code = sweep(["-m", "seed=1,2", "run_dir=out", "hydra/launcher=joblib"])
    said = capsys.readouterr()
    if begun:
        assert (code, len(rows(said.out))) == (1, 2)
        assert said.err == "warning: no cluster\n"
    else:
        assert (code, rows(said.out)) == (2, [])
        assert said.err.startswith("error: hydra/launcher: no cluster; ")
        assert Path("out/1.log").exists()


def test_a_launcher_that_is_interrupted_says_what_it_knows(tmp_path, monkeypatch, capsys):
    def interrupted(chosen):
        (chosen.folder / "0").mkdir()
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("runtime.launch.sweep.launch", interrupted)
    assert sweep(["-m", "seed=1,2", "run_dir=out", "hydra/launcher=joblib"]) == 130
    said = capsys.readouterr()
    assert [row[2] for row in rows(said.out)] == ["not ended", "not run"]
    assert "resume=auto continues the sweep" in said.out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_tells_the_jobs_of_a_launcher_here_to_end(
    number, code, tmp_path, monkeypatch, capsys
):
    """The first job is told, the second does not begin; on a cluster none would be told."""
    process = [sys.executable, "-c", "import time; time.sleep(60)"]
    make = subprocess.Popen

    def launch(chosen):
        threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
        began = time.monotonic()
        job = Job(chosen.jobs, chosen.folder, passing_on())
        codes = [job(number) for number in (0, 1)]
        assert codes == [75, 75]
        assert time.monotonic() - began < 30

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("runtime.launch.sweep.launch", launch)
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: make(process, **options))
    before = [signal.getsignal(other) for other in (signal.SIGTERM, signal.SIGINT)]
    assert sweep(["-m", "seed=1,2", "run_dir=out", "hydra/launcher=joblib"]) == code
    assert [row[2] for row in rows(capsys.readouterr().out)] == ["75", "not run"]
    assert [signal.getsignal(other) for other in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_second_signal_waits_for_no_job(tmp_path):
    came: list[int] = []
    with ending(tmp_path, came, elsewhere=False):
        signal.raise_signal(signal.SIGTERM)
        assert (tmp_path / STOP).exists()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert came == [signal.SIGTERM] * 2
    with ending(tmp_path, [], elsewhere=True), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="nohup")
def test_a_signal_that_is_ignored_stays_so(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending(tmp_path, came := [], elsewhere=False):
            signal.raise_signal(signal.SIGHUP)
        assert came == []
        assert not (tmp_path / STOP).exists()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_jobs_of_joblib(number, tmp_path):
    """And to the whole group, as a terminal sends it, where there are such."""
    special = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "threads=1"]
    arguments = [sys.executable, str(TRAIN), "-m", *LONG, "seed=1,2,3", "run_dir=out",
                 "resume=auto", *special]  # fmt: skip
    first = subprocess.Popen(
        arguments, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    for job in (0, 1):
        wait_for((tmp_path / f"out/{job}/checkpoints/step-000000000000").exists)
    time.sleep(2)
    if number == signal.SIGINT:
        os.killpg(first.pid, number)
    else:
        first.send_signal(number)
    said, _ = first.communicate(timeout=60)
    code = "130" if number == signal.SIGINT else "75"
    assert first.returncode == int(code)
    codes = [row[2] for row in rows(said)]  # a job may hear Ctrl-C or the sweep first
    assert set(codes[:2]) <= {code, "75"}
    assert codes[2] == "not run"
    second = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert second.returncode == 0, second.stdout + second.stderr
    assert [row[2:5:2] for row in rows(second.stdout)] == [["0", "3,000"]] * 3
    assert "from step" in (tmp_path / "out/0.log").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="groups of processes")
def test_a_signal_to_the_whole_group_saves_the_job(tmp_path):
    """As `timeout` and a terminal send it: the job gets it, and again from the sweep."""
    arguments = [sys.executable, str(TRAIN), "-m", *LONG, "seed=1,2", "run_dir=out", "resume=auto"]
    for number, code in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
        first = subprocess.Popen(
            arguments, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert first.stdout is not None
        for line in first.stdout:
            if line.startswith("step "):
                break
        os.killpg(first.pid, number)
        said, _ = first.communicate(timeout=60)
        assert first.returncode == code
        assert [row[2] for row in rows(said)] == [str(code), "not run"]


@pytest.mark.slow
def test_a_signal_saves_the_job_and_ends_the_sweep_which_can_go_on(tmp_path):
    arguments = [sys.executable, str(TRAIN), "-m", *LONG, "seed=1,2", "run_dir=out", "resume=auto"]
    first = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    wait_for((tmp_path / "out/0/checkpoints/step-000000000000").exists)
    time.sleep(2)
    first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 75
    assert [row[2] for row in rows(said)] == ["75", "not run"]
    second = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert second.returncode == 0
    assert [row[2:5:2] for row in rows(second.stdout)] == [["0", "3,000"]] * 2
    assert "from step" in second.stdout


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds a process there")
@pytest.mark.parametrize("before", [(), (0.0,), (0.05,), (3.0,)])  # seconds from SIGTERM, if any
def test_a_warning_of_the_cluster_saves_the_job_and_queues_it_again(before, tmp_path):
    arguments = [sys.executable, str(TRAIN), "-m", *LONG, "seed=1", "run_dir=out",
                 "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=30"]  # fmt: skip
    first = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    wait_for((tmp_path / "out/0/checkpoints/step-000000000000").exists)
    time.sleep(2)
    (process,) = submitit_of(tmp_path)  # a cluster would warn it before the job's time is over
    for pause in before:
        os.kill(process, signal.SIGTERM)
        time.sleep(pause)
    os.kill(process, signal.SIGUSR2)
    said, _ = first.communicate(timeout=120)
    assert first.returncode == 0
    assert [row[2:5:2] for row in rows(said)] == [["0", "3,000"]]
    log = (tmp_path / "out/0.log").read_text()
    assert "error: stopped: by SIGTERM, the run is saved" in log
    assert "from step" in log


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds a process there")
def test_an_array_of_slurm_is_submitted_warned_queued_again_and_waited_for(tmp_path):
    slurm = stand_in(tmp_path / "slurm")
    arguments = [sys.executable, str(TRAIN), "-m", *LONG, "seed=1,2", "run_dir=out", "threads=1",
                 "hydra/launcher=submitit_slurm", "hydra.launcher.partition=cpu",
                 "hydra.launcher.cpus_per_task=2", "hydra.launcher.timeout_min=30",
                 "hydra.launcher.max_num_timeout=2",
                 "hydra.launcher.signal_delay_s=120"]  # fmt: skip
    sweep = subprocess.Popen(
        arguments, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PATH": f"{slurm}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    try:
        for number in (0, 1):
            wait_for((tmp_path / f"out/{number}/checkpoints/step-000000000000").exists)
        time.sleep(2)
        os.kill(min(submitit_of(tmp_path)), signal.SIGUSR2)  # as before the time is over
        said, _ = sweep.communicate(timeout=240)
    finally:
        sweep.kill()
        for left in submitit_of(tmp_path):
            os.kill(left, signal.SIGKILL)
    assert sweep.returncode == 0
    assert [row[2:5:2] for row in rows(said)] == [["0", "3,000"]] * 2
    script = (slurm / "script").read_text()
    for option in ("array=0-1%2", "time=30", "signal=USR2@120", "partition=cpu", "cpus-per-task=2"):
        assert f"#SBATCH --{option}\n" in script
    queued = (slurm / "requeued").read_text()
    assert queued in ("requeue 77_0", "requeue 77_1")
    log = (tmp_path / f"out/{queued[-1]}.log").read_text()
    assert "the run is saved" in log
    assert "from step" in log


def submitit_of(folder):
    """Processes in which submitit runs a job of a sweep in `folder`."""
    return [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if f"submitit.core._submit\0{folder}" in read(process / "cmdline")
    ]


def parent_of(process):
    found = re.search(r"^PPid:\s*(\d+)", read(process / "status"), re.MULTILINE)
    return int(found[1]) if found else 0


def read(path):
    try:
        return path.read_text()
    except OSError:
        return ""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds a process there")
def test_a_job_that_a_cluster_kills_does_not_end_the_waiting_for_the_others(tmp_path):
    # Submitit takes 15 s to notice, when the other job has to be at work yet.
    longer = ["total_steps=20000", "eval.every=20000", "accelerate=none"]
    arguments = [sys.executable, str(TRAIN), "-m", *LONG, *longer, "seed=1,2", "run_dir=out",
                 "threads=1", "hydra/launcher=submitit_local",
                 "hydra.launcher.timeout_min=30"]  # fmt: skip
    sweep = subprocess.Popen(
        arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for number in (0, 1):
        wait_for((tmp_path / f"out/{number}/checkpoints/step-000000000000").exists)
    first = min(submitit_of(tmp_path))
    (run,) = (int(p.name) for p in Path("/proc").glob("[0-9]*") if parent_of(p) == first)
    os.kill(first, signal.SIGKILL)
    os.kill(run, signal.SIGKILL)
    said, complained = sweep.communicate(timeout=240)
    assert sweep.returncode == 1
    first, second = rows(said)
    assert first[2] == "not ended"
    assert second[2:5:2] == ["0", "20,000"]
    assert complained.startswith("warning: ")
    assert complained.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="groups of processes")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_saves_the_jobs_of_joblib_beside_idle_processes(
    number, tmp_path
):
    """More processes than jobs are asked for, and one job has ended when the signal comes."""
    special = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=4", "threads=1"]
    arguments = [sys.executable, str(TRAIN), "-m", *LONG[:-1], "eval.every=100000",
                 "total_steps=250,20000", "run_dir=out", *special]  # fmt: skip
    first = subprocess.Popen(
        arguments, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for((tmp_path / "out/0.exit").exists)
    wait_for((tmp_path / "out/1/checkpoints/step-000000000000").exists)
    time.sleep(1)
    os.killpg(first.pid, number)
    said, _ = first.communicate(timeout=60)
    code = "130" if number == signal.SIGINT else "75"
    assert first.returncode == int(code)
    assert [row[2] for row in rows(said)] in (["0", code], ["0", "75"])


def test_a_job_of_joblib_has_the_thread_limits_of_the_sweep(tmp_path, monkeypatch):
    """Joblib's processes have limits of their own, with which a run is not the same elsewhere."""
    given = {}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    job = Job([["seed=1"]], tmp_path, passing_on())
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    make = subprocess.Popen

    def noted(command, env, **options):
        given.update(env)
        return make([sys.executable, "-c", ""], env=env, **options)

    monkeypatch.setattr(subprocess, "Popen", noted)
    with handled(CODES, lambda *_: None):
        assert job(0) == 0
    assert given["OMP_NUM_THREADS"] == "1"
    assert "OPENBLAS_NUM_THREADS" not in given
    assert given["PATH"] == os.environ["PATH"]
