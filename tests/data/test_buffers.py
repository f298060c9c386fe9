"""What goes into a buffer comes out, once, in order, and with the update ratio asked for."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from common.tree import digest
from data import Replay, Rollout, Transition
from tests.helpers import saved_and_read


def row(number, envs=1):
    values = torch.arange(envs, dtype=torch.float32) + 100 * number
    return Transition(
        values[:, None], values[:, None] + 0.25, values, values[:, None] + 1,
        values % 2 == 0, values % 3 == 0, values[:, None] + 0.5,
    )  # fmt: skip


def replay(capacity=10, batch=4, starts=3, ratio=1.0):
    return Replay(capacity, batch, starts, ratio, torch.Generator().manual_seed(0))


def test_rollout_yields_once_when_full_and_reuses_its_arrays():
    rollout = Rollout(3)
    for round_number in range(2):
        for step in range(3):
            assert list(rollout.batches()) == []
            rollout.add(row(10 * round_number + step, envs=2))
        (batch,) = rollout.batches()
        assert batch.obs.shape == (3, 2, 1)
        assert batch.reward[:, 1].tolist() == [1 + 100 * (10 * round_number + t) for t in range(3)]
        assert batch.latent is not None
        assert list(rollout.batches()) == []
    with pytest.raises(AssertionError):
        Rollout(3).add(row(0, envs=2)._replace(latent=None))


@pytest.mark.parametrize("envs", [1, 3, 4, 10])
def test_replay_overwrites_the_oldest_also_across_the_wrap(envs):
    buffer = replay(capacity=10)
    added = []
    for step in range(9):
        transition = row(step, envs)
        buffer.add(transition)
        added += transition.reward.tolist()
    kept = set(added[-10:])
    batch = [buffer.sample().read() for _ in range(200)]
    seen = {value for b in batch for value in b.reward.tolist()}
    assert seen == kept
    for b in batch[:20]:
        assert torch.equal(b.obs[:, 0], b.reward)
        assert torch.equal(b.next_obs[:, 0], b.reward + 1)
        assert torch.equal(b.terminated, b.reward % 2 == 0)
        assert b.latent is None


@pytest.mark.parametrize(("ratio", "envs"), [(1.0, 1), (0.5, 1), (2.0, 1), (1.0, 4), (0.25, 4)])
def test_updates_per_environment_step(ratio, envs):
    buffer, batches = replay(capacity=1000, starts=8, ratio=ratio), 0
    for step in range(1, 101):
        buffer.add(row(step, envs))
        batches += len(list(buffer.batches()))
        assert buffer.warming_up == (step * envs < 8)
    assert batches == int((100 * envs - 8 + 1) * ratio)


def life(envs, steps, ends, seed):
    """Steps of environments in which an episode ends with probability `ends`; then obs jumps.

    Every reward is a number of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(envs, 2, generator=generator)
    for step in range(steps):
        next_obs = torch.randn(envs, 2, generator=generator)
        ended = torch.rand(envs, generator=generator) < ends
        never = torch.zeros(envs, dtype=torch.bool)
        reward = torch.arange(envs) + 1000.0 * step
        yield Transition(obs, obs[:, :1] / 2, reward, next_obs, ended, never, obs)
        obs = next_obs  # the very same array while no episode ends
        if ended.any():
            fresh = torch.randn(envs, 2, generator=generator)
            obs = torch.where(ended[:, None], fresh, next_obs)


def assert_true_to(known, buffer, batches=30):
    for _ in range(batches):
        batch = buffer.sample().read()
        for index, reward in enumerate(batch.reward.tolist()):
            obs, action, next_obs, ended = known[reward]
            assert torch.equal(batch.obs[index], obs)
            assert torch.equal(batch.action[index], action)
            assert torch.equal(batch.next_obs[index], next_obs)
            assert batch.terminated[index] == ended


@pytest.mark.parametrize("written_by", ["numpy", "torch"])
@pytest.mark.parametrize(("envs", "capacity"), [(1, 50), (3, 50), (7, 20), (8, 8)])
@pytest.mark.parametrize("ends", [0.0, 0.1, 1.0])
def test_every_successor_is_the_true_one_though_stored_once(
    envs, capacity, ends, written_by, monkeypatch
):
    if written_by == "torch":  # as where the storage is on a GPU
        monkeypatch.setattr(Replay, "as_array", lambda self, tensor: tensor)
    buffer, known, pieces, written = replay(capacity=capacity, batch=32), {}, [], 0
    for step, row_ in enumerate(life(envs, 60, ends, seed=envs)):
        buffer.add(row_)
        for index, reward in enumerate(row_.reward.tolist()):
            known[reward] = (row_.obs[index], row_.action[index], row_.next_obs[index],
                             row_.terminated[index])  # fmt: skip
        if step % 10 == 9:
            assert_true_to(known, buffer)
        if step % 7 == 6 and step < 35:  # a checkpoint adds what is new since the last
            pieces.append(
                saved_and_read(buffer.copy_rows(max(written, buffer.first_row), buffer.added))
            )
            written = buffer.added
        if step == 35:  # through a checkpoint, after which environments may begin elsewhere
            pieces.append(saved_and_read(buffer.copy_rows(written, buffer.added)))
            state = saved_and_read(buffer.state_dict())
            buffer = replay(capacity=capacity, batch=32)
            buffer.restore(state, pieces)
            assert_true_to(known, buffer)


