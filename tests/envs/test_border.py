"""What passes between an environment and the loop is what the environment itself would give."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from gymnasium.wrappers import ClipAction, FlattenObservation, TransformAction

from common.errors import ConfigError, EnvironmentFault, Halt, Stopped
from common.seeding import derive
from envs import make, vector
from envs.envs import Envs
from runtime.build import set_up_torch
from tests.envs.test_workers import children
from tests.helpers import evaluator_of, saved_and_read
from tests.test_architecture import ROOT

HERE = "tests.envs.test_border"
TRACKED = subprocess.run(["git", "ls-files", "configs/env/*.yaml"], cwd=ROOT, capture_output=True,
                         text=True, check=False).stdout.split()  # fmt: skip
NAMED = {Path(file).stem: yaml.safe_load((ROOT / file).read_text()) for file in TRACKED}
PHYSICS = {"BipedalWalker": "Box2D", "CarRacing": "Box2D", "LunarLander": "Box2D",
           "HalfCheetah": "mujoco", "Hopper": "mujoco", "Walker2d": "mujoco",
           "Ant": "mujoco", "Humanoid": "mujoco"}  # fmt: skip


class Pendant(gymnasium.Env):
    """A ball thrown upwards in a Box2D world of its own, which counts how often it was touched."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gymnasium.spaces.Box(-20.0, 20.0, (1,), np.float64)

    def __init__(self, lazily=False):
        self.world = None
        if not lazily:
            self.build()

    def build(self):
        import Box2D

        class Touched(Box2D.b2ContactListener):
            count = 0

            def BeginContact(self, contact):
                self.count += 1

        self.touched = Touched()
        self.world = Box2D.b2World(gravity=(0.3, -2.0), contactListener=self.touched)
        self.world.CreateStaticBody(position=(0, -1)).CreatePolygonFixture(box=(50, 1))
        self.ball = self.world.CreateDynamicBody()
        self.ball.CreateCircleFixture(radius=0.1, density=1.0, restitution=0.8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.world is None:
            self.build()
        self.ball.position = (0.0, self.np_random.uniform(0.2, 0.5))
        self.ball.linearVelocity, self.ball.angularVelocity = (0.0, 0.0), 0.0
        return self.seen(), {}

    def step(self, action):
        self.ball.ApplyForceToCenter((0.0, float(action[0]) / 20), True)
        self.world.Step(0.02, 6, 2)
        return self.seen(), self.ball.linearVelocity.y, self.touched.count % 40 == 39, False, {}

    def seen(self):
        return np.array([*self.ball.position, self.touched.count], np.float64)


class Beside(gymnasium.Wrapper):
    """A wrapper with a world of its own, or with an object that has one."""

    def __init__(self, held):
        super().__init__(gymnasium.make("Pendulum-v1").unwrapped)
        import Box2D

        held = self if held == "itself" else SimpleNamespace()
        held.world, self.held = Box2D.b2World(), held


gymnasium.register("Pendant-v0", entry_point=Pendant)
gymnasium.register("Pendant-v1", entry_point=Beside)


def plain(env_id, kwargs, seed, index, actions):
    """Rows and returns of one copy, as Gymnasium makes it, with the seeds of its episodes here."""
    env = gymnasium.make(env_id, disable_env_checker=True, **kwargs)
    rows, returns, episode, total = [], [], 0, 0.0

    def reset():
        return env.reset(seed=derive(seed, "episode", index, episode) >> 32)[0]

    obs = reset()
    for action in actions:
        before = np.array(obs)
        obs, reward, terminated, truncated, _ = env.step(np.array(action))
        rows.append((before, np.array(obs), reward, terminated, truncated))
        total += float(reward)
        if terminated or truncated:
            returns.append((index, total))
            episode, total = episode + 1, 0.0
            obs = reset()
    env.close()
    return rows, returns


def assert_plain(env_id, vectorization, kwargs, steps, count=2):
    """Every row of `Envs`, and every return, is that of the plain environment, to the last bit."""
    for name, module in PHYSICS.items():
        if env_id.startswith(name):
            pytest.importorskip(module)
    envs = Envs(env_id, count, vectorization, kwargs, seed=11)
    generator = torch.Generator().manual_seed(0)
    rows, actions = [], []
    try:
        for _ in range(steps):
            if envs.spec.discrete:
                action = torch.randint(envs.spec.action_dim, (count,), generator=generator)
            else:
                action = torch.rand(count, envs.spec.action_dim, generator=generator) * 2 - 1
            actions.append(envs.to_env(action.numpy()))
            rows.append(envs.step(action, action))
        finished = envs.drain()
    finally:
        envs.close()
    for index in range(count):
        own = [action[index] for action in actions]
        expected, returns = plain(env_id, kwargs, 11, index, own)
        assert len(returns) >= 2
        assert [(who, total) for who, total, _ in finished if who == index] == returns
        for row, (obs, next_obs, reward, terminated, truncated) in zip(rows, expected, strict=True):
            kind = np.uint8 if obs.dtype == np.uint8 else np.float32
            assert np.array_equal(row.obs[index].numpy(), obs.astype(kind).ravel())
            assert np.array_equal(row.next_obs[index].numpy(), next_obs.astype(kind).ravel())
            assert row.reward[index] == np.float32(reward)
            assert (bool(row.terminated[index]), bool(row.truncated[index])) == (
                terminated,
                truncated,
            )


@pytest.mark.parametrize("name", sorted(set(NAMED) - {"custom"}))
def test_an_environment_with_a_name_here_is_that_of_gymnasium(name):
    env = NAMED[name]
    assert_plain(env["id"], "sync", {**env["kwargs"], "max_episode_steps": 25}, 60)


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [("BipedalWalker-v3", {"hardcore": True}), ("LunarLander-v3", {"enable_wind": True}),
     ("CarRacing-v3", {"lap_complete_percent": 0.9})],
)  # fmt: skip
def test_the_physics_of_box2d_is_that_of_the_plain_environment(env_id, kwargs):
    short = {**kwargs, "max_episode_steps": 4 if env_id.startswith("Car") else 25}
    assert_plain(env_id, "sync", short, 9 if env_id.startswith("Car") else 60, count=1)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_box2d_world_of_ones_own_keeps_its_gravity_and_its_listener(vectorization):
    pytest.importorskip("Box2D")
    assert_plain(f"{HERE}:Pendant-v0", vectorization, {"max_episode_steps": 50}, 110)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "vectorization", "resets", "lasts"),
    [("BipedalWalker-v3", {}, "sync", 1, True), ("LunarLander-v3", {}, "sync", 2, False),
     ("Pendulum-v1", {}, "sync", 2, False), ("CartPole-v1", {}, "native", 1, False),
     ("Pendant-v0", {}, "async", 1, True), ("Pendulum-v1", {}, "async", 1, False),
     ("Pendant-v0", {"lazily": True}, "sync", 1, False),
     ("Pendant-v0", {"lazily": True}, "sync", 2, True),
     ("Pendant-v1", {"held": "itself"}, "sync", 1, True),
     ("Pendant-v1", {"held": "apart"}, "sync", 1, True)],
)  # fmt: skip
def test_a_world_that_outlives_a_reset_is_known(env_id, kwargs, vectorization, resets, lasts):
    pytest.importorskip("Box2D")
    env_id = f"{HERE}:{env_id}" if env_id.startswith("Pendant") else env_id
    envs = Envs(env_id, 2, vectorization, kwargs, seed=0)
    try:
        for _ in range(resets - 1):
            envs.reset(1)
        assert envs.backend.lasting == ("its Box2D world outlives a reset" if lasts else None)
    finally:
        envs.close()


Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple = (
    getattr(gymnasium.spaces, name)
    for name in ("Box", "Dict", "Discrete", "MultiBinary", "MultiDiscrete", "Text", "Tuple")
)
ARM, CAM = Box(-1, 1, (2,), np.float32), Box(0, 255, (3, 2, 1), np.uint8)
PARTS = Dict(arm=ARM, cam=CAM, more=Tuple((Discrete(3, start=2), MultiDiscrete([[2, 4]]))))
GOOD = {
    "arm": np.array([0.5, -1], np.float32),
    "cam": np.arange(6, dtype=np.uint8).reshape(3, 2, 1),
    "more": (3, np.array([[1, 3]])),
}
VECTOR = [0.5, -1, 0, 1, 2, 3, 4, 5, 0, 1, 0, 0, 1, 0, 0, 0, 1]
IMAGE = np.zeros((3, 2, 1))


