"""Wrappers by configuration: the same environment as Gymnasium makes by hand, at every door."""

import json
import re
import sys
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import wrappers

import evaluate
import policies
import train
from common.errors import ConfigError
from configs.compose import train_config
from configs.files import read_run
from configs.schema import KEPT
from envs.envs import Envs
from envs.make import wrapped
from envs.vector import episode_seed
from runtime.exactness import before_training
from runtime.launch.door import enter
from tools import doctor, export, reproduce

STACK = {"name": "FrameStackObservation", "stack_size": 3}
CUT = {"name": "TimeLimit", "max_episode_steps": 40}
NAMED = "{name:FrameStackObservation,stack_size:3},{name:TimeLimit,max_episode_steps:40}"
GIVEN = [f"env.wrappers=[{NAMED}]"]
SHORT = ["env=pendulum", "agent=a2c", "total_steps=512", "agent.hidden=[8]", "eval.episodes=1"]


learn = partial(enter, "train", train.run)
play = partial(enter, "evaluate", evaluate.run)


class Doubled(gymnasium.RewardWrapper):
    """A wrapper of one's own."""

    def __init__(self, env, by=2.0):
        super().__init__(env)
        self.by = by

    def reward(self, reward):
        return self.by * float(reward)


class Raised(Doubled):
    def reward(self, reward):
        return float(reward) + self.by


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_wrapped_by_name_is_wrapped_by_hand_the_innermost_first(mode):
    own = {"name": "tests.envs.test_wrappers:Doubled", "by": 3.0}
    envs = Envs("Pendulum-v1", 2, mode, {}, 0, wrappers=[STACK, CUT, own])
    hand = gymnasium.make("Pendulum-v1")
    hand = wrappers.TimeLimit(wrappers.FrameStackObservation(hand, 3), 40)
    state = envs.state_dict()["backend"]
    obs, _ = hand.reset(seed=episode_seed(state["seed"], 0, 0))
    try:
        for step in range(40):
            assert np.array_equal(envs.obs[0].numpy(), obs.ravel())
            action = torch.full((2, 1), step / 40.0 - 0.5)
            row = envs.step(action, action)
            obs, reward, _, truncated, _ = hand.step(2 * action[0].numpy())
            assert row.reward[0].item() == pytest.approx(3.0 * reward, rel=1e-6)
            assert np.array_equal(row.next_obs[0].numpy(), obs.ravel())
            assert row.truncated[0].item() == truncated == (step == 39)
    finally:
        envs.close()


