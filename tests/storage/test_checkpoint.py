"""Checkpoints are whole or not there; damage is found and named."""

import hashlib
import json
import os
import shutil

import pytest
import torch

from common import tree
from common.errors import StorageFault
from data import Replay, Spec
from runtime.build import Parts
from storage import checkpoint, files, rundir, segments
from storage.lock import locked
from tests.helpers import agent, batch


def state(step, score=None):
    learner = agent("sac", seed=step)
    learner.update(batch(8))
    return {"step": step, "return_mean": score, "agent": learner.state_dict()}


def flat(value):
    return tree.split(value)


def test_round_trip_keeps_every_bit_and_restores_the_agent(tmp_path):
    saved = state(7)
    path = checkpoint.save(tmp_path, 7, saved, keep=3)
    assert path.name == "step-000000000007"
    loaded = checkpoint.load(path)
    assert flat(loaded)[0] == flat(saved)[0]
    for name, tensor in flat(saved)[1].items():
        assert torch.equal(tensor, flat(loaded)[1][name])
        assert tensor.dtype == flat(loaded)[1][name].dtype
    other = agent("sac", seed=99)
    other.load_state_dict(loaded["agent"])
    assert tree.digest(other.state_dict()) == tree.digest(saved["agent"])
    assert sorted(os.listdir(tmp_path)) == ["checkpoints"]


def test_digest_sees_a_single_bit():
    saved = state(1)
    before = tree.digest(saved)
    weight = saved["agent"]["modules"]["actor"]["mean.weight"]
    weight.view(torch.int32).view(-1)[0] ^= 1
    assert tree.digest(saved) != before


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
def test_every_kind_of_damage_is_found_and_the_previous_one_used(tmp_path, name):
    small = {"step": 0, "return_mean": None, "agent": {"weight": torch.arange(5.0), "count": 3}}
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {**small, "step": step}, keep=3)
    path = tmp_path / "checkpoints" / "step-000000000002" / name
    whole = path.read_bytes()
    wrong = [whole[:-1], b"", whole + b"x"]
    wrong += [whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :] for i in range(len(whole))]
    silent = 0
    for content in wrong:
        path.write_bytes(content)
        step, loaded, warnings = checkpoint.load_newest(tmp_path)
        if step == 1:
            assert "is damaged" in warnings[0]
            assert warnings[0].endswith("using step-000000000001")
        else:
            silent += loaded["agent"]["weight"].tolist() != [0, 1, 2, 3, 4]
            assert name == "manifest.json"  # a harmless change of its own spelling
    assert silent == 0
    path.unlink()
    assert checkpoint.load_newest(tmp_path)[0] == 1


def test_nothing_valid_is_a_storage_fault(tmp_path):
    with pytest.raises(StorageFault, match="no checkpoint"):
        checkpoint.load_newest(tmp_path)
    path = checkpoint.save(tmp_path, 1, {"a": torch.ones(2)}, keep=1)
    whole = (path / "state.json").read_bytes()
    (path / "state.json").write_bytes(whole[::-1])
    with pytest.raises(StorageFault, match=r"is damaged \(sha256 does not match\): state\.json;"):
        checkpoint.load_newest(tmp_path)
    (path / "state.json").write_text("{}")
    sizes = rf"is damaged \(it has 2 bytes, not {len(whole)}\): state\.json; no valid .* a backup$"
    with pytest.raises(StorageFault, match=sizes):
        checkpoint.load_newest(tmp_path)
    (path / "state.json").write_bytes(whole)  # restored from a backup
    assert checkpoint.load_newest(tmp_path)[0] == 1


def test_a_swapped_directory_is_noticed(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"a": torch.tensor(step)}, keep=3)
    folder = tmp_path / "checkpoints"
    (folder / "step-000000000002").rename(folder / "step-000000000003")
    assert checkpoint.load_newest(tmp_path)[0] == 1


def test_keeps_the_newest_and_the_best_and_nothing_foreign_is_touched(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "notes.txt").write_text("mine")
    for step, score in enumerate([1.0, 9.0, 3.0, None, 4.0, 2.0]):
        checkpoint.save(tmp_path, step, {"return_mean": score}, keep=2)
    kept = sorted(os.listdir(tmp_path / "checkpoints"))
    assert kept == ["notes.txt", *[f"step-{s:012d}" for s in (1, 4, 5)]]
    assert checkpoint.load_newest(tmp_path, "best")[0] == 1
    assert checkpoint.load_newest(tmp_path)[0] == 5
    assert checkpoint.load_newest(tmp_path, "step-000000000004")[0] == 4


