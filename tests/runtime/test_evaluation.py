"""Episodes are counted without bias towards short ones, and evaluating changes nothing."""

import dataclasses
import itertools
import json
import signal
import time

import gymnasium
import numpy as np
import pytest
import torch

import evaluate
import train
from common.errors import ConfigError, EnvironmentFault
from configs.compose import train_config
from configs.schema import TrainConfig
from configs.validate import build
from runtime import evaluation
from runtime.build import make_parts
from runtime.evaluation import Evaluation, Evaluator
from runtime.launch.door import enter
from runtime.launch.sweep import table
from storage.checkpoint import load_newest
from tests.helpers import agent, evaluator_of
from tools import export, tune


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
    return evaluator_of("tests.runtime.test_evaluation:Coin-v0", "sync", {}, episodes, seed=5)


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
    stuck = "tests.runtime.test_evaluation:Stuck-v0"
    monkeypatch.setattr("runtime.evaluation.MOST_ENVS", 2)
    judge = evaluator_of(stuck, "sync", {}, 20, seed=5, max_length=50)
    for _ in range(2):
        evaluation = judge(agent("sac"), step=0)
        lengths = evaluation.lengths
        assert len(lengths) == 20
        assert set(lengths) == {7, 50}
        assert 6 <= lengths.count(50) <= 8
        assert evaluation.cut == lengths.count(50)
        assert evaluation.summary()["episodes_cut"] == evaluation.cut
    assert capsys.readouterr().err.count("did not end in 50 steps") == 1


def limited(max_length=None, limit=None):
    """Steps after which an evaluator cuts, of an environment with a registered limit or without."""
    kwargs = {} if limit is None else {"max_episode_steps": limit}
    given = {} if max_length is None else {"max_length": max_length}
    judge = evaluator_of("tests.runtime.test_evaluation:Coin-v0", "sync", kwargs, 1, 5, **given)
    judge.close()
    return judge.max_length


def test_a_registered_limit_is_respected_and_a_number_that_is_given():
    assert limited() == evaluation.LONGEST == 10_000
    assert limited(limit=40_000) == limited("auto", 40_000) == 40_000
    assert limited(limit=5) == 5
    assert limited(7, 40_000) == limited(7) == 7
    native = evaluator_of("CartPole-v1", "native", {}, 1, 5)
    assert native.max_length == 500


class Endless(Coin):
    """Never ends by itself; each step pays 1."""

    def step(self, action):
        return np.zeros(3, np.float32), 1.0, False, False, {}


gymnasium.register("Endless-v0", entry_point=Endless)
ENDLESS = "env.id=tests.runtime.test_evaluation:Endless-v0"
SMALL = ["agent=a2c", "env.num_envs=1", "agent.hidden=[8]", "agent.n_steps=5", "total_steps=20",
         "agent.lr_schedule=constant", "threads=1"]  # fmt: skip


def door(name, *arguments):
    return enter(name, {"train": train.run, "evaluate": evaluate.run}[name], list(arguments))


def test_how_many_episodes_were_cut_is_written_and_the_remedy_helps(tmp_path, capsys):
    run = tmp_path / "0"
    where = [ENDLESS, f"run_dir={run}", "eval.episodes=3", "eval.max_length=30"]
    assert door("train", *SMALL, *where) == 0
    said = capsys.readouterr()
    assert "over 3 episodes, 3 of them cut short" in said.out
    assert "eval.max_length=N (train.py) or max_length=N (evaluate.py)" in said.err
    result = json.loads((run / "result.json").read_text())
    assert (result["episodes"], result["episodes_cut"], result["return_mean"]) == (3, 3, 30.0)
    state = load_newest(run)[1]
    assert state["chores"]["last_evaluation"] == [20, [30.0] * 3, [30] * 3, 3]
    for more, length in (([], 30), (["max_length=45"], 45)):  # the run's, and another
        assert door("evaluate", f"run={run}", ENDLESS, "episodes=2", *more) == 0
        found = json.loads((run / "evaluation.json").read_text())
        assert (found["episodes_cut"], found["length_mean"]) == (2, length)
        assert f"length {length:.1f} steps; 2 cut short" in capsys.readouterr().out
    assert export.main([f"run={run}", ENDLESS, "format=torch", "episodes=2"]) == 0
    certificate = json.loads((run / "policy.pt2.json").read_text())
    assert certificate["episodes_cut_of_run"] == certificate["episodes_cut_of_file"] == 2
    assert capsys.readouterr().out.count("; 2 cut short) from the ") == 2
    assert "| 30.0, 3 cut short |" in table(["a"], [0], tmp_path, "")
    assert door("train", f"resume={run}", ENDLESS, "total_steps=40", "eval.max_length=12") == 0
    assert json.loads((run / "result.json").read_text())["return_mean"] == 12.0


