"""Checkpoints are whole or not there; damage is found and named."""

import json
import os

import pytest
import torch

from runtime import checkpoint, tree
from runtime.errors import StorageFault
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
    loaded, _ = checkpoint.load(path)
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
        step, loaded, _, warnings = checkpoint.load_newest(tmp_path)
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
    (path / "state.json").write_text("{}")
    with pytest.raises(StorageFault, match="sha256 does not match"):
        checkpoint.load_newest(tmp_path)


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

    monkeypatch.setattr(checkpoint, "write_synced", full)
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
