"""Episodes are counted without bias towards short ones, and evaluating changes nothing."""

import signal
import time

import gymnasium
import numpy as np
import pytest
import torch

from configs.compose import train_config
from runtime import evaluation
from runtime.build import make_evaluator
from runtime.errors import EnvironmentFault
from runtime.evaluation import Evaluation, Evaluator
from tests.helpers import agent


class Coin(gymnasium.Env):
    """Half of all episodes last 1 step, half 9; the reward of a step is 1."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.length, self.count = (1, 9)[int(self.np_random.integers(2))], 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.zeros(3, np.float32), 1.0, self.count >= self.length, False, {}


gymnasium.register("Coin-v0", entry_point=Coin)


def evaluator(episodes):
    return Evaluator("tests.runtime.test_evaluation:Coin-v0", "sync", {}, episodes, seed=5)


def test_mean_is_that_of_episodes_not_of_the_first_ones_to_end():
    """64 environments, 64 episodes: taking the first 64 to end would give a mean near 1.7."""
    judge, learner = evaluator(64), agent("sac")
    evaluations = [judge(learner, step=step) for step in range(20)]
    returns = np.concatenate([evaluation.returns for evaluation in evaluations])
    assert len(returns) == 20 * 64
    assert abs(returns.mean() - 5.0) < 4 * 4 / len(returns) ** 0.5
    assert np.array_equal(returns, np.concatenate([e.lengths for e in evaluations]))


@pytest.mark.parametrize("episodes", [1, 3, 64, 100])
def test_exactly_as_many_episodes_as_asked(episodes):
    assert len(evaluator(episodes)(agent("sac"), step=0).returns) == episodes


class Stuck(Coin):
    """Every third episode does not end, of each copy another third."""

    made = 0

    def __init__(self):
        Stuck.made += 1
        self.episodes = Stuck.made

    def reset(self, *, seed=None, options=None):
        self.episodes += 1
        observed = super().reset(seed=seed)
        self.length = 7 if self.episodes % 3 else 10**9
        return observed


gymnasium.register("Stuck-v0", entry_point=Stuck)


def test_an_episode_without_end_is_cut_and_no_other(monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "LONGEST", 50)
    judge = Evaluator("tests.runtime.test_evaluation:Stuck-v0", "sync", {}, 20, seed=5, most_envs=2)
    for _ in range(2):
        lengths = judge(agent("sac"), step=0).lengths
        assert len(lengths) == 20
        assert set(lengths) == {7, 50}
        assert 6 <= (lengths == 50).sum() <= 8
    assert capsys.readouterr().err.count("did not end in 50 steps") == 1


def test_same_step_same_episodes_and_the_agent_is_left_as_it_was():
    learner, judge = agent("sac"), evaluator(20)
    before = learner.generators["act"].get_state()
    first = judge(learner, step=100, deterministic=False)
    judge(learner, step=200)
    again = judge(learner, step=100, deterministic=False)
    assert np.array_equal(first.returns, again.returns)
    assert torch.equal(before, learner.generators["act"].get_state())


class Asleep(Coin):
    """Hangs in its third step."""

    def step(self, action):
        if self.count == 2:
            time.sleep(60)
        return super().step(action)


gymnasium.register("Asleep-v0", entry_point=Asleep)


def test_an_evaluation_that_hangs_is_noticed_where_workers_would_be():
    settings = ["env.id=tests.runtime.test_evaluation:Asleep-v0", "agent=sac", "env.timeout=0.5"]
    config = train_config([*settings, "env.vectorization=async"])
    judge = make_evaluator(config, episodes=8, seed=0)
    began = time.monotonic()
    with pytest.raises(EnvironmentFault, match="has not answered for"):
        judge(agent("sac"), step=0)
    assert time.monotonic() - began < 10
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    sync = make_evaluator(train_config([*settings, "env.vectorization=sync"]), 1, 0)
    assert sync.deadline is None


def test_summary_by_hand():
    summary = Evaluation(np.array([1.0, 2.0, 3.0, 6.0]), np.array([1, 1, 2, 2])).summary()
    assert summary["return_mean"] == 3.0
    assert summary["return_std"] == pytest.approx((14 / 3) ** 0.5)
    assert summary["return_sem"] == pytest.approx((14 / 3) ** 0.5 / 2)
    assert (summary["return_min"], summary["return_max"]) == (1.0, 6.0)
    assert summary["length_mean"] == 1.5
