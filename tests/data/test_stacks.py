"""A replay that stores each frame once gives what one of whole stacks gives, bit for bit."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import FrameStackObservation

from configs.compose import train_config
from data import Replay, Spec, Transition
from data.stacks import StackReplay
from runtime.build import make_parts
from tests.helpers import saved_and_read

CAPACITY = 21


class Flicker(gymnasium.Env):
    """Frames of two bytes, each 0 or 7, so that they often repeat; episodes of 1 to 6 steps."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(0, 255, (1, 2), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 7))
        return self.frame(), {}

    def step(self, action):
        self.left -= 1
        ended = bool(self.np_random.integers(2))
        return self.frame(), 0.0, self.left == 0 and ended, self.left == 0 and not ended, {}

    def frame(self):
        return 7 * self.np_random.integers(0, 2, (1, 2), np.uint8)


gymnasium.register("Flicker-v0", entry_point=Flicker)


def life(envs, steps, stack, padding, seed=0):
    """Steps of copies that are stacked by Gymnasium; every reward is a number of its own."""
    made = [FrameStackObservation(Flicker(), stack, padding_type=padding) for _ in range(envs)]
    obs = np.stack([env.reset(seed=seed + number)[0] for number, env in enumerate(made)])
    for step in range(steps):
        fields = zip(*(env.step(None) for env in made), strict=True)
        successors, _, terminated, truncated, _ = map(np.stack, fields)
        flags = torch.from_numpy(terminated), torch.from_numpy(truncated)
        reward = torch.arange(envs) + 1000.0 * step
        seen, after = (torch.from_numpy(part.reshape(envs, -1)) for part in (obs, successors))
        yield Transition(seen, reward[:, None] / 2, reward, after, *flags)
        obs = successors.copy()
        for index in np.flatnonzero(terminated | truncated):
            obs[index] = made[index].reset()[0]


def storage(stack):
    given = CAPACITY, 16, 1, 1.0, torch.Generator().manual_seed(0)
    return StackReplay(*given, stack) if stack else Replay(*given)


def assert_equal(one, other):
    pairs = list(zip(one.read(), other.read(), strict=True))
    assert all(a is b is None or (torch.equal(a, b) and a.dtype == b.dtype) for a, b in pairs)


@pytest.mark.parametrize("written_by", ["numpy", "torch"])
@pytest.mark.parametrize("padding", ["reset", "zero", np.full((1, 2), 7, np.uint8)])
@pytest.mark.parametrize(("envs", "stack"), [(1, 2), (3, 4), (4, 9)])
def test_batches_are_those_of_whole_stacks(envs, stack, padding, written_by, monkeypatch):
    if written_by == "torch":  # as where the storage is on a GPU
        monkeypatch.setattr(Replay, "as_array", lambda self, tensor: tensor)
    plain, frames, pieces, written, known = storage(None), storage(stack), [], 0, {}
    for number, step in enumerate(life(envs, 120, stack, padding)):
        plain.add(step)
        frames.add(step)
        known |= {float(step.reward[i]): (step.obs[i], step.next_obs[i]) for i in range(envs)}
        assert frames.obs.shape[1] == 2
        assert_equal(plain.sample(), frames.sample())
        if (number % 7 == 6 and number < 50) or number == 55:
            start = max(written, frames.first_row)
            pieces.append(saved_and_read(frames.copy_rows(start, frames.added)))
            written = frames.added
        if number == 55:
            state = saved_and_read(frames.state_dict())
            for kept in (pieces[-1:], pieces):  # without the first ones, and whole
                frames = storage(stack)
                frames.restore(state, kept)
                if not len(frames):  # the frames of eight steps before are missing
                    assert stack == 9
                    continue
                batch = frames.sample().read()
                for index, reward in enumerate(batch.reward.tolist()):
                    assert torch.equal(batch.obs[index], known[reward][0])
                    assert torch.equal(batch.next_obs[index], known[reward][1])
            frames.generator.set_state(plain.generator.get_state())
    assert len(frames) == len(plain) == CAPACITY
    assert frames.used < frames.ring  # the last row is free


def test_a_state_holds_no_memory_that_nothing_wrote(monkeypatch):
    frames = storage(2)
    monkeypatch.setattr(torch, "empty", lambda size, **kind: torch.zeros(size, **kind) + 7)
    frames.add(next(life(1, 1, 2, "reset")))
    assert not frames.state_dict()["padding"].any()


@pytest.mark.parametrize(("vectorization", "copies"), [("sync", 2), ("async", 1)])
def test_a_run_stores_frames_and_its_buffer_is_that_of_whole_stacks(vectorization, copies):
    keys = {
        "env.id": "tests.data.test_stacks:Flicker-v0",
        "env.wrappers": "[{name:FrameStackObservation,stack_size:3}]",
        "env.vectorization": vectorization,
        "env.num_envs": copies,
        "eval.episodes": 0,
        "total_steps": 100,
        "agent": "sac",
        "agent.hidden": "[8]",
        "agent.buffer_size": CAPACITY,
        "agent.learning_starts": 8,
        "agent.batch_size": 4,
    }
    run = train_config([f"{key}={value}" for key, value in keys.items()])
    parts = make_parts(run)
    plain = storage(None)
    try:
        assert isinstance(parts.buffer, StackReplay)
        assert parts.envs.spec == Spec(6, 1, False, images=((0, (3, 1, 2)),), pixels=True, stack=3)
        for _ in range(60):
            action, latent = parts.agent.act(parts.envs.obs)
            step = parts.envs.step(action, latent)
            for buffer in (plain, parts.buffer):
                buffer.add(step)
            rows = torch.arange(max(0, plain.added - CAPACITY), plain.added)
            pair = plain.at(rows % plain.ring), parts.buffer.at(rows % parts.buffer.ring)
            assert_equal(*pair)
        for rows in parts.buffer.batches():
            assert all(value.isfinite().all() for value in parts.agent.update(rows).values())
            break
    finally:
        parts.close()


def test_what_it_takes_at_most_follows_the_frames():
    spec = Spec(4 * 84 * 84, 1, False, images=((0, (4, 84, 84)),), pixels=True)
    whole, frames = (Replay.bytes_for(10_000, 2, one) for one in (spec, replace(spec, stack=4)))
    assert 0.25 * whole < frames < 0.26 * whole
