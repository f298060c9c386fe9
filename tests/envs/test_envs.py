"""The border to Gymnasium: literal transitions under every vectorisation, and what is refused."""

import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from common.errors import ConfigError, EnvironmentFault, LogpiError
from common.seeding import derive
from envs.envs import Envs
from networks.normalizer import SomePixels
from runtime.build import set_up_torch
from tests.helpers import lit, saved_and_read

COUNTING = "tests.helpers:Counting-v0"


def rollout(envs, steps):
    rows = []
    for step in range(steps):
        action = torch.full((envs.num_envs, 1), (step % 5) / 5.0 - 0.4)
        rows.append(envs.step(action, action))
    return rows


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("ends", ["terminated", "truncated"])
@pytest.mark.parametrize(("length", "num_envs"), [(1, 1), (1, 3), (3, 1), (3, 2)])
def test_every_transition_is_the_true_one(vectorization, ends, length, num_envs):
    """Observations count (episode, step): no row of a reset, no successor from the next episode."""
    envs = Envs(COUNTING, num_envs, vectorization, {"length": length, "ends": ends}, seed=0)
    try:
        rows = rollout(envs, 10)
    finally:
        envs.close()
    for step, row in enumerate(rows):
        episode, count = divmod(step, length)
        last = count == length - 1
        for index in range(num_envs):
            assert row.obs[index].tolist() == [episode, count]
            assert row.next_obs[index].tolist() == [episode, count + 1]
            assert row.reward[index].item() == pytest.approx(2 + 4 * ((step % 5) / 5.0 - 0.4))
            assert row.terminated[index].item() == (last and ends == "terminated")
            assert row.truncated[index].item() == (last and ends == "truncated")
    finished = envs.drain()
    assert [length_ for _, _, length_ in finished] == [length] * (10 // length * num_envs)
    assert envs.drain() == []


def test_native_cartpole_equals_the_single_environment_step_by_step():
    envs = Envs("CartPole-v1", 4, "native", {}, seed=3)
    single = gymnasium.make("CartPole-v1").unwrapped
    generator = torch.Generator().manual_seed(0)
    ends = 0
    for _ in range(300):
        action = torch.randint(2, (4,), generator=generator)
        row = envs.step(action, action)
        for index in range(4):
            single.reset()
            single.state = row.obs[index].double().numpy()
            single.steps_beyond_terminated = None
            successor, reward, terminated, _, _ = single.step(int(action[index]))
            assert row.next_obs[index].numpy() == pytest.approx(successor, abs=1e-5)
            assert row.reward[index].item() == reward == 1.0
            assert row.terminated[index].item() == terminated
            if terminated:
                ends += 1
                assert envs.obs[index].abs().max() <= 0.05  # already the next episode's start
    assert ends > 20


def test_native_cartpole_truncates_at_500_and_bootstraps_from_the_last_observation():
    envs = Envs("CartPole-v1", 2, "native", {}, seed=0)
    for step in range(500):
        obs = envs.obs.numpy()
        action = torch.from_numpy((obs[:, 2] + 0.3 * obs[:, 3] + 0.03 * obs[:, 1] > 0).astype(int))
        row = envs.step(action, action)
        assert not row.terminated.any()
        assert row.truncated.tolist() == [step == 499] * 2
    assert [length for _, _, length in envs.drain()] == [500, 500]
    assert (envs.obs.abs() <= 0.05).all()


def test_sync_equals_async_and_seeds_differ():
    def play(vectorization, seed):
        envs = Envs("Pendulum-v1", 2, vectorization, {}, seed=seed)
        rows = rollout(envs, 210)  # past the time limit
        envs.close()
        return torch.stack([row.obs for row in rows])

    assert torch.equal(play("sync", 0), play("async", 0))
    assert not torch.equal(play("sync", 0), play("sync", 1))


BOX2D = ["LunarLander-v3"]  # the others keep their world, and in it something of their past
MUJOCO = ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"]


@pytest.mark.parametrize(
    ("env_id", "vectorization", "before"),
    [("CartPole-v1", "native", 137), ("CartPole-v1", "sync", 137), ("Pendulum-v1", "sync", 250),
     ("Pendulum-v1", "native", 250),
     ("Pendulum-v1", "sync", 200), ("Pendulum-v1", "async", 30), ("Acrobot-v1", "sync", 507),
     ("MountainCarContinuous-v0", "sync", 20), *((name, "sync", 330) for name in BOX2D + MUJOCO)],
)  # fmt: skip
def test_environments_go_on_mid_episode_from_their_state(env_id, vectorization, before):
    """Every later transition and episode is bit for bit that of the environments saved."""
    if env_id in BOX2D + MUJOCO:
        pytest.importorskip("Box2D" if env_id in BOX2D else "mujoco")
    kwargs = {"max_episode_steps": 150} if env_id in MUJOCO else {}
    first, second = (Envs(env_id, 3, vectorization, kwargs, seed=seed) for seed in (1, 2))
    generator = torch.Generator().manual_seed(0)

    def play(envs, steps):
        rows = []
        for _ in range(steps):
            if envs.spec.discrete:
                action = torch.randint(envs.spec.action_dim, (3,), generator=generator)
            else:
                action = torch.rand(3, envs.spec.action_dim, generator=generator) * 2 - 1
            rows.append(envs.step(action, action))
        return rows

    try:
        play(first, before)
        state, drawn = saved_and_read(first.state_dict()), generator.get_state()
        expected = play(first, 220)
        play(second, 7)
        assert second.load_state_dict(state)
        generator.set_state(drawn)
        for row, wanted in zip(play(second, 220), expected, strict=True):
            assert all(torch.equal(*pair) for pair in zip(row, wanted, strict=True))
        assert second.steps == first.steps
        assert second.drain() == first.drain()
    finally:
        first.close()
        second.close()


def test_an_environment_that_gives_other_rewards_on_the_way_has_not_come_back():
    """What is seen is the same; what is paid depends on how many episodes there were."""
    kwargs = {"length": 9, "show_episode": False, "pay_episode": True}
    first, second = (Envs(COUNTING, 2, "sync", kwargs, seed=0) for _ in range(2))
    rollout(first, 14)
    assert not second.load_state_dict(saved_and_read(first.state_dict()))
    assert second.lengths.tolist() == [0, 0]
    kwargs["pay_episode"] = False
    first, second = (Envs(COUNTING, 2, "sync", kwargs, seed=0) for _ in range(2))
    rollout(first, 14)
    assert second.load_state_dict(saved_and_read(first.state_dict()))
    assert second.lengths.tolist() == [5, 5]


def test_an_environment_that_cannot_be_brought_back_is_told_and_starts_anew():
    """Counting carries the episode's number from one episode to the next, so replay strays."""
    first, second = (Envs(COUNTING, 2, "sync", {"length": 3}, seed=0) for _ in range(2))
    rollout(first, 14)
    assert not second.load_state_dict(saved_and_read(first.state_dict()))
    assert second.obs[:, 1].tolist() == [0, 0]
    assert second.lengths.tolist() == [0, 0]
    assert [row.next_obs[0, 1].item() for row in rollout(second, 4)] == [1, 2, 3, 1]


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(-1, 1, np.float32), (-2.0, 6.0, np.float32), (0, 1e-6, np.float64), (-400, 400, np.float32),
     (3.0, 3.5, np.float32)],
)  # fmt: skip
def test_actions_are_clipped_then_mapped_into_the_bounds(low, high, dtype):
    from envs.spaces import ActionMap

    space = gymnasium.spaces.Box(low, high, (2, 2), dtype)
    to_env = ActionMap(space)
    ends = to_env(np.array([[-1.0] * 4, [0.0] * 4, [1.0] * 4, [7.0] * 4], np.float32))
    assert ends.shape == (4, 2, 2)
    assert ends.dtype == dtype
    assert ends[0] == pytest.approx(np.full((2, 2), low))
    assert ends[1] == pytest.approx(np.full((2, 2), (low + high) / 2))
    assert np.array_equal(ends[2], ends[3])
    many = np.random.default_rng(0).uniform(-1.1, 1.1, (100_000, 4)).astype(np.float32)
    assert all(space.contains(a) for a in to_env(many)[:1000])
    assert to_env(many).min() >= space.low.min()
    assert to_env(many).max() <= space.high.max()


