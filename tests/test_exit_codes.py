"""Divergence, interruption, and what else decides an exit code, mostly of a real process."""

import io
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train
from common.errors import ConfigError, Stopped
from configs.compose import parse
from runtime.launch.door import Patient, enter, guarded, speaking

ROOT = Path(__file__).resolve().parents[1]


def heed_interrupts():
    """Whoever runs the tests in the background has SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(tmp_path, *arguments):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), f"run_dir={tmp_path / 'run'}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=heed_interrupts if os.name == "posix" else None,
    )


@pytest.mark.parametrize(
    "folder", ["runs/a-b_c.1", "/a b/josé", "/a (1)/b", "/it's/b", r"C:\runs\a", "/a,b=c/[d]"]
)
def test_the_command_that_goes_on_is_read_by_a_shell_and_by_train(folder):
    said = str(Stopped("stopped: by a test; go on", 75).at(folder, "module:A-v0"))
    command = said.partition("python ")[2]
    door, run, env = shlex.split(command)
    assert (door, parse(run)[2], env) == ("train.py", folder, "env.id=module:A-v0")
    assert ("resume=runs/a-b_c.1 " in command) == (folder == "runs/a-b_c.1")


@pytest.mark.parametrize(
    ("folder", "typed"),
    [(r"C:\runs\a-1", r"resume=C:\runs\a-1"), (r"C:\a b", r'''"resume=\"C:\a b\""''')],
)
def test_on_windows_the_command_is_quoted_as_its_shells_do(folder, typed, monkeypatch):
    monkeypatch.setattr("common.errors.WINDOWS", True)
    said = str(Stopped("stopped: by a test; go on", 75).at(folder, ""))
    assert said.endswith(f"continue with python train.py {typed}")
    if " " not in folder:
        assert parse(typed)[2] == folder


def test_a_traceback_changes_no_exit_code_of_a_signal(capsys):
    """By which a cluster knows that the job is to be queued again."""

    def stopped():
        raise Stopped("stopped: by a test; go on", 75)

    assert guarded(stopped, ["debug=true"]) == 75
    assert capsys.readouterr().err == "error: stopped: by a test; go on\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("std::bad_alloc"),
        RuntimeError("can't allocate memory: you"),
    ],
)
def test_memory_that_is_short_anywhere_is_told_as_that(error, capsys):
    def short():
        raise error

    assert guarded(short, []) == 4
    line = capsys.readouterr().err
    assert line.startswith(f"error: memory: there is not enough, {type(error).__name__} {error}; ")


def test_letters_that_a_stream_has_not_are_escaped():
    stream = io.TextIOWrapper(io.BytesIO(), "cp1252")
    assert Patient(stream).write("é 日\n") == 4
    stream.flush()
    assert stream.buffer.getvalue() == b"\xe9 \\u65e5\n"


def test_a_process_of_no_launcher_tells_what_is_wrong(monkeypatch, capsys):
    def wrong():
        raise ConfigError("agent: is wrong; correct it")

    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("RANK", raising=False)
    assert guarded(wrong, []) == 2
    assert capsys.readouterr().err == "error: agent: is wrong; correct it\n"
    monkeypatch.setenv("RANK", "1")
    assert guarded(wrong, []) == 2
    assert capsys.readouterr().err == ""


def test_divergence_is_exit_code_5_and_one_line(tmp_path, capsys):
    """A reward that is finite in float32 and, scaled, no more: the first loss is not finite."""
    arguments = [
        *("env.id=tests.helpers:Counting-v0", "env.kwargs.reward=1e37"),
        *("env.kwargs.show_episode=false", "agent.reward_scale=1e6", "eval.episodes=1"),
        *("total_steps=2000", f"run_dir={tmp_path / 'run'}"),
    ]
    assert enter("train", train.run, arguments) == 5
    errors = capsys.readouterr().err
    assert errors.startswith("error: training diverged")
    assert errors.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interruption_is_exit_code_130_and_one_line(tmp_path):
    process = start(tmp_path, "total_steps=100000000", "eval.episodes=1",
                    "accelerate=none")  # fmt: skip
    for _ in range(600):
        if (tmp_path / "run" / "checkpoints" / "step-000000000000").is_dir():
            break
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("error: interrupted: by SIGINT, the run is saved; continue with ")
    assert errors.count("\n") == 1


TINY = ["env=cartpole", "env.num_envs=2", "agent.hidden=[8]", "total_steps=400",
        "eval.episodes=1"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_run_ends_as_ever_though_nobody_reads_any_more(tmp_path):
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *TINY, "run_dir=run"],
                          stdout=theirs, stderr=theirs, cwd=tmp_path)  # fmt: skip
    os.close(theirs)
    assert done.returncode == 0
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.skipif(os.name != "posix", reason="the shell's")
@pytest.mark.parametrize(
    "closed",
    [">&- 2>&- <&-", *(pytest.param(one, marks=pytest.mark.slow) for one in (">&-", "2>&-"))],
)
def test_a_run_ends_as_ever_where_its_output_was_closed(closed, tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), *TINY, "run_dir=run"]
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *command], cwd=tmp_path,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == ""
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize("door", ["train.py", "evaluate.py"])  # more, and less, than a buffer
def test_a_reader_that_has_gone_is_no_traceback(door):
    ours, theirs = os.pipe()
    os.close(ours)
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, str(ROOT / door), "--help"], stdout=theirs,
                          stderr=subprocess.PIPE, text=True, env=usual)  # fmt: skip
    os.close(theirs)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_what_is_printed_at_once_to_a_full_disk_is_lost(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with speaking():
            print("nobody reads this", flush=True)


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_run_goes_on_though_nobody_reads_any_more(monkeypatch, tmp_path):
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "w", buffering=1) as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        monkeypatch.setattr(sys, "stderr", gone)
        assert enter("train", train.run, [*TINY, f"run_dir={tmp_path / 'run'}"]) == 0
        assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("load", "loaded", "chosen", "spin"),
    [
        (2.5, False, {}, "1000"),
        (2.0, False, {}, None),  # a process for each core
        (2.5, False, {"OMP_WAIT_POLICY": "active"}, None),
        (2.5, False, {"GOMP_SPINCOUNT": "5"}, "5"),
        (2.5, True, {}, None),
    ],
)
def test_threads_sleep_soon_on_busy_cores_unless_the_user_chose(
    load, loaded, chosen, spin, monkeypatch
):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that it is set back
        monkeypatch.delenv(name)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    if not loaded:
        monkeypatch.delitem(sys.modules, "torch")
    seen = []
    assert guarded(lambda: seen.append(os.environ.get("GOMP_SPINCOUNT")) or 0, []) == 0
    assert seen == [spin]


GUEST = """
import runpy, signal, sys, torch
sys.ps1 = ">>> "
torch.set_num_threads(2)
names = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
def found():
    small = bool(torch.tensor(1e-310, dtype=torch.float64) * 1 > 0)
    handlers = [signal.getsignal(getattr(signal, name)) for name in names]
    return torch.get_num_threads(), small, handlers
before = found()
import train, evaluate, policies
assert found() == before, "import"
sys.path.insert(0, sys.argv[1])
run = ["env=cartpole", "agent.hidden=[8]", "env.num_envs=2", "agent.n_steps=4", "threads=1",
       "total_steps=16", "eval.episodes=1", "run_dir=run"]
for script, arguments in (("train", run), ("evaluate", ["run=run", "episodes=1"])):
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(f"{sys.path[0]}/{script}.py", run_name="__main__")
    except SystemExit as ended:
        assert ended.code == 0, script
    assert found() == before, script
"""


def test_a_notebook_is_left_as_it_was_found(tmp_path):
    command = [sys.executable, "-c", GUEST, str(ROOT)]
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