def instead(**parts):
    return {**GOOD, **parts}


# space, what comes, and what is wrong with it: None where it is only of another kind
OBSERVATIONS = {
    "whole": (PARTS, GOOD, None),
    "more keys": (PARTS, instead(depth=1), None),
    "lists": (PARTS, instead(arm=[1, 0], more=[np.array([2]), [[0, 1]]]), None),
    "wider kinds": (PARTS, instead(arm=np.zeros(2), cam=IMAGE.astype(np.uint32) + 255), None),
    "float for bytes": (PARTS, instead(cam=IMAGE + 0.9),
                        "observation['cam'] has dtype float64, its space uint8"),
    "int for bytes": (PARTS, instead(cam=IMAGE.astype(np.int64) + 300),
                      "observation['cam'] has dtype int64, its space uint8"),
    "too large for bytes": (PARTS, instead(cam=IMAGE.astype(np.uint16) + 300),
                            "observation['cam'][0, 0, 0] is 300, which uint8 does not have"),
    "too large for int8": (Dict(cam=Box(-128, 127, (1,), np.int8)), {"cam": np.array([200])},
                           "observation['cam'][0] is 200, which int8 does not have"),
    "swapped": (Dict(a=ARM, b=Box(-1, 1, (3,))), {"a": np.zeros(3), "b": np.zeros(2)},
                "observation['a'] has shape (3,), its space (2,)"),
    "as many numbers": (PARTS, instead(cam=np.zeros((1, 2, 3), np.uint8)),
                        "observation['cam'] has shape (1, 2, 3), its space (3, 2, 1)"),
    "not finite": (PARTS, instead(arm=np.array([0, np.nan])),
                   "observation['arm'] [ 0. nan] is not finite"),
    "too large": (Tuple((ARM, ARM)), (np.zeros(2), np.array([1e300, 0.25])),
                  "observation[1] [ inf 0.25] is not finite"),
    "text": (PARTS, instead(arm="none"), "observation['arm'] has dtype <U4, its space float32"),
    "ragged": (PARTS, instead(arm=[[0], [0, 1]]), "observation['arm'] is no array, "),
    "a key missing": (PARTS, {"arm": GOOD["arm"], "more": GOOD["more"]},
                      "observation has no 'cam', its space does"),
    "no dict": (PARTS, GOOD["arm"], "observation is of type ndarray, its space a Dict"),
    "no tuple": (PARTS, instead(more=3), "observation['more'] is of type int, its space a Tuple"),
    "no parts": (Tuple((ARM,)), np.array(3), "observation is of type ndarray, its space a Tuple"),
    "one part more": (PARTS, instead(more=(*GOOD["more"], 0)),
                      "observation['more'] has 3 parts, its space 2"),
    "one part less": (Tuple((ARM, ARM)), (np.zeros(2),), "observation has 1 parts, its space 2"),
    "inner": (PARTS, instead(more=(2, [[2, 0]])),
              "observation['more'][1][0, 0] is 2, which MultiDiscrete([[2 4]]) does not have"),
    "state": (Discrete(5), 4, None),
    "state as bool": (Discrete(5), True, None),
    "state as array": (Discrete(5), np.array([4], np.uint8), None),
    "below": (Discrete(5), -1, "observation is -1, which Discrete(5) does not have"),
    "above": (Discrete(5), np.array(5), "observation is 5, which Discrete(5) does not have"),
    "before the start": (Discrete(5, start=2), np.int32(1),
                         "observation is 1, which Discrete(5, start=2) does not have"),
    "after a start": (Discrete(5, start=2), 7,
                      "observation is 7, which Discrete(5, start=2) does not have"),
    "last after a start": (Discrete(5, start=-2), 2, None),
    "float after a start": (Discrete(5, start=-2), -1.0,
                            "observation has dtype float64, its space int64"),
    "float for a state": (Discrete(5), 2.0, "observation has dtype float64, its space int64"),
    "two states": (Discrete(5), np.array([1, 2]), "observation has shape (2,), its space ()"),
    "states": (MultiDiscrete([5, 5], start=[1, 0]), [5, 4], None),
    "states as bytes": (MultiDiscrete([5, 5], start=[1, 0]), np.array([5, 4], np.uint8), None),
    "over": (MultiDiscrete([5, 5, 5]), np.array([5, 1, 2]),
             "observation[0] is 5, which MultiDiscrete([5 5 5]) does not have"),
    "under": (MultiDiscrete([5, 5], start=[1, 0]), np.array([0, 4], np.uint64),
              "observation[0] is 0, which MultiDiscrete([5 5], start=[1 0]) does not have"),
    "floats for states": (MultiDiscrete([5, 5]), np.array([1.0, 2.0]),
                          "observation has dtype float64, its space int64"),
    "states in another shape": (MultiDiscrete([[5, 5]]), np.array([1, 2]),
                                "observation has shape (2,), its space (1, 2)"),
    "flags": (MultiBinary(3), np.array([True, False, True]), None),
    "no flag": (MultiBinary((1, 3)), np.array([[0, 1, 2]]),
                "observation[0, 2] is 2, which MultiBinary((1, 3)) does not have"),
    "half a flag": (MultiBinary(3), np.array([0, 0.5, 1]),
                    "observation has dtype float64, its space int8"),
    "letters": (Text(4, charset="ab"), "abba", None),
    "no letter": (Text(4, charset="ab"), "abc", "observation is 'abc', which Text("),
    "one of": (gymnasium.spaces.OneOf((ARM, Discrete(3))), (1, 2), None),
    "one of none": (gymnasium.spaces.OneOf((ARM, Discrete(3))), (1, 3),
                    "observation is (1, 3), which OneOf("),
    "box as float": (CAM, IMAGE + 0.9, "observation has dtype float64, its space uint8"),
}  # fmt: skip