def test_discrete_actions_start_where_the_space_does():
    from envs.spaces import ActionMap

    space = gymnasium.spaces.Discrete(3, start=5)
    assert ActionMap(space)(np.array([0, 2])).tolist() == [5, 7]


class Odd(gymnasium.Env):
    """One fault at step 3."""

    observation_space = gymnasium.spaces.Box(-10, 10, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fault="none"):
        self.fault, self.count = fault, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.count += 1
        obs, reward = np.zeros(2, np.float32), 0.0
        if self.count == 3:
            if self.fault == "raise":
                raise RuntimeError("the motor\nis broken")
            obs = np.array([0, {"nan": np.nan, "inf": np.inf}.get(self.fault, 0)], np.float32)
            reward = {"reward": np.nan, "huge": 1e300}.get(self.fault, 0.0)
        return obs, reward, False, False, {}


gymnasium.register("Odd-v0", entry_point=Odd)


FAULTS = {
    "nan": "observation",
    "inf": "observation",
    "reward": "reward",
    "huge": "reward",
    "raise": "the motor is broken",
}


@pytest.mark.parametrize(
    ("vectorization", "fault"),
    [*[("sync", fault) for fault in FAULTS], ("async", "nan"), ("async", "raise")],
)
def test_faults_stop_at_the_border_in_one_line(vectorization, fault):
    envs = Envs("tests.envs.test_envs:Odd-v0", 2, vectorization, {"fault": fault}, seed=0)
    action = torch.zeros(2, dtype=torch.int64)
    try:
        for _ in range(2):
            envs.step(action, action)
        with pytest.raises(EnvironmentFault) as caught:
            envs.step(action, action)
    finally:
        envs.close()
    message = str(caught.value)
    assert FAULTS[fault] in message
    assert "Odd-v0" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("env_id", "kwargs", "words"),
    [("Nope-v0", {}, "doesn't exist"), ("nope:Nope-v0", {}, "nope"), ("a b", {}, "env.id"),
     ("CartPole-v1", {"foo": 1}, "env.kwargs"),
     ("CartPole-v1", {"max_episode_steps": 0}, "env.kwargs")],
)  # fmt: skip
def test_what_cannot_be_made_is_a_matter_of_configuration(env_id, kwargs, words):
    with pytest.raises(ConfigError) as caught:
        Envs(env_id, 1, "sync", kwargs, seed=0)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("env_id", "module", "extra"),
    [("LunarLander-v3", "Box2D", "box2d"), ("HalfCheetah-v5", "mujoco", "mujoco")],
)
def test_a_missing_library_is_named_by_the_extra_that_has_it(env_id, module, extra, monkeypatch):
    for name in list(sys.modules):
        if f"{name}.".startswith((f"{module}.", f"gymnasium.envs.{extra}.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(ConfigError, match=rf"env\.id: {env_id} .*; pip install \"\.\[{extra}\]\"$"):
        Envs(env_id, 1, "sync", {}, seed=0)


def space_env(observation, action):
    class Spaces(gymnasium.Env):
        observation_space, action_space = observation, action

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.observation_space.sample(), {}

        def step(self, action):
            return self.observation_space.sample(), 0.0, False, False, {}

    gymnasium.register("Spaces-v0", entry_point=Spaces)
    gymnasium.registry["Spaces-v0"].entry_point = Spaces
    return "Spaces-v0"


Box, Discrete = gymnasium.spaces.Box, gymnasium.spaces.Discrete
Dict, Tuple = gymnasium.spaces.Dict, gymnasium.spaces.Tuple
MultiDiscrete = gymnasium.spaces.MultiDiscrete
VECTOR = Box(-1, 1, (3,), np.float32)


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (VECTOR, Box(-np.inf, np.inf, (1,), np.float32)),
        (VECTOR, Box(np.array([-1, -1]), np.array([1, np.inf]), dtype=np.float32)),
        (VECTOR, Box(-3e38, 3e38, (1,), np.float32)),
        (VECTOR, Box(np.array([0, 1]), np.array([1, 1]), dtype=np.float32)),
        (VECTOR, Box(-1, 1, (0,), np.float32)),
        (VECTOR, Box(-5, 5, (1,), np.int64)),
        (VECTOR, Discrete(1)),
        (VECTOR, gymnasium.spaces.Tuple((Discrete(2), Discrete(2)))),
        (Box(-1, 1, (0,), np.float32), Discrete(2)),
        (Box(0, 255, (4, 84, 84, 3), np.uint8), Discrete(2)),
        (gymnasium.spaces.Sequence(Discrete(2)), Discrete(2)),
    ],
)
def test_spaces_that_cannot_be_served_are_refused_in_one_line(observation, action):
    with pytest.raises(ConfigError) as caught:
        Envs(space_env(observation, action), 1, "sync", {}, seed=0)
    assert "Spaces-v0" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("observation", "action", "width"),
    [
        (Discrete(5), Discrete(2), 5),
        (gymnasium.spaces.MultiBinary(4), Discrete(2), 4),
        (gymnasium.spaces.Dict({"a": VECTOR, "b": Discrete(2)}), Discrete(2), 5),
        (Box(-1, 1, (2, 2), np.float64), Box(-1, 1, (2, 2), np.float64), 4),
        (Box(0, 9, (3,), np.int64), Box(-1, 1, (1,), np.float64), 3),
        (Box(-np.inf, np.inf, (), np.float32), Discrete(2, start=3), 1),
        (VECTOR, MultiDiscrete([[3, 2], [1, 4]], start=[[0, 5], [0, 0]]), 3),
        (VECTOR, gymnasium.spaces.MultiBinary((2, 3)), 3),
    ],
)
def test_spaces_that_can_be_served(observation, action, width):
    envs = Envs(space_env(observation, action), 2, "sync", {}, seed=0)
    assert envs.spec.obs_dim == width
    assert envs.obs.shape == (2, width)
    assert envs.obs.dtype == torch.float32
    noise = torch.zeros(2, *envs.spec.noise_shape)
    move = noise.argmax(-1) if envs.spec.discrete else noise
    assert all(action.contains(given) for given in envs.to_env(move.numpy()))
    assert envs.step(move, move).next_obs.shape == (2, width)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_bytes_of_an_image_stay_bytes(mode):
    where = {"discrete": True, "shape": (4, 6, 3)}
    envs = Envs("tests.helpers:Picture-v0", 2, mode, where, seed=0)
    try:
        assert envs.spec.images == ((0, (4, 6, 3)),)
        assert (envs.spec.pixels, envs.spec.obs_dim) == (True, 72)
        assert envs.obs.dtype == torch.uint8
        pictures = [lit(right, (4, 6, 3)).ravel() for right in (False, True)]
        assert all(any(np.array_equal(obs, picture) for picture in pictures) for obs in envs.obs)
        assert not envs.step(torch.zeros(2, dtype=torch.int64), torch.zeros(2)).next_obs.any()
        assert envs.obs.any()
    finally:
        envs.close()


