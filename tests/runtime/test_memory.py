"""What a replay needs, what there is, and that the first is refused where it exceeds the second."""

import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import train
from common.errors import ConfigError
from configs.compose import train_config
from data import Replay, Rollout, Spec, Transition
from runtime import memory
from runtime.memory import require_memory
from tests.helpers import batch, tensors

CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [1, 3, 64])
@pytest.mark.parametrize(
    "spec",
    [
        Spec(17, 6, False),
        Spec(3, 4, True),
        Spec(3, 4, True, choices=(4, 2, 3)),
        Spec(12, 4, True, images=((0, (2, 3, 2)),), pixels=True),
        Spec(14, 4, True, images=((1, (2, 3, 2)),), bytes=((1, 13),)),
    ],
)
def test_the_estimate_is_what_the_arrays_take(spec, count):
    capacity = 10_000
    buffer = Replay(capacity, 4, 1, 1.0, torch.Generator())
    obs = batch(count, spec=spec).obs
    shape = (count, *spec.noise_shape[:-1]) if spec.discrete else (count, spec.action_dim)
    action = torch.zeros(shape, dtype=torch.int64 if spec.discrete else torch.float32)
    flag = torch.zeros(count, dtype=torch.bool)
    buffer.add(Transition(obs, action, torch.zeros(count), obs, flag, flag))
    arrays = (buffer.obs, buffer.pointer, *buffer.fields)
    taken = sum(a.numel() * a.element_size() for a in arrays)
    taken += buffer.behind.nbytes + buffer.ring * buffer.free.itemsize
    assert Replay.bytes_for(capacity, count, spec) == taken


IMAGE = Spec(64 * 64 * 3, 2, True, images=((0, (64, 64, 3)),), pixels=True)


def following(remedy):
    """The overrides that a message names."""
    return re.findall(r"agent\.\w+=\d+", remedy.rsplit("; ", 1)[1])


@pytest.mark.parametrize("free", [[4000, 1800, 3000], [6000, 6000, 1200], [800]])
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("spec", "overrides"),
    [
        (Spec(17, 6, False), ["agent=sac", "agent.buffer_size=30000000"]),
        (Spec(17, 6, False), ["agent=sac", "agent.buffer_size=30000000", "env.num_envs=64"]),
        (IMAGE, ["agent=sac_discrete", "agent.batch_size=32", "agent.buffer_size=900000",
                 "agent.learning_starts=500000"]),
        (IMAGE, ["agent=ppo", "agent.n_steps=200064", "env.num_envs=3"]),
        (IMAGE, ["agent=a2c", "agent.n_steps=100000", "env.num_envs=2"]),
        (Spec(376, 17, False), ["agent=ppo", "agent.n_steps=999936", "agent.batch_size=96"]),
    ],
)  # fmt: skip
def test_the_tightest_limit_is_named_with_a_size_that_is_then_accepted(
    spec, overrides, processes, free, monkeypatch
):
    told = [(f"limit {number}", number << 20) for number in free]
    monkeypatch.setattr(memory, "limits", lambda device: told)

    def require(*more):
        common = ["env.id=Any-v0", "accelerate=none", "total_steps=1000000000"]
        config = train_config([*common, *overrides, *more])
        require_memory(config, spec, CPU, processes)
        return config

    with pytest.raises(ConfigError, match=f"limit {min(free)} leaves") as caught:
        require()
    remedy = following(str(caught.value))
    config = require(*remedy)  # also as a configuration
    most = memory.USABLE * min(free) * (1 << 20)
    size = getattr(config.agent, "n_steps", None) or config.agent.buffer_size
    assert 0.7 * most < processes * memory.bytes_for(config, spec, size) < most
    for limit in range(len(told)):  # a little less is free when it is followed
        told[limit] = (told[limit][0], int(0.97 * told[limit][1]))
    require(*remedy)


def test_where_nothing_fits_the_remedy_is_another(monkeypatch):
    monkeypatch.setattr(memory, "limits", lambda device: [("this machine", 50 << 20)])
    config = train_config(["agent=sac", "env.id=Any-v0"])
    with pytest.raises(ConfigError, match=r"leaves 0\.05; free memory or raise that limit$"):
        require_memory(config, Spec(17, 6, False), CPU)


def test_a_rollout_is_promised_with_its_successors():
    spec = Spec(300, 2, False)
    rollout, episode = Rollout(500, CPU), torch.zeros(2, dtype=torch.bool)
    for _ in range(499):  # each of them a new episode
        obs = torch.randn(2, 300)
        rollout.add(Transition(obs, obs[:, :2], obs[:, 0], obs + 1.0, episode, episode, obs[:, :2]))
    state = rollout.state_dict()
    kept = sum(tensor.numel() * tensor.element_size() for tensor in tensors(state))
    assert kept == pytest.approx(Rollout.bytes_for(500, 2, spec), rel=0.01)


class Wide(gymnasium.Env):
    """Observations of 1,000 numbers, all of them the number of the step."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1000,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1000, np.float32), {}

    def step(self, action):
        self.count += 1
        obs = np.full(1000, self.count, np.float32)
        return obs, 1.0, False, self.count >= self.length, {}


gymnasium.register("Wide-v0", entry_point=Wide)

JUST_ABOVE = """
import resource, sys
import train
from runtime import build, memory
from runtime.launch.door import enter

require = build.require_memory

def limited(config, spec, device, processes=1):
    settings = config.agent
    size = settings.n_steps if settings.on_policy else settings.buffer_size
    promised = memory.bytes_for(config, spec, size)
    with open("/proc/self/statm") as file:
        base = int(file.read().split()[5]) * resource.getpagesize()
    limit = base + int(promised / memory.USABLE) + 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    require(config, spec, device, processes)

build.require_memory = limited
sys.exit(enter("train", train.run, sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["agent=sac", "agent.buffer_size=20000", "total_steps=21000", "env.kwargs.length=1"],
        ["agent=sac", "agent.buffer_size=20000", "total_steps=21000", "env.kwargs.length=1000"],
        ["agent=ppo", "agent.n_steps=8000", "agent.epochs=1", "agent.batch_size=1000",
         "total_steps=15000", "env.kwargs.length=1", "env.num_envs=1"],
    ],
)  # fmt: skip
def test_what_is_accepted_runs_to_its_end_under_a_limit_just_above_the_promise(overrides, tmp_path):
    if overrides[0] == "agent=sac":
        overrides = [*overrides, "agent.updates_per_step=0.001", "agent.batch_size=64",
                     "agent.learning_starts=1000"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", JUST_ABOVE, "env.id=tests.runtime.test_memory:Wide-v0",
         "run_dir=run", "accelerate=none", "threads=1", "eval.episodes=1", *overrides],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(train.__file__).parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").is_file()