class Shows(gymnasium.Env):
    """Shows what belongs to its space, and at its second step what is named."""

    action_space = Discrete(2)

    def __init__(self, name, at=2):
        self.observation_space, self.late, _ = OBSERVATIONS[name]
        self.at = at

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.count = 0
        return self.late if self.at == 0 else self.observation_space.sample(), {}

    def step(self, action):
        self.count += 1
        obs = self.late if self.count == self.at else self.observation_space.sample()
        return obs, 0.0, False, False, {}


gymnasium.register("Shows-v0", entry_point=Shows)


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_an_observation_is_held_to_its_space_part_by_part(name):
    _, obs, wrong = OBSERVATIONS[name]
    envs = Envs("Shows-v0", 2, "sync", {"name": name}, seed=0)
    still = torch.zeros(2, dtype=torch.int64)
    envs.step(still, still)
    if wrong is not None:
        with pytest.raises(EnvironmentFault, match=re.escape(f"env Shows-v0: {wrong}")) as caught:
            envs.step(still, still)
        assert " in environment 0 at step " in str(caught.value)
        with pytest.raises(ValueError, match=f"^{re.escape(wrong)}"):
            envs.to_vector(obs)
        with pytest.raises(EnvironmentFault, match=re.escape(f"env Shows-v0: {wrong}")):
            Envs("Shows-v0", 2, "sync", {"name": name, "at": 0}, seed=0)
        return
    seen = envs.read(envs.step(still, still).next_obs.numpy())
    assert np.array_equal(seen, np.stack([envs.to_vector(obs)] * 2).astype(seen.dtype))


