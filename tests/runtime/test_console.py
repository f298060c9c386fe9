"""Plain lines where stdout is no terminal: few, and with the numbers to watch."""

from runtime.console import LINES, Progress


def test_a_long_run_prints_few_lines(capsys):
    progress = Progress(1_000_000)
    for step in range(500, 1_000_001, 500):
        progress.note({"rollout/return": 12.34567, "policy/entropy": 0.5, "other": 1.0})
        progress.update(step)
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert LINES <= len(lines) <= LINES + 2
    assert "return   12.35" in lines[-1]
    assert "entropy     0.5" in lines[-1]
    assert lines[-1].startswith("step 1000000/1000000")
    assert "0 s left" in lines[-1]