def test_a_failed_write_leaves_the_old_one_and_no_temporary(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"a": torch.ones(2)}, keep=2)

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_synced", full)
    with pytest.raises(StorageFault, match="No space left"):
        checkpoint.save(tmp_path, 2, {"a": torch.ones(2)}, keep=2)
    assert checkpoint.load_newest(tmp_path)[0] == 1
    assert os.listdir(tmp_path) == ["checkpoints"]


def test_manifest_names_size_and_sha256_of_every_file(tmp_path):
    path = checkpoint.save(tmp_path, 3, {"a": torch.ones(2)}, keep=2)
    manifest = json.loads((path / "manifest.json").read_text())
    assert set(manifest["files"]) == {"state.safetensors", "state.json"}
    for name, recorded in manifest["files"].items():
        assert recorded["size"] == (path / name).stat().st_size
        assert len(recorded["sha256"]) == 64


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="tells which file is synced")
def test_a_save_is_written_synced_renamed_synced_and_only_then_is_the_old_one_removed(
    tmp_path, monkeypatch
):
    """What kill -9 cannot show, for the system's memory survives it: the order of operations."""
    checkpoint.save(tmp_path, 1, {"a": torch.ones(2)}, keep=1)
    done = []

    def recorded(name, operation, what):
        def call(*arguments, **options):
            done.append((name, os.path.basename(what(*arguments))))
            return operation(*arguments, **options)

        return call

    link = "/proc/self/fd/{}".format
    monkeypatch.setattr(os, "fsync", recorded("sync", os.fsync, lambda fd: os.readlink(link(fd))))
    path_type = type(tmp_path)
    for way in ("rename", "replace"):
        operation = getattr(path_type, way)
        monkeypatch.setattr(path_type, way, recorded("name", operation, lambda a, b: b))
    monkeypatch.setattr(shutil, "rmtree", recorded("remove", shutil.rmtree, lambda path, **_: path))
    record = segments.write_segment(tmp_path, 0, 2, {"numbers": torch.arange(2)})
    checkpoint.save(tmp_path, 2, {"a": torch.ones(2), "return_mean": 1.0}, 1, [record])
    temporary, old = f"tmp-{os.getpid()}", "step-000000000001"
    assert done == [
        ("sync", tmp_path.name),  # which has a new folder in it
        ("sync", f"{temporary}-{record['name']}"),
        ("name", record["name"]),
        ("sync", "replay"),
        ("remove", temporary),  # what an earlier attempt may have left
        ("sync", "state.safetensors"),
        ("sync", "state.json"),
        ("sync", "manifest.json"),
        ("sync", temporary),
        ("name", "step-000000000002"),
        ("sync", "checkpoints"),
        ("name", f"{temporary}-{old}"),
        ("remove", f"{temporary}-{old}"),
    ]


def test_a_small_file_is_written_synced_renamed_and_its_folder_synced(tmp_path, monkeypatch):
    done, sync, link = [], os.fsync, "/proc/self/fd/{}".format
    replace = type(tmp_path).replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: done.append(os.path.basename(os.readlink(link(fd)))) or sync(fd)
    )
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda old, new: done.append("->") or replace(old, new)
    )
    rundir.write_text(tmp_path / "config.yaml", "a: 1\n")
    assert done == [f"config-{os.getpid()}.tmp", "->", tmp_path.name]


def test_a_segment_that_is_there_from_before_a_kill_is_written_again(tmp_path, monkeypatch):
    def refuse(old, new):  # as Windows does, where the new name is taken
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(type(tmp_path), "rename", refuse)
    rows = {"numbers": torch.arange(3)}
    first = segments.write_segment(tmp_path, 0, 3, rows)
    assert segments.write_segment(tmp_path, 0, 3, rows) == first


def test_a_run_that_has_not_saved_yet_is_told_how_to_begin_again(tmp_path):
    with pytest.raises(StorageFault, match="has no checkpoint yet; give its command again, with"):
        checkpoint.load_newest(tmp_path)


def test_segments_are_shared_verified_and_removed_with_the_last_that_needs_them(tmp_path):
    def piece(start):
        rows = {"numbers": torch.arange(start, start + 2)}
        return segments.write_segment(tmp_path, start, start + 2, rows)

    pieces = [piece(0)]
    (tmp_path / "replay" / "notes.txt").write_text("mine")
    checkpoint.save(tmp_path, 1, {"a": 1}, 1, pieces[:])
    pieces.append(piece(2))
    checkpoint.save(tmp_path, 2, {"a": 1, "return_mean": 1.0}, 1, pieces[:])
    pieces.append(piece(4))
    path = checkpoint.save(tmp_path, 3, {"a": 1}, 1, pieces[1:])
    assert checkpoint.names(tmp_path) == ["step-000000000002", "step-000000000003"]
    checkpoint.load(path)
    read = segments.read_segments(tmp_path / "replay", pieces[1:])
    assert [piece["numbers"].tolist() for piece in read] == [[2, 3], [4, 5]]
    assert len(list((tmp_path / "replay").iterdir())) == 4  # the best needs the first
    checkpoint.save(tmp_path, 4, {"a": 1, "return_mean": 2.0}, 1, pieces[2:])
    kept = {file.name for file in (tmp_path / "replay").iterdir()}
    assert kept == {pieces[2]["name"], "notes.txt"}
    (tmp_path / "replay" / pieces[2]["name"]).write_bytes(b"")
    with pytest.raises(StorageFault, match="is damaged"):
        checkpoint.load(tmp_path / "checkpoints" / "step-000000000004")