def test_a_run_of_before_keeps_its_30_000_steps(tmp_path):
    recorded = dataclasses.asdict(train_config(["eval.episodes=3"]))
    assert recorded["eval"].pop("max_length") == "auto"
    assert build(TrainConfig, recorded, recorded=True).eval.max_length == 30_000


class Sole(Coin):
    """One copy at a time; where `fails` says so, only its reset finds out, or as of a value."""

    open = 0

    def __init__(self, fails="made"):
        self.fails, self.counted = fails, False
        if fails != "reset":
            self.take()

    def take(self):
        if not self.counted:
            if Sole.open:
                kind = ValueError if self.fails == "value" else OSError
                raise kind("Address already in use")
            Sole.open, self.counted = Sole.open + 1, True

    def reset(self, *, seed=None, options=None):
        self.take()
        return super().reset(seed=seed)

    def close(self):
        Sole.open -= self.counted
        self.counted = False


gymnasium.register("Sole-v0", entry_point=Sole, max_episode_steps=20)
SOLE = "env.id=tests.runtime.test_evaluation:Sole-v0"


@pytest.mark.parametrize("fails", ["made", "reset", "value"])
def test_where_there_can_be_one_copy_the_message_says_what_to_do_and_that_works(
    fails, tmp_path, capsys
):
    """Each remedy is followed: of several copies, of one beside training's, of none."""
    where = [*SMALL, SOLE, f"env.kwargs.fails={fails}", f"run_dir={tmp_path / 'run'}"]
    assert door("train", *where, "env.num_envs=2") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "Address already in use" in line
    assert "with 2 copies; only one is possible: give env.num_envs=1, and eval.episodes=0" in line
    assert door("train", *where) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "as another copy, for evaluations, beside training's; give eval.episodes=0" in line
    assert not (tmp_path / "run").exists()
    assert door("train", *where, "eval.episodes=0") == 0
    assert Sole.open == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["steps"], result["episodes"], result["return_mean"]) == (20, 0, None)
    assert door("train", f"resume={tmp_path / 'run'}", SOLE, "total_steps=30") == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["steps"], result["exact"]) == (30, True)
    assert capsys.readouterr().err == ""
    assert door("evaluate", f"run={tmp_path / 'run'}", SOLE, "episodes=5") == 0
    assert "with 5 copies; one plays all episodes" in capsys.readouterr().err
    assert Sole.open == 0


def test_an_environment_that_cannot_be_made_at_all_gets_no_such_advice(monkeypatch, capsys):
    monkeypatch.setattr(Sole, "open", 1)
    for copies in (1, 2):
        assert door("train", *SMALL, SOLE, f"env.num_envs={copies}") == 3
        line = capsys.readouterr().err
        assert "fix the environment" in line
        assert "eval.episodes" not in line


def test_a_resumed_run_may_stop_evaluating_and_begin_again(tmp_path):
    run = tmp_path / "run"
    coin = "env.id=tests.runtime.test_evaluation:Coin-v0"
    assert door("train", *SMALL, coin, f"run_dir={run}", "eval.episodes=2") == 0
    for steps, episodes in ((40, 0), (60, 2)):
        more = [f"total_steps={steps}", f"eval.episodes={episodes}"]
        assert door("train", f"resume={run}", coin, *more) == 0
        result = json.loads((run / "result.json").read_text())
        assert (result["steps"], result["episodes"]) == (steps, episodes)
        assert (result["return_mean"] is None) == (episodes == 0)


class Breaks(Coin):
    """Its fourth step raises, or shows what is not finite; `how` says which."""

    def __init__(self, how="raises"):
        self.how = how

    def reset(self, *, seed=None, options=None):
        observed = super().reset(seed=seed)
        self.length = 9
        return observed

    def step(self, action):
        obs, *rest = super().step(action)
        if self.count == 4 and self.how == "raises":
            raise ValueError("broken")
        return (obs + np.nan if self.count == 4 else obs), *rest


gymnasium.register("Breaks-v0", entry_point=Breaks)


@pytest.mark.parametrize(
    ("how", "words"), [("raises", "step raised ValueError: broken"), ("nan", "is not finite")]
)
def test_a_fault_in_an_evaluation_is_told_as_one(how, words):
    judge = evaluator_of("tests.runtime.test_evaluation:Breaks-v0", "sync", {"how": how}, 3, seed=5)
    with pytest.raises(EnvironmentFault) as raised:
        judge(agent("sac"), step=700)
    assert words in str(raised.value)
    place = (
        "in environment 0 in an evaluation at step 700 of training, after 3 steps of its episode"
    )
    assert str(raised.value).endswith(f"{place}; fix the environment")


