"""A signal saves and ends the run, whenever it comes; nothing of it is left running."""

import random
import shutil
import signal
import time

import pytest

from storage import checkpoint
from tests.faults.harness import SHORT, assert_no_orphans, command, outcome

LONG = pytest.mark.faults
WORKERS = [
    *("env=pendulum", "agent=a2c", "env.num_envs=4", "env.vectorization=async", "agent.n_steps=8"),
    *("agent.hidden=[16]", "total_steps=4000", "checkpoint.every=200", "eval.episodes=1"),
    *("run_dir=run", "resume=auto"),
]
LIMIT = 5.0  # seconds from the signal to the end


@pytest.mark.parametrize(("count", "changes"), [(1, SHORT), pytest.param(100, (), marks=LONG)])
@pytest.mark.parametrize(
    ("name", "codes"),
    [("SIGTERM", {75}), ("SIGUSR1", {75}), ("SIGINT", {130}), ("SIGHUP", {75})],
)
def test_a_signal_at_a_random_instant_saves_and_ends_the_run(
    name, codes, count, changes, nursery, wholes, tmp_path
):
    chance, slowest, stopped, index = random.Random(name), 0.0, 0, 0
    run = command("sac-pendulum", *changes)
    digest, scalars, seconds = wholes("sac-pendulum", *changes)
    while stopped < count:
        index += 1
        assert index < 20 * count, "they do not stop"
        cwd = tmp_path / str(index)
        cwd.mkdir()
        child = nursery.start(run, cwd)
        time.sleep(chance.uniform(0.0, seconds))
        sent = time.monotonic()
        child.send(getattr(signal, name), group=True)
        code = child.wait()
        said = child.out.read_text()
        slowest = max(slowest, time.monotonic() - sent)
        if code < 0:  # before the first line of the program, where nothing is to be saved
            assert code == -getattr(signal, name)
            assert said == ""
        else:
            assert code in codes | {0}, said
            assert "Traceback" not in said
            assert sum(
                line.startswith(("error: stopped: by", "error: interrupted: by"))
                for line in said.splitlines()
            ) == (code != 0)
            stopped += code != 0
        assert_no_orphans(cwd / "run")
        assert nursery.run(run, cwd) == 0, child.out.read_text()
        assert outcome(cwd / "run") == (digest, scalars)
        shutil.rmtree(cwd)
    print(f"{name}: {stopped} stopped, {index - stopped} came too late or before the first line; "
          f"slowest {slowest:.2f} s")  # fmt: skip
    assert slowest < LIMIT


@pytest.mark.parametrize("count", [4, pytest.param(400, marks=LONG)])
def test_a_signal_to_the_whole_group_leaves_no_worker(count, nursery, tmp_path):
    """One half of them while workers are begun and the run is new, one half in the middle of it."""
    chance, saved = random.Random(count), 0
    for index in range(count):
        cwd = tmp_path / str(index)
        cwd.mkdir()
        name = ["SIGINT", "SIGTERM", "SIGUSR1", "SIGKILL"][index % 4]
        child = nursery.start(WORKERS, cwd)
        if (index + index // 4) % 2:
            while child.code() is None and not (cwd / "run" / "checkpoints").exists():
                time.sleep(0.02)
            time.sleep(chance.uniform(0.0, 1.0))
        else:
            time.sleep(chance.uniform(0.5, 3.0))
        sent = time.monotonic()
        child.send(getattr(signal, name), group=name != "SIGKILL")
        code = child.wait()
        said = child.out.read_text()
        assert code in (130, 75, 0, -signal.SIGKILL), said
        assert "Traceback" not in said
        assert name == "SIGKILL" or "Warning" not in said
        saved += (cwd / "run" / "checkpoints").exists()
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            try:
                assert_no_orphans(cwd / "run")
                break
            except AssertionError:
                time.sleep(0.05)
        assert_no_orphans(cwd / "run")
        assert time.monotonic() - sent < LIMIT
        shutil.rmtree(cwd)
    print(f"{count} signals to a run with four workers, {saved} after its first save: none left")


@pytest.mark.parametrize(
    "name", ["SIGTERM", *(pytest.param(name, marks=LONG) for name in ("SIGINT", "SIGUSR1"))]
)
def test_a_second_signal_does_not_wait_for_a_save_that_hangs(name, nursery, tmp_path):
    """The first one does; what was saved before stays good."""
    longer = command("sac-pendulum", *SHORT)
    assert nursery.run([*longer, "total_steps=70"], tmp_path) == 0
    child = nursery.start(longer, tmp_path, {"name": "hang_in_a_save"})
    while not list((tmp_path / "run").glob("tmp-*")):
        assert child.code() is None, child.out.read_text()
    child.send(getattr(signal, name))
    time.sleep(1.0)
    assert child.code() is None
    child.send(getattr(signal, name))
    sent = time.monotonic()
    assert child.wait() == 128 + getattr(signal, name)
    assert time.monotonic() - sent < 1.0
    assert checkpoint.load_newest(tmp_path / "run")[0] == 70
    assert nursery.run(longer, tmp_path) == 0, child.out.read_text()


@pytest.mark.parametrize("count", [2, pytest.param(50, marks=LONG)])
def test_a_second_signal_ends_it_at_once_and_what_is_saved_is_valid(count, nursery, tmp_path):
    chance, longest = random.Random(count), 0.0
    for index in range(count):
        cwd = tmp_path / str(index)
        cwd.mkdir()
        child = nursery.start([*command("sac-pendulum"), "eval.episodes=500"], cwd)
        time.sleep(chance.uniform(0.1, 1.0))
        for _ in range(2):
            child.send(signal.SIGINT)
            sent = time.monotonic()
        assert child.wait() in (130, -signal.SIGINT, 0), child.out.read_text()
        longest = max(longest, time.monotonic() - sent)
        saved = checkpoint.names(cwd / "run") if (cwd / "run").exists() else []
        if saved:
            checkpoint.load(cwd / "run" / "checkpoints" / saved[-1])
        shutil.rmtree(cwd)
    assert longest < LIMIT
    print(f"{count} double signals: slowest {longest:.2f} s, what was saved is valid")
