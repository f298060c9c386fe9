"""Damaged files, full disks, two processes: never silent, never without a checkpoint."""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from common.errors import StorageFault
from common.tree import digest
from runtime.deploy.trained import open_trained
from storage import checkpoint
from storage.segments import read_segments
from tests.faults.harness import SHORT, command, outcome

LONG = pytest.mark.faults
RUN = command("sac-pendulum", *SHORT)


@pytest.fixture(scope="module")
def run(nursery, tmp_path_factory):
    """A finished run of SAC, with a replay in segments."""
    cwd = tmp_path_factory.mktemp("run")
    assert nursery.run([*RUN, "checkpoint.keep=3"], cwd) == 0
    return cwd / "run"


def contents(path):
    """What a checkpoint hands out, all of it."""
    return digest({"state": checkpoint.load(path), "pieces": rows(path.parents[1], path.name)})


def rows(run, name):
    """The rows that a checkpoint needs."""
    records = checkpoint.open_manifest(run / "checkpoints" / name)["segments"]
    return list(read_segments(run / "replay", records))


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=LONG)])
def test_no_flip_truncation_swap_or_growth_is_silent(count, run, tmp_path):
    """Of the files of the newest checkpoint; the one before it is used, and both are named."""
    chance = random.Random(count)
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    newest, before = (copy / "checkpoints" / n for n in checkpoint.names(copy)[:-3:-1])
    shared = {s["name"] for s in checkpoint.open_manifest(before)["segments"]}
    segments = [copy / "replay" / s["name"] for s in checkpoint.open_manifest(newest)["segments"]]
    files = [*newest.iterdir(), *(path for path in segments if path.name not in shared)]
    right, used, harmless, done = contents(newest), contents(before), 0, Counter()
    while done["flip"] + done["truncate"] < count:
        kind = chance.choice(["flip", "truncate", "zero", "grow", "swap", "remove"])
        path = files[done.total() % len(files)]
        done[kind] += 1
        whole = path.read_bytes()
        spot = chance.randrange(len(whole))
        match kind:
            case "flip":
                bit = 1 << chance.randrange(8)
                spoiled = whole[:spot] + bytes([whole[spot] ^ bit]) + whole[spot + 1 :]
            case "truncate":
                spoiled = whole[: spot // 4096 * 4096 or spot]
            case "zero":
                spoiled = whole[:spot] + bytes(len(whole) - spot)
            case "grow":
                spoiled = whole + b"\0"
            case "swap":
                other = next(p for p in before.iterdir() if p.suffix == path.suffix)
                spoiled = other.read_bytes()
            case "remove":
                spoiled = None
        path.unlink()
        if spoiled is not None:
            path.write_bytes(spoiled)
        step, state, warnings = checkpoint.load_newest(copy)
        got = digest({"state": state, "pieces": rows(copy, f"step-{step:012d}")})
        if f"step-{step:012d}" == newest.name:
            assert got == right  # such as another spelling of the same manifest
            harmless += spoiled != whole
        else:
            assert got == used
            assert newest.name in warnings[0]
            assert path.name in warnings[0]
            assert warnings[0].endswith(f"using {before.name}")
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
    assert contents(newest) == right
    assert harmless < count / 20
    print(f"{dict(done)}: 0 silent, {harmless} harmless")


def test_rows_that_all_checkpoints_need_and_that_are_damaged_are_all_that_is_lost(
    nursery, run, tmp_path
):
    """It is evaluated, and goes on without them; where no row is left it does not."""
    shutil.copytree(run, tmp_path / "run")
    path, (*_, first) = tmp_path / "run", sorted((tmp_path / "run/replay").iterdir(), reverse=True)
    whole = first.read_bytes()
    first.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    trained = open_trained(str(path))
    trained.evaluator.close()
    _, state, (warning,) = checkpoint.load_newest(path)
    assert (trained.step, trained.warnings) == (120, [warning])
    assert state["exact"] is False
    begins = int(first.name.split("-")[1])
    rows_left = read_segments(path / "replay", state["segments"])
    assert next(rows_left)["numbers"][0] == begins
    assert warning.endswith(f"using step-000000000120 without the transitions before {begins}")
    assert first.name in warning
    assert nursery.run([*RUN, "total_steps=160"], tmp_path) == 0
    said = (tmp_path / "out.txt").read_text()
    assert said.count("warning: ") == said.count(warning.partition(str(path))[2]) == 1
    assert json.loads((path / "result.json").read_text())["exact"] is False
    assert checkpoint.load_newest(path)[::2] == (160, [])  # it is whole again
    for segment in (path / "replay").iterdir():
        segment.write_bytes(b"")
    with pytest.raises(StorageFault, match="no valid checkpoint is left"):
        checkpoint.load_newest(path)


def test_a_link_or_a_path_elsewhere_is_not_followed(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    newest = copy / "checkpoints" / checkpoint.names(copy)[-1]
    shutil.copytree(newest, tmp_path / "outside")
    for name in ("state.json", "state.safetensors", "manifest.json"):
        path = newest / name
        whole = path.read_bytes()
        path.unlink()
        path.symlink_to(tmp_path / "outside" / name)
        with pytest.raises(StorageFault, match="is not a file"):
            checkpoint.load(newest)
        path.unlink()
        path.write_bytes(whole)
    checkpoint.load(newest)
    shutil.rmtree(newest)
    newest.symlink_to(tmp_path / "outside")
    with pytest.raises(StorageFault, match="is damaged"):
        checkpoint.load(newest)


@pytest.mark.parametrize("levels", [2, pytest.param(20, marks=LONG)])
def test_a_full_disk_leaves_the_old_checkpoint_good(levels, nursery, run, tmp_path):
    """No file may grow beyond a limit, from one that nothing fits to one that all but all fits."""
    largest = max(path.stat().st_size for path in run.rglob("*") if path.is_file())
    base = tmp_path / "base"
    base.mkdir()
    assert nursery.run(RUN, base) == 0
    good = checkpoint.names(base / "run")[-1]
    for level in range(levels):
        cwd = tmp_path / str(level)
        shutil.copytree(base, cwd)
        size = int(largest * (level + 0.5) / levels)
        prepare = {"name": "limit_files", "with": {"size": size}}
        longer = [*RUN, "total_steps=220"]
        (cwd / "out.txt").unlink()  # it is limited too
        code = nursery.run(longer, cwd, prepare)
        said = (cwd / "out.txt").read_text()
        assert code in (0, 4), said
        assert "Traceback" not in said
        assert checkpoint.load_newest(cwd / "run")[0] >= int(good[5:])
        assert not list((cwd / "run").glob("tmp-*"))
        assert nursery.run(longer, cwd) == 0, (cwd / "out.txt").read_text()
        shutil.rmtree(cwd)


def test_logs_that_cannot_be_written_cost_one_warning_and_no_training(nursery, tmp_path):
    """The event file is full from the start, whatever is saved fits."""
    often = command("a2c-cartpole", "log.every=8", "checkpoint.every=800")
    assert nursery.run(often, tmp_path) == 0
    digest_, _ = outcome(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "out.txt").unlink()
    size = 60_000  # above git's index and every file of a checkpoint, below the event file
    prepare = {"name": "limit_files", "with": {"size": size}}
    assert nursery.run(often, tmp_path, prepare) == 0, (tmp_path / "out.txt").read_text()
    said = (tmp_path / "out.txt").read_text()
    assert said.count("warning: logging stopped") == 1, said
    assert said.count("warning") == 1
    assert outcome(tmp_path / "run")[0] == digest_


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full")
def test_what_is_printed_to_a_full_disk_ends_no_run(nursery, wholes, tmp_path):
    (tmp_path / "out.txt").symlink_to("/dev/full")
    run = command("a2c-cartpole", *SHORT)
    assert nursery.run(run, tmp_path) == 0
    assert outcome(tmp_path / "run") == wholes("a2c-cartpole", *SHORT)[:2]
    assert nursery.run([*run, "agent.gamma=7"], tmp_path) == 2


@pytest.mark.parametrize("count", [3, pytest.param(20, marks=LONG)])
def test_a_second_process_is_refused_and_a_lock_of_a_dead_one_is_taken(count, nursery, tmp_path):
    first = nursery.start([*command("sac-pendulum"), "total_steps=20000"], tmp_path)
    lock = tmp_path / "run" / "lock"
    while not list((tmp_path / "run").glob("checkpoints/step-*")):
        assert first.code() is None, first.out.read_text()
    assert nursery.run([*command("sac-pendulum"), "total_steps=20000"], tmp_path) == 4
    said = (tmp_path / "out.txt").read_text()
    assert f"is in use by process {first.pid} on " in said
    for _ in range(count):
        first.send(9)
        first.wait()
        assert lock.exists()  # a dead one's
        first.out.write_text("")
        first = nursery.start([*command("sac-pendulum"), "total_steps=20000"], tmp_path)
        while "accelerate=" not in first.out.read_text():  # it goes on
            assert first.code() is None, first.out.read_text()
    first.send(9)
    first.wait()
