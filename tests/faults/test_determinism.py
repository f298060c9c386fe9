"""The same seed gives the same bits and the same curves, in any process and any surroundings."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train
from configs import automatic
from runtime.launch.door import enter
from tests.faults.harness import COMMON, ROOT, RUNS, outcome

LONG, SLOW = pytest.mark.faults, pytest.mark.slow
NEEDS_COMPILER = pytest.mark.skipif(automatic.compiler() is None, reason="no C++ compiler")
SURROUNDINGS = [
    {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C"},
    {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "UNRELATED": "1"},
]
ENVIRONMENTS = {
    **RUNS,
    "a2c-acrobot": ["env=acrobot", "agent=a2c", "env.num_envs=3", "agent.hidden=[16]"],
    "a2c-mountaincar": ["env=mountain_car_continuous", "env.num_envs=2", "agent.hidden=[16]"],
    "sac-counting": [
        *("env.id=tests.helpers:Counting-v0", "agent=sac", "agent.hidden=[16]"),
        *("agent.batch_size=16", "agent.learning_starts=50"),
    ],
    "ppo-cartpole": [
        *("env=cartpole", "agent=ppo", "agent.hidden=[16]", "total_steps=20000"),
        *("agent.target_kl=0.05", "checkpoint.every=2000"),
    ],
    "sac_discrete-cartpole": [
        *("env=cartpole", "agent=sac_discrete", "agent.hidden=[16]", "agent.batch_size=16"),
        *("agent.learning_starts=50", "total_steps=1000", "checkpoint.every=100"),
    ],
}
SHORTEST = 200
FURTHER = ("ppo-cartpole", "sac_discrete-cartpole")
COMPILED = "sac-compiled"
EVERY = {
    **ENVIRONMENTS,
    COMPILED: [*RUNS["sac-pendulum"], "accelerate=compile", "total_steps=2000"],
}


def begin(name: str, cwd: Path, surroundings: dict[str, str], command: list[str] | None = None):
    command = command or [*EVERY[name], *COMMON, "run_dir=run"]
    compiles = {"TORCHINDUCTOR_CACHE_DIR": str(cwd / "cache")}  # each for itself
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *command],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **compiles, **surroundings},
    )  # fmt: skip


def run(name: str, cwd: Path, surroundings: dict[str, str], *more: str):
    cwd.mkdir()
    process = begin(name, cwd, surroundings, [*EVERY[name], *COMMON, *more, "run_dir=run"])
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return outcome(cwd / "run")


def run_here(name: str, folder: Path, *more: str):
    """The same in this process."""
    command = [*EVERY[name], *COMMON, *more, f"run_dir={folder}"]
    assert enter("train", train.run, command) == 0
    return outcome(folder)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        *(("sac-pendulum", SHORTEST), pytest.param(COMPILED, 300, marks=[SLOW, NEEDS_COMPILER])),
        *(pytest.param(name, 3000, marks=LONG) for name in ENVIRONMENTS),
    ],
)
def test_two_processes_in_other_surroundings_agree_in_all_bits(name, steps, tmp_path):
    """Fast, one of them is this one."""
    length = f"total_steps={steps}"
    second = run(name, tmp_path / "second", SURROUNDINGS[1], length)
    if steps == SHORTEST:
        first = run_here(name, tmp_path / "first", length)
    else:
        first = run(name, tmp_path / "first", SURROUNDINGS[0], length)
    assert first == second
    assert len(first[1]) > 10


@pytest.mark.parametrize(
    "name",
    [
        *("a2c-pendulum", pytest.param(COMPILED, marks=[SLOW, NEEDS_COMPILER])),
        *(pytest.param(n, marks=LONG) for n in ("sac-pendulum", *FURTHER)),
    ],
)
def test_another_process_elsewhere_goes_on_with_a_run_to_the_same_bits(name, tmp_path):
    """Stopped by a signal, moved, and taken up in other surroundings by a process of its own."""
    if name == COMPILED:  # each process for itself
        whole = run(name, tmp_path / "whole", SURROUNDINGS[0])
    else:
        whole = run_here(name, tmp_path / "whole")
    (tmp_path / "first").mkdir()
    process = begin(name, tmp_path / "first", SURROUNDINGS[0])
    while len(list(tmp_path.glob("first/run/checkpoints/step-*"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    process.communicate()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "first/run").rename(tmp_path / "elsewhere/moved")
    module = [a for a in EVERY[name] if a.startswith("env.id=")]
    last = begin(name, tmp_path / "elsewhere", SURROUNDINGS[1], ["resume=moved", *module])
    assert last.communicate()[1] == ""
    assert last.returncode == 0
    assert outcome(tmp_path / "elsewhere/moved") == whole


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("a2c-pendulum", 300),
        *(pytest.param(n, 900, marks=LONG) for n in ("a2c-acrobot", "sac-counting")),
    ],
)
def test_workers_give_the_same_bits_as_one_process(name, steps, tmp_path):
    copies = ["env.num_envs=3", f"total_steps={steps}", f"eval.every={steps}"]
    serial, parallel = (
        run_here(name, tmp_path / how, *copies, f"env.vectorization={how}")
        for how in ("sync", "async")
    )
    assert serial == parallel