def test_bytes_in_two_dimensions_are_a_grey_image():
    envs = Envs(space_env(Box(0, 255, (5, 4), np.uint8), Discrete(2)), 2, "sync", {}, seed=0)
    assert (envs.spec.images, envs.spec.pixels) == (((0, (5, 4, 1)),), True)
    assert (envs.obs.dtype, envs.obs.shape) == (torch.uint8, (2, 20))
    table = Envs(space_env(Box(0, 1, (5, 4), np.float32), Discrete(2)), 2, "sync", {}, seed=0)
    assert table.spec.images == ()


GREY = Box(0, 255, (3, 3), np.uint8)


def test_images_in_a_dict_are_found_where_they_lie():
    inside = {
        "arm": Box(-1, 1, (3,), np.float32),
        "camera": Box(0, 255, (4, 6, 3), np.uint8),
        "more": Tuple((Discrete(2), Box(-1, 1, (2, 2, 5), np.float32), GREY)),
    }
    envs = Envs(space_env(Dict(inside), Discrete(2)), 2, "sync", {}, seed=0)
    # 3 numbers, 72 bytes, 2 of one choice, 20 numbers, 9 bytes
    assert envs.spec.obs_dim == 3 + 72 + 2 + 20 + 9
    assert envs.spec.images == ((3, (4, 6, 3)), (77, (2, 2, 5)), (97, (3, 3, 1)))
    assert (envs.spec.pixels, envs.spec.bytes) == (False, ((3, 75), (97, 106)))
    # kept as 25 numbers of 4 bytes, and 81 bytes
    assert (envs.obs.dtype, envs.obs.shape) == (torch.uint8, (2, 4 * 25 + 81))
    assert envs.spec.obs_bytes == 181
    obs = torch.from_numpy(envs.read(envs.obs.numpy()))
    assert (obs.dtype, obs.shape) == (torch.float32, (2, 106))
    given = envs.backend.envs.obs  # as Gymnasium flattens it
    assert np.array_equal(obs.numpy(), given.astype(np.float32))
    camera = obs[:, 3:75]
    assert torch.equal(camera, camera.round())
    assert camera.max() > 200
    spec = envs.spec
    normalised = SomePixels(spec.obs_dim, spec.bytes)(envs.obs)
    torch.testing.assert_close(normalised[:, 3:75] * 255.0, camera)
    assert torch.equal(normalised[:, :3], obs[:, :3])
    assert torch.equal(normalised[:, 75:97], obs[:, 75:97])
    assert normalised.abs().max() <= 1.0