def test_their_order_is_kept():
    """Twice as much, then 1 more, is not 1 more, then twice as much."""
    more = {"name": "tests.envs.test_wrappers:Raised", "by": 1.0}
    double = "tests.envs.test_wrappers:Doubled"
    paid = []
    for order in ([double, more], [more, double]):
        envs = Envs("CartPole-v1", 1, "sync", {}, 0, wrappers=order)
        paid.append(envs.step(*2 * [torch.zeros(1, dtype=int)]).reward.item())
    assert paid == [3.0, 4.0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("wrapped") / "run"
    assert learn([*SHORT, *GIVEN, f"run_dir={path}"]) == 0
    return path


def test_wrappers_are_recorded_and_the_same_at_every_door(run, tmp_path, capsys):
    assert play([f"run={run}", "episodes=2", f"out={tmp_path / 'played'}"]) == 0
    capsys.readouterr()
    summary = json.loads((tmp_path / "played" / "evaluation.json").read_text())
    assert summary["length_mean"] == 40
    policy = policies.load(run)
    assert policy.obs_shape == (3, 3)
    assert export.main([f"run={run}", "episodes=5", f"out={tmp_path / 'policy.onnx'}"]) == 0
    certificate = json.loads((tmp_path / "policy.onnx.json").read_text())
    assert certificate["env_wrappers"] == [STACK, CUT]
    file = [f"policy={tmp_path / 'policy.onnx'}", "env=pendulum", "episodes=1"]
    capsys.readouterr()
    assert play([*file, *GIVEN]) == 0
    assert capsys.readouterr().err == ""
    assert play(file) == 2  # of other spaces
    capsys.readouterr()
    assert play([f"run={run}", *GIVEN]) == 2
    assert "env.wrappers: are the run's; leave them out" in capsys.readouterr().err
    assert learn([f"resume={run}", "total_steps=1024"]) == 0
    assert json.loads((run / "result.json").read_text())["exact"] is True
    assert train_config([f"resume={run}"]).env.wrappers == [STACK, CUT]


def test_a_run_is_repeated_with_its_wrappers(run):
    command = reproduce.overrides(read_run(run))
    config = train_config([one for one in command if not one.startswith("run_dir")])
    assert config.env.wrappers == [STACK, CUT]


def test_a_module_is_imported_only_if_the_environment_is_repeated(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_alone.py").write_text(
        "import gymnasium\nclass Same(gymnasium.Wrapper):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "run"
    assert learn([*SHORT, "env.wrappers=[mine_alone:Same]", f"run_dir={path}"]) == 0
    del sys.modules["mine_alone"]
    capsys.readouterr()
    assert play([f"run={path}", "episodes=1"]) == 2
    refused = capsys.readouterr().err
    assert "the module of 'mine_alone:Same'; if you trust it, repeat env.id=Pendulum-v1" in refused
    assert "mine_alone" not in sys.modules
    assert play([f"run={path}", "episodes=1", "env.id=Pendulum-v1"]) == 0
    assert "mine_alone" in sys.modules


def test_the_doctor_shows_what_each_wrapper_makes(capsys):
    assert doctor.main(["env=pendulum", "steps=60", *GIVEN]) == 0
    shown = capsys.readouterr().out
    assert "PendulumEnv Box([-1. -1. -8.], [1. 1. 8.], (3,), float32) -> FrameStackObs" in shown
    assert '"max_episode_steps": 40' in shown


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["FrameStck"], "did you mean FrameStackObservation?"),
        (["TimeLimit"], r"TimeLimit: TypeError: .*'max_episode_steps'; correct its arguments"),
        (["tests.envs.test_wrappers:Nothing"], "has no attribute 'Nothing'; give a name of gym"),
        (["no_such_module:X"], "No module named 'no_such_module'"),
        (["tests.envs.test_wrappers:train_config"], "tests.envs.test_wrappers:train_config: "),
        ([{"name": "ReshapeObservation", "shape": [1, 1, 3, 1]}],
         r"PendulumEnv Box.* -> ReshapeObservation Box.* has more dimensions than an image; "),
    ],
)  # fmt: skip
def test_a_wrapper_that_cannot_be_had_is_named(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Envs("Pendulum-v1", 1, "sync", {}, 0, wrappers=given)
    assert str(caught.value).startswith("env.wrappers: ")


@pytest.mark.parametrize(
    ("text", "why"),
    [("1 +", "SyntaxError: .*line 1"), ("import absent_xyz", "ModuleNotFoundError: .*absent_xyz")],
)
def test_a_module_that_cannot_be_imported_is_named(text, why, tmp_path, monkeypatch):
    (tmp_path / "spoilt_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    remedy = "correct spoilt_module, or install what it imports"
    with pytest.raises(ConfigError, match=f"^env.wrappers: spoilt_module:Same: {why}.*; {remedy}$"):
        wrapped(gymnasium.Env(), "spoilt_module:Same", {})


def test_a_library_that_a_wrapper_needs_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    env = gymnasium.Env()
    env.observation_space = gymnasium.spaces.Box(0, 255, (16, 16, 3), np.uint8)
    remedy = r"opencv \(cv2\) is not installed; pip install opencv-python-headless$"
    with pytest.raises(ConfigError, match=f"^env.wrappers: ResizeObservation: {remedy}"):
        wrapped(env, "ResizeObservation", {"shape": [8, 8]})


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("foo is not installed", "install what it needs"),
        ('foo is missing, run `pip install "bar[x]"` to get dependencies', 'pip install "bar[x]"'),
    ],
)
def test_what_a_wrapper_of_one_s_own_lacks_is_named(text, remedy, monkeypatch):
    class Needy(gymnasium.Wrapper):
        def __init__(self, env):
            raise gymnasium.error.DependencyNotInstalled(text)

    monkeypatch.setattr(gymnasium.wrappers, "Needy", Needy, raising=False)
    with pytest.raises(ConfigError, match=f"; {re.escape(remedy)}$"):
        wrapped(gymnasium.Env(), "Needy", {})


@pytest.mark.parametrize("name", [*KEPT])
def test_wrappers_that_keep_statistics_are_refused_with_what_to_use(name):
    with pytest.raises(ConfigError, match=f"env.wrappers: {name} keeps statistics .*; use "):
        train_config([f"env.wrappers=[{name}]"])
    kept = Envs("Pendulum-v1", 2, "sync", {}, 0, wrappers=[name])  # and are found where they hide
    assert KEPT[name] in str(before_training(kept, 0))


class Averaged(wrappers.NormalizeReward):
    """Keeps statistics under another name."""


def test_a_wrapper_made_from_one_that_keeps_statistics_is_found():
    envs = Envs("Pendulum-v1", 2, "sync", {}, 0, wrappers=["tests.envs.test_wrappers:Averaged"])
    assert "use agent.reward_scale=auto in place of Norm" in str(before_training(envs, 0))


@pytest.mark.parametrize("given", ["[3]", "x", "[{stack_size:4}]", "[a-b]", "[{name:A,f:inf}]"])
def test_what_is_no_list_of_wrappers_is_refused(given):
    with pytest.raises(ConfigError, match=r"env.wrappers"):
        train_config([f"env.wrappers={given}"])


def test_native_copies_take_no_wrappers():
    assert train_config(["env=pendulum", *GIVEN]).env.vectorization == "sync"
    with pytest.raises(ConfigError, match="native copies take no wrappers; use sync or async"):
        train_config(["env=pendulum", "env.vectorization=native", *GIVEN])
