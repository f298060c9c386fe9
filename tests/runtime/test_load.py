"""A trained policy in a notebook acts like the agent it came from, in the environment's units."""

import os
import re

import gymnasium
import numpy as np
import pytest
import torch

import policies
from common.errors import ConfigError
from envs.spaces import Flat, as_vector
from runtime.deploy.trained import open_trained
from runtime.launch.door import enter
from tests.helpers import lit
from train import run


def test_load_gives_actions_in_the_environments_units(tmp_path):
    arguments = ["env=pendulum", "agent.normalise_obs=true", "total_steps=400", "env.num_envs=4",
                 "agent.n_steps=5", "eval.episodes=2", f"run_dir={tmp_path / 'run'}"]  # fmt: skip
    assert enter("train", run, arguments) == 0
    policy = policies.load(tmp_path / "run")
    env = gymnasium.make("Pendulum-v1")
    obs, _ = env.reset(seed=0)
    action = policy(obs)
    assert action.shape == (1,)
    assert env.action_space.contains(action)
    assert np.array_equal(action, policy(obs))
    several = policy(np.stack([obs, -obs]))
    assert several.shape == (2, 1)
    assert several[0] == pytest.approx(action, abs=1e-6)
    drawn = {float(policy(obs, deterministic=False)[0]) for _ in range(5)}
    assert len(drawn) > 1
    for wrong in (np.ones(6), np.ones((2, 6)), np.ones((3, 2)), np.ones((1, 2, 3)), np.ones(())):
        with pytest.raises(ValueError, match=r"trained on one of \(3,\); give one"):
            policy(wrong)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"give one that holds config\.yaml$"):
        policies.load(tmp_path)


def test_a_folder_of_runs_is_refused_with_the_newest(tmp_path):
    for age, name in ((9, "a"), (1, "b/2"), (5, "c/d/e")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
        os.utime(tmp_path / name / "config.yaml", (1e9 - age, 1e9 - age))
    with pytest.raises(ConfigError, match=f"such as {re.escape(str(tmp_path / 'b/2'))}$"):
        policies.load(tmp_path)


@pytest.mark.parametrize("name", ["Frozen", "Many"])
def test_an_observation_as_the_environment_gives_it(name, tmp_path):
    arguments = [f"env.id=tests.runtime.test_load:{name}-v0", "total_steps=40", "env.num_envs=2",
                 "agent.n_steps=5", "eval.episodes=2", f"run_dir={tmp_path / 'run'}"]  # fmt: skip
    assert enter("train", run, arguments) == 0
    policy = policies.load(tmp_path / "run", env_id=f"tests.runtime.test_load:{name}-v0")
    space = WHOLE[name]
    seen = [space.sample() for _ in range(5)]
    vectors = np.stack([gymnasium.spaces.flatten(space, obs) for obs in seen])
    assert [policy(obs) for obs in seen] == policy(vectors).tolist()


def test_several_vectors_of_a_tuple_are_not_taken_for_one_of_its_observations():
    space = Flat("Any-v0", gymnasium.spaces.Tuple((gymnasium.spaces.Box(-9, 9, (3,)),)))
    several = np.ones((1, 3), np.float32)
    assert as_vector(space, several).shape == (1, 3)
    assert as_vector(space, (several[0],)).shape == (3,)


WHOLE = {
    "Frozen": gymnasium.spaces.Discrete(16, seed=0),
    "Many": gymnasium.spaces.MultiDiscrete([3, 4], seed=0),
}


class Whole(gymnasium.Env):
    """Shows anything, for one step."""

    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, name):
        self.observation_space = WHOLE[name]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, True, False, {}


for known in WHOLE:
    gymnasium.register(f"{known}-v0", entry_point=Whole, kwargs={"name": known})


def test_the_process_of_a_guest_is_left_as_it_was(tmp_path):
    assert enter("train", run, ["total_steps=80", "env.num_envs=2", "agent.n_steps=5",
                                "eval.episodes=2", f"run_dir={tmp_path / 'run'}"]) == 0  # fmt: skip
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.set_flush_denormal(False)
        policy = policies.load(tmp_path / "run")
        policy(np.zeros(4, np.float32))
        assert torch.get_num_threads() == 2
        assert torch.tensor([1e-39]) * 1.0 != 0.0
        open_trained(str(tmp_path / "run")).evaluator.close()  # in a process of its own
        assert torch.get_num_threads() == 1
        assert torch.tensor([1e-39]) * 1.0 == 0.0
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(True)


def test_one_picture_and_several(tmp_path):
    arguments = ["env.id=tests.helpers:Picture-v0", "env.kwargs.discrete=true", "agent=a2c",
                 "total_steps=40", "env.num_envs=2", "agent.n_steps=5",
                 f"run_dir={tmp_path / 'run'}"]  # fmt: skip
    assert enter("train", run, arguments) == 0
    policy = policies.load(tmp_path / "run", env_id="tests.helpers:Picture-v0")
    pictures = np.stack([lit(False), lit(True), lit(True)])
    alone = [policy(picture) for picture in pictures]
    assert [action.shape for action in alone] == [()] * 3
    assert policy(pictures).tolist() == alone
    assert policy(pictures[:1]).shape == (1,)
    with pytest.raises(ValueError, match="observation has dtype float64, its space uint8"):
        policy(pictures / 255)


def test_what_an_environment_of_a_dict_gives_is_taken_as_it_is(tmp_path):
    """The same actions as for the vector that the agent sees: other numbers first, as it sorts."""
    arguments = ["env.id=tests.helpers:Picture-v0", "env.kwargs.discrete=true",
                 "env.kwargs.among=true", "agent=a2c", "total_steps=40", "env.num_envs=2",
                 "agent.n_steps=5", f"run_dir={tmp_path / 'run'}"]  # fmt: skip
    assert enter("train", run, arguments) == 0
    policy = policies.load(tmp_path / "run", env_id="tests.helpers:Picture-v0")
    env = gymnasium.make("tests.helpers:Picture-v0", discrete=True, among=True)
    seen = [env.reset(seed=seed)[0] for seed in range(4)]
    vectors = [np.concatenate([obs["arm"], obs["camera"].ravel()]) for obs in seen]
    alone = [policy(obs) for obs in seen]
    assert all(env.action_space.contains(action) for action in alone)
    assert policy(np.stack(vectors)).tolist() == alone
    camera = seen[0]["camera"]
    for wrong, words in ((camera / 255, "has dtype float64"), (camera[:3], "has shape")):
        with pytest.raises(ValueError, match=rf"observation\['camera'\] {words}"):
            policy({**seen[0], "camera": wrong})
    with pytest.raises(ValueError, match=r"observation\['arm'\] \[nan nan\] is not finite"):
        policy({**seen[0], "arm": np.full(2, np.nan)})