class Tiny(gymnasium.Env):
    """Its observation is 1 while it can still halve a number below 1e-38."""

    observation_space = Box(0, 1, (1,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number = np.float32(1e-39)
        return np.ones(1, np.float32), {}

    def step(self, action):
        self.number *= np.float32(0.5)
        return np.array([self.number > 0], np.float32), 0.0, False, False, {}


gymnasium.register("Tiny-v0", entry_point=Tiny)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_tiny_numbers_are_what_they_are_in_an_environment(mode):
    set_up_torch(torch.get_num_threads())
    envs = Envs("tests.envs.test_envs:Tiny-v0", 1, mode, {}, seed=0)
    try:
        assert envs.step(torch.zeros(1, dtype=torch.int64), torch.zeros(1)).next_obs == 1.0
        assert torch.tensor([1e-39]) * 0.5 == 0.0  # but not in an update
    finally:
        envs.close()


class Panic(BaseException):
    """As raised by bindings to other languages."""


class Panics(gymnasium.Env):
    observation_space = Box(0, 1, (1,), np.float32)
    action_space = Discrete(2)

    def __init__(self, where):
        self.where = where

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        raise Panic("lost")


gymnasium.register("Panics-v0", entry_point=Panics)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_what_is_raised_and_no_exception_is_a_fault_too(mode):
    envs = Envs("tests.envs.test_envs:Panics-v0", 1, mode, {"where": "step"}, seed=0)
    try:
        with pytest.raises(EnvironmentFault, match="step raised Panic: lost in environment 0"):
            envs.step(torch.zeros(1, dtype=torch.int64), torch.zeros(1))
    finally:
        envs.close()


class Wider(gymnasium.Env):
    """Bytes that come as larger numbers."""

    observation_space = Box(0, 255, (2, 3, 1), np.uint8)
    action_space = Discrete(2)

    def __init__(self, value):
        self.value = value

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full((2, 3, 1), self.value, np.uint16), {}

    def step(self, action):
        return self.reset()[0], 0.0, True, False, {}


gymnasium.register("Wider-v0", entry_point=Wider)


def test_whole_numbers_that_do_not_fit_are_told_and_not_wrapped_around():
    where = "tests.envs.test_envs:Wider-v0"
    assert (Envs(where, 1, "sync", {"value": 200}, seed=0).obs == 200).all()
    with pytest.raises(LogpiError, match="is 300, which uint8 does not have"):
        Envs(where, 1, "sync", {"value": 300}, seed=0)


def test_numbers_of_an_image_are_float32():
    envs = Envs(space_env(Box(0, 1, (2, 3, 4), np.float64), Discrete(2)), 2, "sync", {}, seed=0)
    assert (envs.spec.images, envs.spec.pixels) == (((0, (2, 3, 4)),), False)
    assert (envs.obs.dtype, envs.obs.shape) == (torch.float32, (2, 24))


def test_several_choices_go_to_their_places():
    space = MultiDiscrete([[3, 2], [1, 4]], start=[[0, 5], [0, 0]])
    envs = Envs(space_env(VECTOR, space), 2, "sync", {}, seed=0)
    assert envs.spec.choices == (3, 2, 1, 4)
    assert envs.spec.noise_shape == (4, 4)
    assert envs.to_env(np.array([[2, 1, 0, 3]])).tolist() == [[[2, 6], [0, 3]]]


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.uint64])
def test_several_choices_come_in_the_type_of_their_space(dtype):
    space = MultiDiscrete([3, 2], dtype=dtype)
    envs = Envs(space_env(VECTOR, space), 2, "sync", {}, seed=0)
    given = envs.to_env(np.array([[2, 1], [0, 0]]))
    assert given.dtype == dtype
    assert all(space.contains(action) for action in given)