def test_damaged_later_ones_do_not_push_a_new_one_out(tmp_path):
    """Steps 2 and 3 are damaged, 3 only in its tensors, so that it would still look the best."""
    for step, score in ((1, 1.0), (2, 2.0), (3, 9.0)):
        checkpoint.save(tmp_path, step * 10, {"return_mean": score, "a": torch.ones(2)}, keep=3)
    folder = tmp_path / "checkpoints"
    for step, name in ((20, "state.json"), (30, "state.safetensors")):
        (folder / f"step-{step:012d}" / name).write_bytes(b"")
    assert checkpoint.load_newest(tmp_path)[0] == 10
    checkpoint.save(tmp_path, 15, {"return_mean": 0.5}, keep=1)
    step, _, warnings = checkpoint.load_newest(tmp_path)
    assert (step, len(warnings)) == (15, 2)
    checkpoint.save(tmp_path, 30, {"return_mean": 0.7}, keep=1)  # the run gets there
    assert checkpoint.load_newest(tmp_path)[0] == 30
    assert checkpoint.load_newest(tmp_path)[2] == []


def test_what_a_killed_save_left_is_swept_and_nothing_else(tmp_path):
    (tmp_path / "tmp-17").mkdir()
    (tmp_path / "tmp-17" / "state.json").write_text("{}")
    (tmp_path / f"tmp-18-{0:012}-{2:012}-{'a' * 16}.safetensors").write_text("x")
    (tmp_path / f"tmp-19-step-{7:012}").mkdir()
    for mine in ("tmp-notes", "tmp-2024.txt"):
        (tmp_path / mine).write_text("mine")
    checkpoint.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["tmp-2024.txt", "tmp-notes"]


def test_nothing_is_written_or_removed_where_a_link_leads(tmp_path, capsys):
    run, outside = tmp_path / "run", tmp_path / "outside"
    for folder in (run, outside):
        folder.mkdir()
    for step in range(3):
        checkpoint.save(outside, step, {"a": torch.ones(2)}, keep=9)
    before = sorted(path.name for path in outside.rglob("*"))
    (run / "checkpoints").symlink_to(outside / "checkpoints")
    for call in (
        lambda: checkpoint.save(run, 3, {"a": torch.ones(2)}, keep=1),
        lambda: checkpoint.load_newest(run),
    ):
        with pytest.raises(StorageFault, match="is a link"):
            call()
    (run / "checkpoints").unlink()
    (run / "replay").symlink_to(outside)
    with pytest.raises(StorageFault, match="is a link"):
        segments.write_segment(run, 0, 1, {"a": torch.ones(1)})
    checkpoint.save(run, 3, {"a": torch.ones(2)}, keep=1)
    (run / "checkpoints" / "step-000000000001").symlink_to(outside / "checkpoints")
    checkpoint.save(run, 4, {"a": torch.ones(2)}, keep=1)
    assert checkpoint.names(run) == ["step-000000000004"]
    target = tmp_path / "precious"
    target.write_text("precious")
    for name in (f"config-{os.getpid()}.tmp", "lock"):
        (run / name).symlink_to(target)
    rundir.write_text(run / "config.yaml", "mine")
    with pytest.raises(StorageFault, match="lock: cannot be opened"), locked(run):
        pass
    assert target.read_text() == "precious"
    assert sorted(path.name for path in outside.rglob("*")) == before
    assert capsys.readouterr().err == ""


def test_old_checkpoints_that_cannot_be_removed_cost_a_warning(tmp_path, monkeypatch, capsys):
    def busy(path):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(checkpoint, "discard", busy)
    for step in range(2):
        checkpoint.save(tmp_path, step, {"a": torch.ones(2)}, keep=1)
    assert len(checkpoint.names(tmp_path)) == 2
    assert "warning: old checkpoints cannot be removed" in capsys.readouterr().err