@pytest.mark.parametrize("count", [1, 4])
def test_episodes_of_1000_steps_use_under_2_percent_more_than_each_number_once(count):
    """HalfCheetah's sizes, of which the arrays are reserved and taken as they fill."""
    obs_dim, action_dim, capacity, length = 17, 6, 20_000, 1_000
    buffer = replay(capacity=capacity)
    flag = torch.zeros(count, dtype=torch.bool)
    obs, action = torch.zeros(count, obs_dim), torch.zeros(count, action_dim)
    for step in range(3 * capacity // count):  # round the ring three times
        buffer.add(Transition(obs, action, obs[:, 0], obs, flag, flag))
        if step % length == length - 1:
            obs = obs + 1.0
    used = int(buffer.pointer.max()) + 1  # rows: those behind the ring are used in their order
    fields = [buffer.pointer, *buffer.fields]
    taken = used * 4 * obs_dim + sum(array.numel() * array.element_size() for array in fields)
    needed = capacity * (4 * (obs_dim + action_dim + 1) + 2 + 4)  # and the way to the successor
    assert needed < taken < 1.02 * needed
    assert taken < 0.63 * capacity * (4 * (2 * obs_dim + action_dim + 1) + 2)  # stored twice


@pytest.mark.parametrize(("envs", "capacity"), [(1, 50), (3, 50), (8, 8), (7, 3)])
def test_where_every_step_ends_an_episode_the_arrays_do_not_grow(envs, capacity):
    buffer, seen, places = replay(capacity=capacity), set(), set()
    for step, row_ in enumerate(life(envs, 150, 1.0 if envs > 1 else 0.9, seed=0)):
        buffer.add(row_)
        seen.add(len(buffer.obs))
        places.add(buffer.obs.data_ptr())
        if step > 2 * capacity:
            assert len(buffer) == capacity
    assert len(seen) == len(places) == 1


def test_what_a_gpu_stores_is_never_given_to_numpy():
    class Elsewhere:
        device = torch.device("meta")  # which NumPy cannot see either

    tensor = torch.zeros(3)
    assert Replay(10, 4, 3, 1.0, Elsewhere()).as_array(tensor) is tensor
    assert isinstance(replay().as_array(tensor), np.ndarray)


def test_sampling_is_uniform():
    from scipy import stats

    buffer = replay(capacity=20, batch=1000)
    for step in range(20):
        buffer.add(row(step))
    counts = torch.zeros(20)
    for _ in range(50):
        counts += torch.bincount((buffer.sample().read().reward / 100).long(), minlength=20)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


@pytest.mark.parametrize(("envs", "capacity"), [(1, 50), (3, 100)])
@pytest.mark.parametrize("ends", [0.0, 0.3])
def test_rows_that_are_damaged_on_the_disk_are_never_drawn(envs, capacity, ends):
    buffer, known, pieces = replay(capacity=capacity, batch=64), {}, []
    for step, row_ in enumerate(life(envs, 120, ends, seed=envs)):
        buffer.add(row_)
        for index, reward in enumerate(row_.reward.tolist()):
            known[reward] = (row_.obs[index], row_.action[index], row_.next_obs[index],
                             row_.terminated[index])  # fmt: skip
        if step < 40 and step % 10 == 9:
            pieces.append(saved_and_read(buffer.copy_rows(buffer.added - 10 * envs, buffer.added)))
        if step == 39:
            state = saved_and_read(buffer.state_dict())
            buffer = replay(capacity=capacity, batch=64)
            buffer.restore(state, pieces[2:])
            assert (len(buffer), buffer.first_row) == (20 * envs, 20 * envs)
        if step >= 39:
            assert len(buffer) == min(capacity, (step + 1 - 20) * envs)
            assert_true_to(known, buffer, batches=4)
            assert min(buffer.sample().read().reward.tolist()) >= 20_000  # of step 20
    assert len(buffer) == capacity


def test_state_restores_contents_cursor_generator_and_what_is_owed():
    first, second = replay(), replay()
    for step in range(13):
        first.add(row(step))
        batches = list(first.batches())
    second.restore(first.state_dict(), [first.copy_rows(0, 13)])
    for step in range(13, 30):
        drawn = []
        for buffer in (first, second):
            buffer.add(row(step))
            drawn.append([b.read().reward.tolist() for b in buffer.batches()])
        assert drawn[0] == drawn[1]
        assert len(drawn[0]) == len(batches) == 1
    rollout, copy = Rollout(3), Rollout(3)
    rollout.add(row(1))
    copy.restore(rollout.state_dict())
    for buffer in (rollout, copy):
        buffer.add(row(2))
        buffer.add(row(3))
    ours, theirs = next(rollout.batches()), next(copy.batches())
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    # Handed out and so empty, it is in no other state than one that never held anything.
    assert digest(rollout.state_dict()) == digest(Rollout(3).state_dict())


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_the_rows_in_pieces_are_those_in_one(size):
    envs, buffer, copy = 3, replay(capacity=60), replay(capacity=60)
    for row_ in life(envs, 50, 0.4, seed=1):
        buffer.add(row_)
    first, last = buffer.first_row, buffer.added
    pieces = [buffer.copy_rows(start, min(start + size * envs, last))
              for start in range(first, last, size * envs)]  # fmt: skip
    whole = buffer.copy_rows(first, last)
    assert all(torch.equal(torch.cat([p[name] for p in pieces]), whole[name]) for name in whole)
    copy.restore(buffer.state_dict(), pieces)
    assert digest(copy.copy_rows(first, last)) == digest(whole)
    assert copy.used - len(copy.free) == len(whole["ends"])


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("ends", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("envs", [1, 3])
def test_a_rollout_hands_out_true_successors_also_where_they_are_stored_once(
    large, ends, envs, monkeypatch
):
    if large:
        monkeypatch.setattr("data.rollout.LARGE", 0)
    steps, rollout, handed = 7, Rollout(7), []
    known = list(life(envs, 5 * steps, ends, seed=2))
    for number, row_ in enumerate(known):
        rollout.add(row_)
        handed += [field.clone() for batch in rollout.batches() for field in batch]
        if number == 17:  # through a checkpoint, in the middle of one
            copy = Rollout(7)
            copy.restore(saved_and_read(rollout.state_dict()))
            assert digest(copy.state_dict()) == digest(rollout.state_dict())
        if number > 17:  # which the environments go on from with other tensors of equal numbers
            copy.add(row_._replace(obs=row_.obs.clone()) if number == 18 else row_)
            list(copy.batches())
            assert digest(copy.state_dict()) == digest(rollout.state_dict())
    wanted = [torch.stack(field) for start in range(0, 5 * steps, steps)
              for field in zip(*known[start : start + steps], strict=True)]  # fmt: skip
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(handed, wanted, strict=True))


def test_a_large_rollout_stores_observations_once_and_reads_what_stored_them_twice(monkeypatch):
    known = list(life(3, 20, 0.2, seed=2))
    twice, once = Rollout(30), Rollout(30)
    for row_ in known:
        twice.add(row_)
    monkeypatch.setattr("data.rollout.LARGE", 0)
    for row_ in known:
        once.add(row_)
    from_twice = Rollout(30)
    from_twice.restore(saved_and_read(twice.state_dict()))
    assert digest(from_twice.state_dict()) == digest(once.state_dict())
    numbers = [field.numel() for field in once.state_dict()["fields"]]
    assert numbers.count(20 * 3 * 2) == 2  # obs and latent, which has as many components here
    ended = sum(not torch.equal(a.next_obs, b.obs) for a, b in pairwise(known))
    assert 0 < len(once.state_dict()["successors"]) == ended < 19


def test_places_of_successors_are_used_again_when_their_rows_are():
    buffer, sizes = replay(capacity=50), []
    for step, row_ in enumerate(life(1, 900, 0.3, seed=0)):
        buffer.add(row_)
        if step % 300 == 299:
            sizes.append(len(buffer.obs))
    assert sizes[0] == sizes[1] == sizes[2] < 150


def test_an_example_lies_where_rows_will_and_leaves_the_replay_empty():
    buffer = replay(capacity=10, batch=4)
    several = zip(*(row(number)[:6] for number in range(4)), strict=True)
    rows = Transition(*map(torch.cat, several))
    told = buffer.example(rows, 1).read()
    assert told.obs.tolist() == rows.obs.tolist()
    assert told.next_obs.tolist() == rows.next_obs.tolist()
    assert told.reward.tolist() == rows.reward.tolist()
    assert len(buffer) == buffer.added == 0
    obs = buffer.obs
    buffer.add(row(7))
    assert buffer.obs is obs  # what a graph reads from
    assert buffer.sample().read().reward.tolist() == [700.0] * 4
    fresh = replay(capacity=10, batch=4)
    fresh.add(row(7))
    assert buffer.pointer.tolist() == fresh.pointer.tolist()
    assert buffer.used == fresh.used == 0  # no successor of the example is kept