class SecondLife(gymnasium.Env):
    """Raises in the first step of a process's first episode that was not begun by the loop."""

    lives = 0

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        SecondLife.lives += 1
        self.hostile = SecondLife.lives > 2  # two copies are of the first life

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if self.hostile:
            self.hostile = False
            raise ValueError("not again")
        return np.zeros(1, np.float32), 0.0, False, False, {}


gymnasium.register("SecondLife-v0", entry_point=SecondLife)


def test_an_environment_that_raises_on_the_way_back_starts_anew_too():
    first, second = (Envs("SecondLife-v0", 2, "sync", {}, seed=0) for _ in range(2))
    for _ in range(3):
        first.step(torch.zeros(2, 1), torch.zeros(2, 1))
    assert not second.load_state_dict(saved_and_read(first.state_dict()))
    assert second.lengths.tolist() == [0, 0]
    assert second.backend.episodes == [1, 1]
    assert len(second.backend.journal) == 0
    assert second.backend.before.tolist() == [0, 0]  # no episode ended here


class Shortened(gymnasium.Env):
    """Of what was begun with copy 0's seed, episodes end sooner from the second life on."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    length = 9

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.first = 0, seed == derive(0, "episode", 0, 0) >> 32
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if self.count == self.length:
            raise RuntimeError("it is over")
        self.count += 1
        over = self.count == (self.length if self.first else 9)
        return np.zeros(1, np.float32), 0.0, over, False, {}


gymnasium.register("Shortened-v0", entry_point=Shortened)


def test_a_copy_that_ends_elsewhere_on_the_way_back_is_not_stepped_on(monkeypatch):
    """The other one comes back."""
    first, second = (Envs("Shortened-v0", 2, "sync", {}, seed=0) for _ in range(2))
    for _ in range(6):
        first.step(torch.zeros(2, 1), torch.zeros(2, 1))
    monkeypatch.setattr(Shortened, "length", 4)
    monkeypatch.setattr(second.backend.copies[1].unwrapped, "length", 9, raising=False)
    assert not second.load_state_dict(saved_and_read(first.state_dict()))
    assert second.lengths.tolist() == [0, 6]


class Leaving(gymnasium.Env):
    """Ends the process when it is closed, or so it thinks; notes who was."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    closed = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def close(self):
        Leaving.closed += 1
        raise SystemExit(0)