def test_a_reader_begins_again_where_the_run_goes_on_meanwhile(tmp_path, monkeypatch):
    """Between its look for what there is and its reading, a save removes what it has seen."""
    small = {"return_mean": None, "segments": [], "agent": {"weight": torch.arange(5.0)}}
    checkpoint.save(tmp_path, 1, {**small, "step": 1}, keep=1)
    real, calls = checkpoint.names, []

    def slow(run_dir):
        found = real(run_dir)
        if not calls:
            calls.append(1)
            checkpoint.save(tmp_path, 2, {**small, "step": 2, "return_mean": 1.0}, keep=1)
        return found

    monkeypatch.setattr(checkpoint, "names", slow)
    step, found, warnings = checkpoint.load_newest(tmp_path)
    assert (step, warnings) == (2, [])
    assert "exact" not in found  # nothing had to be left out
    assert real(tmp_path) == ["step-000000000002"]


def replay(steps, count=2, numbers=300):
    """A replay of `count` environments whose observations are large, and how it was digested."""
    made = Replay(20, 4, 4, 1.0, torch.Generator().manual_seed(0))
    for step in range(steps):
        made.add(batch(count, spec=Spec(numbers, 1, discrete=False), seed=step))
    return made


def test_rows_go_to_the_disk_and_into_the_digest_in_small_pieces(tmp_path, monkeypatch):
    """Of so many bytes, but of a whole step at least; put together they are the replay again."""
    made, asked = replay(14), []
    row = sum(tensor.nbytes for tensor in made.copy_rows(0, 2).values()) // 2

    class Counted(Replay):
        def copy_rows(self, start, stop):
            asked.append(stop - start)
            return super().copy_rows(start, stop)

    made.__class__ = Counted
    digests = set()
    for most, rows in ((1, 2), (5 * row, 4), (6 * row, 6), (1 << 24, 20)):
        monkeypatch.setattr(segments, "PIECE", most)
        folder = tmp_path / str(most)
        folder.mkdir()
        asked.clear()
        records = segments.write_segments(folder, made, [], 3)
        parts = Parts(agent("sac"), Nothing(), made, Nothing())
        assert parts.digest() == parts.digest()
        digests.add(parts.digest())
        assert max(asked) == rows
        first = made.first_row
        assert [r["start"] for r in records] == list(range(first, 28, rows))
        assert records[-1]["stop"] == 28
        assert {record["rank"] for record in records} == {3}
        again = Replay(20, 4, 4, 1.0, torch.Generator())
        again.restore(made.state_dict(), segments.read_segments(folder / "replay", records))
        after = [replay.copy_rows(first, 28) for replay in (made, again)]
        assert tree.digest(after[0]) == tree.digest(after[1])
    assert len(digests) == 4  # of pieces below 16 MiB it is what it was before there were any


class Nothing:
    def state_dict(self):
        return {}


def test_the_digest_is_of_names_kinds_shapes_and_bytes_and_changes_nothing():
    base = torch.arange(6.0)
    state = {"b": base[::2], "a": [base[:2], {"c": torch.tensor(True)}], "n": 3}
    hasher = hashlib.sha256(
        b'{"a": [{"tensor": "/a/0"}, {"dict": {"c": {"tensor": "/a/1/c"}}}], '
        b'"b": {"tensor": "/b"}, "n": 3}'
    )
    for name, tensor in (
        ("/a/0", torch.tensor([0.0, 1.0])),
        ("/a/1/c", torch.tensor(True)),
        ("/b", torch.tensor([0.0, 2.0, 4.0])),
    ):
        hasher.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        hasher.update(tensor.numpy().tobytes())
    assert tree.digest(state) == hasher.hexdigest()
    values, tensors = tree.split(state)
    for tensor in tensors.values():
        tensor.zero_()  # copies
    assert base.tolist() == [0, 1, 2, 3, 4, 5]
    assert tree.digest(tree.join(values, tree.split(state)[1])) == hasher.hexdigest()


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(28, "No space left on device"), "free the disk"),
        (OSError(30, "Read-only file system"), "make the folder writable"),
    ],
)
def test_what_helps_where_a_save_fails(error, remedy, tmp_path, monkeypatch):
    def failing(path, content):
        raise error

    for module, save in (
        (files, lambda: checkpoint.save(tmp_path, 2, {"a": torch.ones(2)}, keep=2)),
        (rundir, lambda: segments.write_segment(tmp_path, 0, 1, {"a": torch.ones(1)})),
    ):
        with monkeypatch.context() as broken:
            broken.setattr(module, "write_synced", failing)
            with pytest.raises(StorageFault, match=f"{error.strerror}; {remedy}$"):
                save()
        save()


def test_another_format_is_told_with_both(tmp_path):
    path = checkpoint.save(tmp_path, 1, {"a": 1}, keep=1)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format": 3}))
    with pytest.raises(StorageFault, match="its format is 3, and 2 is read here"):
        checkpoint.load_newest(tmp_path)