def test_parts_lie_where_gymnasium_flattens_them():
    for name, (space, obs, wrong) in OBSERVATIONS.items():
        if wrong is None and not isinstance(space, gymnasium.spaces.OneOf):
            envs = Envs("Shows-v0", 1, "sync", {"name": name, "at": 0}, seed=0)
            belongs = {"lists": instead(arm=np.array([1, 0]), more=(2, np.array([[0, 1]]))),
                       "states": np.array(obs), "state as array": 4}.get(name, obs)  # fmt: skip
            expected = gymnasium.spaces.flatten(space, belongs)
            assert (
                envs.read(envs.obs.numpy())[0].tolist() == expected.astype(np.float32).tolist()
            ), name
    whole = Envs("Shows-v0", 1, "sync", {"name": "whole", "at": 0}, seed=0)
    assert whole.read(whole.obs.numpy())[0].tolist() == VECTOR
    late = Envs("Shows-v0", 1, "sync", {"name": "last after a start", "at": 0}, seed=0)
    assert late.obs[0].tolist() == [0, 0, 0, 0, 1]


def test_a_worker_holds_its_observations_to_their_parts():
    envs = Envs(f"{HERE}:Shows-v0", 2, "async", {"name": "over", "at": 1}, seed=0)
    still = torch.zeros(2, dtype=torch.int64)
    try:
        with pytest.raises(EnvironmentFault, match=re.escape(OBSERVATIONS["over"][2])):
            envs.step(still, still)
    finally:
        envs.close()