gymnasium.register("Leaving-v0", entry_point=Leaving)


def test_what_a_close_raises_ends_nothing_and_keeps_no_other_from_closing(capsys):
    envs = Envs("Leaving-v0", 3, "sync", {}, seed=0)
    Leaving.closed = 0
    envs.close()
    assert Leaving.closed == 3
    assert capsys.readouterr().err == "warning: env Leaving-v0: close raised SystemExit(0)\n"


class Lost(gymnasium.Env):
    """Raises at its third step, once a file is there."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, flag):
        self.flag, self.count = Path(flag), 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        if self.count == 3 and self.flag.exists():
            raise ValueError("simulator lost")
        return np.zeros(1, np.float32), 0.0, False, False, {}


gymnasium.register("Lost-v0", entry_point=Lost)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_copies_that_raise_on_the_way_back_are_made_anew(mode, tmp_path):
    kwargs = {"flag": str(tmp_path / "flag")}
    first, second = (
        Envs("tests.envs.test_envs:Lost-v0", 2, mode, kwargs, seed=0) for _ in range(2)
    )
    try:
        for _ in range(5):
            first.step(torch.zeros(2, 1), torch.zeros(2, 1))
        (tmp_path / "flag").touch()
        assert not second.load_state_dict(saved_and_read(first.state_dict()))
        assert second.lengths.tolist() == [0, 0]
        second.step(torch.zeros(2, 1), torch.zeros(2, 1))
    finally:
        first.close()
        second.close()


def test_observations_of_a_checkpoint_in_another_form_are_no_observations():
    """Such as numbers, by which an earlier revision kept images among others."""
    where = {"discrete": True, "among": True}
    envs = Envs("tests.helpers:Picture-v0", 2, "sync", where, seed=0)
    state = envs.state_dict()
    assert envs.load_state_dict(state)
    state["obs"] = torch.from_numpy(envs.read(envs.obs.numpy()))
    with pytest.raises(ValueError, match="observations are kept in another form"):
        envs.load_state_dict(state)


class Broken(gymnasium.Env):
    """A camera beside a number, which is not finite as float32 from the second step on."""

    observation_space = Dict(
        camera=Box(0, 255, (2, 3, 1), np.uint8), speed=Box(-np.inf, np.inf, (2,), np.float64)
    )
    action_space = Discrete(2)

    def __init__(self, value):
        self.value = value

    def reset(self, *, seed=None, options=None):
        self.speed = np.zeros(2)
        return self.seen(), {}

    def step(self, action):
        self.speed[1] = 3e38 if self.speed[1] == 0.0 else self.value
        return self.seen(), 1.0, False, False, {}

    def seen(self):
        return {"camera": np.full((2, 3, 1), 255, np.uint8), "speed": self.speed}


gymnasium.register("BesideImage-v0", entry_point=Broken)


@pytest.mark.parametrize(
    ("value", "word"), [(4e38, r"4.e\+38"), (-np.inf, "-inf"), (np.nan, "nan")]
)
def test_a_number_beside_an_image_is_held_to_be_finite(value, word):
    envs = Envs(f"{__name__}:BesideImage-v0", 2, "sync", {"value": value}, seed=0)
    action = torch.zeros(2, dtype=torch.int64)
    row = envs.step(action, action)
    assert envs.read(row.next_obs.numpy())[1].tolist() == [*[255] * 6, 0, float(np.float32(3e38))]
    why = rf"observation\['speed'\] \[.* {word}\] is not finite in environment 0 at step 2"
    with pytest.raises(EnvironmentFault, match=why):
        envs.step(action, action)
