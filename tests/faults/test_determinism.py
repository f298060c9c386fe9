"""The same seed gives the same bits and the same curves, in any process and any surroundings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.harness import COMMON, ROOT, RUNS, outcome

LONG = pytest.mark.faults
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
}


def run(name: str, cwd: Path, surroundings: dict[str, str], *more: str):
    cwd.mkdir()
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *ENVIRONMENTS[name], *COMMON, *more,
         "run_dir=run"],
        cwd=cwd, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **surroundings},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return outcome(cwd / "run")


@pytest.mark.parametrize(
    ("name", "steps"),
    [("sac-pendulum", 200), *(pytest.param(name, 3000, marks=LONG) for name in ENVIRONMENTS)],
)
def test_two_processes_in_other_surroundings_agree_in_all_bits(name, steps, tmp_path):
    first, second = (
        run(name, tmp_path / str(index), where, f"total_steps={steps}")
        for index, where in enumerate(SURROUNDINGS)
    )
    assert first == second
    assert len(first[1]) > 10


@pytest.mark.parametrize(
    "name",
    ["a2c-pendulum", *(pytest.param(n, marks=LONG) for n in ("a2c-acrobot", "sac-counting"))],
)
def test_workers_give_the_same_bits_as_one_process(name, tmp_path):
    copies = ["env.num_envs=3", "total_steps=900", "eval.every=900"]
    serial, parallel = (
        run(name, tmp_path / how, SURROUNDINGS[0], *copies, f"env.vectorization={how}")
        for how in ("sync", "async")
    )
    assert serial == parallel