class Acts(gymnasium.Env):
    """Takes actions of any space, and follows TransformAction and others as an own environment."""

    observation_space = ARM

    def __init__(self, action_space, observation_space=ARM):
        self.action_space, self.observation_space = action_space, observation_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 0.0, False, False, {}


def make_acts(wrap, *spaces):
    return wrap(Acts(*spaces))


def refused(wrap, *spaces):
    """The message for an environment with these spaces; None where it goes on."""
    gymnasium.register("Acts-v0", entry_point=lambda: make_acts(wrap, *spaces))
    try:
        envs = Envs("Acts-v0", 1, "sync", {}, seed=0)
        zero = torch.zeros(1, *envs.spec.noise_shape)
        envs.step(zero.argmax(-1) if envs.spec.discrete else zero, zero)
    except ConfigError as error:
        return str(error)
    finally:
        del gymnasium.registry["Acts-v0"]
    return None


FREE = Box(-np.inf, np.inf, (2,), np.float32)
HALF = Box(np.array([-1, -2]), np.array([1, np.inf]), dtype=np.float64)
LEAVE_OUT = "; leave ClipAction out where it removes them, actions are clipped here anyway; else "
AS_CHOICES = "use MultiDiscrete(high - low + 1, start=low)"
ALL = {name: getattr(gymnasium.spaces, name) for name in ("Box", "MultiDiscrete")}


def bare(env):
    return env


@pytest.mark.parametrize(
    ("wrap", "action", "why", "remedy"),
    [
        (bare, FREE, "has no finite bounds in component [0]", None),
        (bare, HALF, "has no finite bounds in component [1]", None),
        (bare, Box(-np.inf, np.inf, (1,)), "has no finite bounds in component [0]", None),
        (bare, Box(-3e38, 3e38, (2, 2)), "has no finite bounds in component [0, 0]", None),
        (ClipAction, FREE, "has no finite bounds in component [0]", None),
        (ClipAction, Box(-2, 2, (1,)), "has no finite bounds in component [0]", LEAVE_OUT),
        (lambda env: gymnasium.wrappers.TimeLimit(ClipAction(env), 5), Box(-2, 2, (1,)),
         "has no finite bounds in component [0]", LEAVE_OUT),
        (bare, Box(np.array([0, 1]), np.array([1, 1]), dtype=np.float32),
         "has low >= high in component [1]", "leave that number out"),
        (bare, Box(-5, 5, (1,), np.int64), "is a Box of integers", AS_CHOICES),
        (bare, Box(-1, 1, (2, 2), np.int16), "is a Box of integers", AS_CHOICES),
        (bare, Box(0, 3, (50,), np.uint8), "is a Box of integers", AS_CHOICES),
        (bare, Discrete(1), "leaves no choice", "give it two actions"),
        (bare, Tuple((ARM, Discrete(2))), "is not supported", "or a bounded Box"),
    ],
)  # fmt: skip
def test_what_is_said_of_actions_that_cannot_be_served_helps(wrap, action, why, remedy):
    """The remedy of each message is followed, and the next one goes on."""
    message = refused(wrap, action)
    assert message.startswith("env Acts-v0: the action space ")
    assert f" {why}" in message
    assert "..." not in message.partition("; ")[2]
    assert remedy in (None, LEAVE_OUT) or message.endswith(remedy)
    if remedy in (None, LEAVE_OUT):
        assert LEAVE_OUT in message
        assert len(message) <= 380
        assert remedy is None or refused(bare, action) is None
        wrapper = re.search(r"gymnasium\.wrappers\.(TransformAction\(.*\)\))$", message)[1]
        names = {**ALL, "TransformAction": TransformAction}
        assert refused(lambda env: eval(wrapper, names, {"env": env}), action) is None  # as told
        assert refused(bare, Box(-1.0, 1.0, action.shape)) is None
    elif remedy.startswith("leave that"):
        assert refused(bare, Box(action.low[:1], action.high[:1])) is None
    elif remedy == AS_CHOICES:
        ends = {"low": action.low.astype(int), "high": action.high.astype(int)}
        choices = eval(remedy.removeprefix("use "), ALL, ends)
        assert refused(bare, choices) is None
        assert choices.contains(choices.start)
        assert np.array_equal(choices.start, action.low)
        assert np.array_equal(choices.start + choices.nvec - 1, action.high)
    else:
        assert refused(bare, Discrete(2)) is None


