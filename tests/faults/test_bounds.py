"""What a long run writes stays bounded."""

import pytest

import train
from runtime.launch.door import enter

MIB = 1 << 20


@pytest.mark.parametrize("steps", [20_000, pytest.param(1_000_000, marks=pytest.mark.faults)])
def test_a_long_run_writes_few_lines_and_small_event_files(steps, tmp_path, capsys):
    run = tmp_path / "run"
    assert enter("train", train.run, [f"total_steps={steps}", f"run_dir={run}"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = len(said.out.splitlines())
    events = sum(path.stat().st_size for path in run.glob("events.*"))
    print(f"{steps:,} steps: {lines} lines, events of {events / MIB:.2f} MiB")
    assert lines <= 200
    assert events <= 25 * MIB