def test_tables_and_searches_bear_a_run_without_evaluations(tmp_path):
    for job, mean in enumerate((None, 3.25)):
        (tmp_path / str(job)).mkdir()
        result = {"return_mean": mean, "steps": 1000, "steps_per_second": 12.0}
        (tmp_path / str(job) / "result.json").write_text(json.dumps(result))
    lines = table(["a", "b"], [0, 0], tmp_path, "resume=auto").splitlines()
    rows = [line for line in lines if "1,000" in line]
    assert len(rows) == 2
    assert [cell.strip() for cell in rows[0].split("|")[3:6]] == ["0", "", "1,000"]
    assert float(rows[1].split("|")[4]) == pytest.approx(3.25, abs=0.1)
    with pytest.raises(ConfigError, match=r"eval.episodes: 0 leaves nothing to judge a trial by"):
        tune.read(["env=cartpole", "agent=a2c", "eval.episodes=0"])


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
    judge = Evaluator(config.env, episodes=8, seed=0)
    began = time.monotonic()
    with pytest.raises(EnvironmentFault, match="has not answered for"):
        judge(agent("sac"), step=0)
    assert time.monotonic() - began < 10
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    sync = Evaluator(train_config([*settings, "env.vectorization=sync"]).env, 1, 0)
    assert sync.deadline is None


def test_summary_by_hand():
    summary = Evaluation([1.0, 2.0, 3.0, 6.0], [1, 1, 2, 2]).summary()
    assert summary["return_mean"] == 3.0
    assert summary["return_std"] == pytest.approx((14 / 3) ** 0.5)
    assert summary["return_sem"] == pytest.approx((14 / 3) ** 0.5 / 2)
    assert (summary["return_min"], summary["return_max"]) == (1.0, 6.0)
    assert summary["length_mean"] == 1.5


class Watched:
    """Acts with zeros; keeps what it was asked."""

    device = torch.device("cpu")

    def __init__(self):
        self.asked = []

    def act(self, obs, deterministic=False, generator=None):
        self.asked.append((obs.clone(), deterministic))
        return torch.zeros(len(obs), 1), torch.zeros(len(obs), 1)


def test_evaluations_begin_where_training_does_not_and_each_elsewhere():
    one = ["env=pendulum", "env.num_envs=1", "agent=sac"]
    config = train_config([*one, "eval.episodes=2", "eval.max_length=1"])
    parts = make_parts(config)
    firsts = [parts.envs.obs]
    for step in (100, 200, 100):
        watched = Watched()
        parts.evaluator(watched, step)
        (obs, deterministic), *_ = watched.asked
        assert deterministic is True  # unless told otherwise
        firsts += [*obs.split(1)]
    assert torch.equal(torch.cat(firsts[1:3]), torch.cat(firsts[5:]))  # of the same step
    for one, other in itertools.combinations(firsts[:5], 2):
        assert not torch.equal(one, other)
    watched = Watched()
    parts.evaluator(watched, 100, deterministic=False)
    assert watched.asked[0][1] is False
    parts.close()


def test_doors_pass_on_whether_actions_are_drawn(tmp_path, monkeypatch):
    asked, real = [], Evaluator.play

    def play(self, agent, step, deterministic):
        asked.append(deterministic)
        return real(self, agent, step, deterministic)

    monkeypatch.setattr(Evaluator, "play", play)
    coin, run = "env.id=tests.runtime.test_evaluation:Coin-v0", tmp_path / "run"
    assert door("train", *SMALL, coin, f"run_dir={run}", "eval.episodes=1", "eval.every=20") == 0
    for given in ([], ["deterministic=false"], ["deterministic=true"]):
        assert door("evaluate", f"run={run}", coin, "episodes=1", *given) == 0
    assert asked == [True, True, False, True]


def test_copies_made_anew_keep_the_map_of_actions_and_are_made_for_each_evaluation():
    judge = evaluator(2)
    judge.anew, own = True, judge.envs.to_env
    judge.envs.to_env = lambda action: own(action)
    chosen, seen = judge.envs.to_env, {judge.envs}
    for step in range(3):
        judge(agent("sac"), step)
        assert judge.envs.to_env is chosen
        seen.add(judge.envs)
    assert len(seen) == 4


def test_a_camera_films_the_world_that_is_evaluated():
    given = {"max_length": 7, "wrappers": ["FlattenObservation"]}
    judge = evaluator_of("CartPole-v1", "sync", {"sutton_barto_reward": True}, 2, 5, **given)
    camera = judge.filming()
    films = judge.env.kwargs | {"render_mode": "rgb_array"}
    assert camera.env == dataclasses.replace(judge.env, kwargs=films)
    assert (camera.seed, camera.max_length, camera.envs.num_envs) == (judge.seed, 7, 1)
    for one in (judge, camera):
        one.close()


def test_a_film_has_the_deadline_of_an_asynchronous_evaluation():
    judge = evaluator_of("CartPole-v1", "async", {}, 1, 5, timeout=5.0, render="rgb_array")
    camera = judge.filming()
    assert judge.deadline == camera.deadline == 5.0
    for one in (judge, camera):
        one.close()