def test_what_is_said_of_observations_that_cannot_be_served_helps():
    images = Box(0, 255, (4, 8, 8, 3), np.uint8)
    assert "FlattenObservation" in refused(bare, Discrete(2), images)
    assert refused(FlattenObservation, Discrete(2), images) is None
    words, empty = gymnasium.spaces.Sequence(ARM), Tuple((Dict(),))
    for space in (
        words,
        Dict(a=ARM, b=words),
        Dict(a=Box(-1, 1, (0,))),
        empty,
        Dict(a=ARM, b=empty),
    ):
        message = refused(bare, Discrete(2), space)
        assert "is empty or has no fixed length, as a whole or in a part" in message
        assert "; leave out such parts, or wrap the environment so that" in message
    assert refused(bare, Discrete(2), Dict(a=ARM)) is None


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8])
def test_a_choice_is_of_the_kind_that_its_space_has(kind):
    """An environment that holds its action to its space finds it there."""
    assert refused(bare, Discrete(3, start=1, dtype=kind)) is None


class Dim(gymnasium.Env):
    """Notes at every stage whether numbers below 1e-38 are numbers; 1: they are."""

    observation_space = Box(0, 1, (2,), np.float32)
    action_space = Discrete(2)
    closed = None

    def __init__(self):
        self.made = self.lit()

    def lit(self):
        return float(np.float32(1e-39) * np.float32(0.5) > 0)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([self.made, self.lit()], np.float32), {}

    def step(self, action):
        return np.array([self.made, self.lit()], np.float32), 0.0, True, False, {}

    def close(self):
        Dim.closed = self.lit()


gymnasium.register("Dim-v0", entry_point=Dim)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_numbers_below_1e_38_are_numbers_from_the_making_to_the_close(vectorization):
    set_up_torch(torch.get_num_threads())
    Dim.closed = None
    envs = Envs(f"{HERE}:Dim-v0", 2, vectorization, {}, seed=0)
    still = torch.zeros(2, dtype=torch.int64)
    assert (envs.obs == 1).all()
    assert (envs.step(still, still).next_obs == 1).all()
    envs.close()
    assert Dim.closed == 1  # with workers that of the one that shows its spaces
    assert torch.tensor([1e-39]) * 0.5 == 0.0  # in an update they are not
    judge = evaluator_of(f"{HERE}:Dim-v0", "sync", {}, 2, seed=0)
    assert (judge.envs.obs == 1).all()
    Dim.closed = None
    judge.close()
    assert Dim.closed == 1


class Scales(gymnasium.Env):
    """Walks by a tenth of its action, which it scales in place; keeps its arguments likewise."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, tags=None):
        tags = [0] if tags is None else tags
        tags += [len(tags)]
        self.copy = len(tags)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1)
        return np.array([self.x, self.copy], np.float32), {}

    def step(self, action):
        action *= 0.1
        self.x += float(action[0])
        return np.array([self.x, self.copy], np.float32), -abs(self.x), False, False, {}


gymnasium.register("Scales-v0", entry_point=Scales, max_episode_steps=40)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_what_an_environment_changes_in_place_is_its_own(vectorization):
    """Its actions and its arguments: it comes back twice within an episode, exactly."""
    kwargs = {"tags": [7]}
    made = [Envs(f"{HERE}:Scales-v0", 2, vectorization, kwargs, seed=seed) for seed in range(2)]
    action = torch.tensor([[0.5], [-0.75]])
    try:
        for one, other, steps in ((*made, 50), (*made[::-1], 5)):  # in its second episode
            for _ in range(steps):
                row = one.step(action, action)
            assert row.action.tolist() == action.tolist() == [[0.5], [-0.75]]
            state = saved_and_read(one.state_dict())
            assert other.load_state_dict(state)
            assert torch.equal(other.obs, one.obs)
            assert torch.equal(state["backend"]["actions"], one.state_dict()["backend"]["actions"])
        assert [envs.lengths.tolist() for envs in made] == [[15, 15]] * 2
        assert all(envs.obs[:, 1].tolist() == [2, 2] for envs in made)
        assert kwargs == {"tags": [7]}
    finally:
        for envs in made:
            envs.close()


class Endless(gymnasium.Env):
    """Episodes that end with a negative action within 20 steps, or never."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, blind=False):
        self.blind = blind

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.count, self.over = self.np_random.uniform(-1, 1), 0, False
        return self.seen(), {}

    def seen(self):
        return np.array([self.x, self.count], np.float32) * (not self.blind)

    def step(self, action):
        if self.over:
            raise RuntimeError("it is over")
        self.x, self.count = self.x + float(action[0]), self.count + 1
        self.over = bool(action[0] < 0 and self.count <= 20)
        return self.seen(), self.x * (not self.blind), self.over, False, {}


