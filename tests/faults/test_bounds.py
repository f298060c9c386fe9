"""What a long run writes stays bounded."""

import subprocess
import sys

import pytest

from tests.faults.harness import ROOT

MIB = 1 << 20


@pytest.mark.parametrize("steps", [20_000, pytest.param(1_000_000, marks=pytest.mark.faults)])
def test_a_long_run_writes_few_lines_and_small_event_files(steps, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), f"total_steps={steps}", "run_dir=run"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = len(done.stdout.splitlines())
    events = sum(path.stat().st_size for path in (tmp_path / "run").glob("events.*"))
    print(f"{steps:,} steps: {lines} lines, events of {events / MIB:.2f} MiB")
    assert lines <= 200
    assert events <= 25 * MIB
