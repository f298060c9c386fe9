"""Killed at any instant, a run goes on to the very same end."""

import random
import shutil
import signal
import time

import pytest

from storage import checkpoint
from tests.faults.harness import (
    RUNS,
    SHORT,
    assert_no_orphans,
    command,
    outcome,
)

LONG = pytest.mark.faults


@pytest.mark.parametrize(
    ("kills", "changes", "saves"), [(4, SHORT, 2), pytest.param(200, (), 5, marks=LONG)]
)
def test_after_kill_9_at_a_random_instant_the_digest_is_that_of_the_whole_run(
    kills, changes, saves, nursery, wholes, tmp_path
):
    """Each kill in a run of its own; then the same command finishes it. Half aim at a save."""
    chance, inside_save, landed, index = random.Random(kills), 0, 0, 0
    while landed < kills:
        index += 1
        name = list(RUNS)[index % len(RUNS)]
        digest, scalars, seconds = wholes(name, *changes)
        cwd = tmp_path / str(index)
        cwd.mkdir()
        child = nursery.start(command(name, *changes), cwd)
        if index % 2:
            time.sleep(chance.uniform(0.0, seconds))
        else:
            wait_for_a_save(child, cwd / "run", chance, saves)
        child.send(signal.SIGKILL)
        landed += child.wait() == -signal.SIGKILL
        inside_save += any((cwd / "run").glob("tmp-*"))
        code = nursery.run(command(name, *changes), cwd)
        assert code == 0, (cwd / "out.txt").read_text()
        assert outcome(cwd / "run") == (digest, scalars), name
        assert "warning" not in (cwd / "out.txt").read_text()
        assert_no_orphans(cwd / "run")
        shutil.rmtree(cwd)
    assert kills < 100 or inside_save > 0.3 * kills
    print(f"{landed} kills, {inside_save} of them inside a save, {index - landed} came too late: "
          "all digests and curves equal")  # fmt: skip


def wait_for_a_save(child, run, chance, saves):
    """Returns in the middle of one of the first saves, of which the run makes some more."""
    after = chance.choice(["", *(f"step-{50 * save:012}" for save in range(saves))])
    while child.code() is None:
        if max(checkpoint.names(run), default="") >= after and any(run.glob("tmp-*")):
            time.sleep(chance.uniform(0.0, 0.002))
            return


@pytest.mark.parametrize(
    ("name", "kills", "every", "changes"),
    [
        ("sac-pendulum", 3, 30, SHORT),
        pytest.param("sac-pendulum", 50, 4, (), marks=LONG),
        pytest.param("a2c-cartpole", 50, 16, (), marks=LONG),
    ],
)
def test_a_chain_of_kills_in_one_run_does_not_drift(
    name, kills, every, changes, nursery, wholes, tmp_path
):
    """Each life ends a random instant after its first save."""
    digest, scalars, _ = wholes(name, *changes)
    often = [*command(name, *changes), f"checkpoint.every={every}"]
    chance = random.Random(kills)
    for _ in range(kills):
        before = checkpoint.names(tmp_path / "run")
        child = nursery.start(often, tmp_path)
        while checkpoint.names(tmp_path / "run")[-1:] == before[-1:]:
            assert child.code() is None, child.out.read_text()
        time.sleep(chance.uniform(0.0, 0.01))
        child.send(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert nursery.run(often, tmp_path) == 0, (tmp_path / "out.txt").read_text()
    assert outcome(tmp_path / "run") == (digest, scalars)
    print(f"{name}: {kills} kills in a row, digest and curves equal")


@pytest.mark.parametrize(
    ("name", "every", "changes"),
    [
        ("sac-pendulum", 15, SHORT),
        pytest.param("sac-pendulum", 1, (), marks=LONG),
        pytest.param("a2c-cartpole", 1, (), marks=LONG),
    ],
)
def test_killed_before_any_storage_operation_of_a_save_old_or_new_is_there(
    name, every, changes, nursery, wholes, tmp_path
):
    """Each operation, or some; the checkpoint before it is always valid."""
    digest, scalars, _ = wholes(name, *changes)
    stages = 0
    for stage in range(0, 1000, every):
        cwd = tmp_path / str(stage)
        cwd.mkdir()
        prepare = {"name": "die_at", "with": {"stage": stage}}
        code = nursery.run(command(name, *changes), cwd, prepare)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        stages += 1
        saved = checkpoint.names(cwd / "run") if (cwd / "run").exists() else []
        if saved:
            checkpoint.load(cwd / "run" / "checkpoints" / saved[-1])
        if every > 1 or stages % 10 == 1 or stages < 40:  # those of the first saves, all
            assert nursery.run(command(name, *changes), cwd) == 0, (cwd / "out.txt").read_text()
            assert outcome(cwd / "run") == (digest, scalars)
        shutil.rmtree(cwd)
    assert stages >= 6
    print(f"{name}: {stages} stages, always one valid")