gymnasium.register("WithoutEnd-v0", entry_point=Endless)


def walk(envs, steps, ends=lambda step: False):
    for step in range(steps):
        back = step > 30 and step % 7 == 0
        action = torch.tensor([[-0.01 if back else 0.01], [-0.5 if ends(step) else 0.02]])
        envs.step(action, action)


def test_an_episode_without_end_is_kept_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(vector, "STEPS", 30)

    def fresh(seed=0, **kwargs):
        return Envs("WithoutEnd-v0", 2, "sync", kwargs, seed=seed)

    def size(envs):
        return sum(len(envs.state_dict()["backend"][name]) for name in ("actions", "rewards"))

    for steps, back in ((30, True), (31, False), (1500, False)):
        first, second = fresh(), fresh(1)
        walk(first, steps)
        assert size(first) == (60 if back else 0)
        assert len(first.backend.journal) <= 30
        assert second.load_state_dict(saved_and_read(first.state_dict())) is back
        assert second.lengths.tolist() == ([steps] * 2 if back else [0, 0])
        walk(second, 3)
        assert second.obs[:, 1].tolist() == [3 + steps * back] * 2
    first, second = (fresh(blind=True) for _ in range(2))  # there is nothing else to tell by
    walk(first, 31)
    assert not second.load_state_dict(saved_and_read(first.state_dict()))
    assert second.lengths.tolist() == [0, 0]


def test_the_others_come_back_where_one_episode_has_no_end(monkeypatch):
    """The second copy's episodes last 20 steps; the first copy's only one goes on and on."""
    monkeypatch.setattr(vector, "STEPS", 30)
    first, second = (Envs("WithoutEnd-v0", 2, "sync", {}, seed=seed) for seed in (0, 1))
    walk(first, 94, lambda step: step % 20 == 19)
    assert not second.load_state_dict(saved_and_read(first.state_dict()))
    assert second.lengths.tolist() == [0, 14]
    assert torch.equal(second.obs[1], first.obs[1])
    assert second.obs[0, 1] == 0
    walk(second, 5)
    assert second.obs[:, 1].tolist() == [5, 19]
    assert len(first.state_dict()["backend"]["actions"]) <= 30


def test_the_width_of_the_actions_counts(monkeypatch):
    monkeypatch.setattr(vector, "NUMBERS", 20)  # of two copies
    envs = Envs("WithoutEnd-v0", 2, "sync", {}, seed=0)
    walk(envs, 10)
    assert len(envs.state_dict()["backend"]["actions"]) == 10
    walk(envs, 1)
    assert len(envs.state_dict()["backend"]["actions"]) == 0


def test_an_evaluator_keeps_no_journal():
    judge = evaluator_of("WithoutEnd-v0", "sync", {}, 2, seed=0)
    walk(judge.envs, 50)
    assert len(judge.envs.state_dict()["backend"]["actions"]) == 0
    assert len(judge.envs.backend.journal) == 0


class Signals(gymnasium.Env):
    """Lets its parent hear a signal while it is made, or first reset, and takes its time."""

    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Discrete(2)

    def __init__(self, pid, where):
        self.pid, self.where = pid, where
        self.act("make")

    def act(self, where):
        if where == self.where and multiprocessing.parent_process() is not None:
            os.kill(self.pid, signal.SIGUSR2)
            time.sleep(60)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.act("reset")
        return np.zeros(1, np.float32), {}


gymnasium.register("Signals-v0", entry_point=Signals)


@pytest.mark.skipif(sys.platform == "win32", reason="signals and /proc")
@pytest.mark.parametrize("where", ["make", "reset"])
def test_a_signal_while_workers_begin_leaves_none_of_them(where, capsys):
    def halt(number, frame):
        signal.signal(number, signal.SIG_IGN)  # of the second worker
        raise Halt(Stopped("stopped", 75))

    signal.signal(signal.SIGUSR2, halt)
    kwargs = {"pid": os.getpid(), "where": where}
    began = time.monotonic()
    try:
        with pytest.raises(Halt) as caught:  # and keeps what was begun
            Envs(f"{HERE}:Signals-v0", 2, "async", kwargs, 0, 30.0)
        assert children() == []
        assert caught.value.stopped.code == 75
    finally:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # of a worker that is left
    assert time.monotonic() - began < 20.0
    assert capsys.readouterr().err == ""


GUEST = """
import gymnasium
import numpy as np
{imports}


class Guest(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-9, 9, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([{value}], np.float32), {{}}

    def step(self, action):
        return self.reset()[0], 0.0, False, False, {{}}


gymnasium.register("{name}-v0", entry_point=Guest)
"""


@pytest.fixture
def guest(tmp_path, monkeypatch):
    """Writes a module of a user's, and other files, into a folder on Python's path."""
    packages = [sys.modules[name] for name in make.own_packages() if name in sys.modules]
    for package in packages:
        monkeypatch.setattr(package, "__path__", list(package.__path__))
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])  # as PYTHONPATH: after train.py's

    def write(imports, value, files):
        name = f"guest{abs(hash((imports, tmp_path)))}"
        for path, text in {**files, f"{name}.py": GUEST.format(**locals())}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return f"{name}:{name}-v0"

    yield write
    for name in set(sys.modules) - before:
        places = [getattr(sys.modules[name], "__file__", None)]
        places += getattr(sys.modules[name], "__path__", [])
        if any(str(place).startswith(str(tmp_path)) for place in places):
            del sys.modules[name]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_package_of_the_users_is_found_beside_one_of_the_same_name_here(guest, vectorization):
    env_id = guest(
        "import agents.habits, data.prices.daily\nfrom tools.mine import ONE",
        "data.prices.daily.PRICE + agents.habits.HABIT + ONE",
        {"data/__init__.py": "raise RuntimeError", "data/prices/daily.py": "PRICE = 5",
         "agents/habits.py": "from .more import HABIT", "agents/more.py": "HABIT = 2",
         "tools/mine.py": "from data.prices.daily import PRICE\nONE = PRICE - 4"},
    )  # fmt: skip
    envs = Envs(env_id, 2, vectorization, {}, seed=0)
    try:
        assert envs.obs.tolist() == [[8.0], [8.0]]
        from data import Spec  # this project's

        assert isinstance(envs.spec, Spec)
    finally:
        envs.close()


@pytest.mark.parametrize(
    ("imports", "value", "files", "error", "theirs"),
    [
        ("from data import PRICE", "PRICE", {"data/__init__.py": "PRICE = 5"},
         "cannot import name 'PRICE' from 'data'", "data"),
        ("import data", "data.PRICE + 1", {"data.py": "PRICE = 5"},
         "module 'data' has no attribute 'PRICE'", "data.py"),
        ("import data\nPRICE = data.PRICE", "PRICE", {"data.py": "PRICE = 5"},
         "module 'data' has no attribute 'PRICE'", "data.py"),
        ("from data.returns import PRICE", "PRICE", {"data/returns.py": "PRICE = 5"},
         "cannot import name 'PRICE' from 'data.returns'", "data"),
        ("from evaluate import PRICE", "PRICE", {"evaluate.py": "PRICE = 5"},
         "cannot import name 'PRICE' from 'evaluate'", "evaluate.py"),
    ],
)  # fmt: skip
def test_what_a_name_of_ours_hides_is_told(guest, tmp_path, imports, value, files, error, theirs):
    env_id = guest(imports, value, files)
    with pytest.raises((ConfigError, EnvironmentFault)) as caught:
        Envs(env_id, 1, "sync", {}, seed=0)
    message, top = str(caught.value), theirs.partition(".")[0]
    assert error in message
    if "+ 1" in value:  # only where it is used
        return
    assert isinstance(caught.value, ConfigError)
    assert message.startswith(f"env.id: {env_id}: cannot" if "cannot" in error else "env.id")
    assert f"since this project's {top} comes first; rename {tmp_path / theirs}" in message
    (tmp_path / theirs).rename(tmp_path / theirs.replace(top, "own"))  # as told
    again = guest(imports.replace(top, "own"), value, {})
    assert Envs(again, 1, "sync", {}, seed=0).obs.tolist() == [[5.0]]


def test_what_is_not_there_at_all_is_told_as_such(guest):
    env_id = guest("import data.nowhere", "0", {"data/prices.py": ""})
    with pytest.raises(
        ConfigError, match=r"No module named 'data\.nowhere'; .* install that module"
    ):
        Envs(env_id, 1, "sync", {}, seed=0)
