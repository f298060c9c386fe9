"""An episode that does not repeat from its seed and actions is found, and no other is accused."""

import json
import random
import re
import time

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import NormalizeObservation, NormalizeReward

import evaluate
import train
from agents.off_policy import OffPolicyAgent
from envs.envs import Envs
from envs.vector import Vector
from runtime.curves import read_curves
from runtime.evaluation import Evaluator
from runtime.exactness import undisturbed
from runtime.launch.door import enter
from storage import checkpoint
from storage.provenance import VARIABLES, changes, variables
from tests.helpers import agent, evaluator_of

MADE = []  # one entry for each copy


class Walk(gymnasium.Env):
    """Repeats, but for what `keeps` names; episodes of `length` steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, keeps="", length=8, late=0):
        self.keeps, self.length, self.late = keeps, length, late
        self.episodes = 0
        MADE.append(self)
        self.number = len(MADE)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.place = 0, self.np_random.uniform(-1, 1)
        self.episodes += 1
        if self.keeps == "seeds":  # the global generator, which other copies draw from, too
            np.random.seed(seed)  # noqa: NPY002
        return self.seen(), {}

    def seen(self):
        shown = self.episodes > self.late and self.keeps == "episodes"
        return np.array([self.place, shown * self.episodes], np.float32)

    def step(self, action):
        self.count += 1
        self.place += float(action[0])
        reward, length = -abs(self.place), self.length
        if self.count > self.late:
            if self.keeps in ("numpy", "seeds"):
                reward += np.random.random()  # noqa: NPY002
            if self.keeps == "python":
                reward += random.random()
            if self.keeps == "torch":
                reward += float(torch.rand(()))
            if self.keeps == "made":
                reward += self.number
        if self.keeps == "level" and self.episodes > self.late:
            length += 1
        if self.keeps == "short" and self.episodes > self.late:
            length -= 1
        return self.seen(), reward, False, self.count >= length, {}


def normalised(wrappers="NormalizeObservation", **kwargs):
    env = Walk(**kwargs)
    for wrapper in (NormalizeObservation, NormalizeReward):
        if wrapper.__name__ in wrappers:
            env = wrapper(env)
    return env


gymnasium.register("Walk-v0", entry_point=Walk)
gymnasium.register("NormalWalk-v0", entry_point=normalised)
WALK, NORMAL = (f"tests.runtime.test_exactness:{name}-v0" for name in ("Walk", "NormalWalk"))
CLASSIC = ("Acrobot-v1", "CartPole-v1", "FrozenLake-v1", "MountainCar-v0",
           "MountainCarContinuous-v0", "Pendulum-v1")  # fmt: skip
SMALL = ["agent=sac", "agent.hidden=[8]", "agent.batch_size=8", "agent.learning_starts=20",
         "total_steps=200", "eval.episodes=2", "eval.every=100", "log.every=50",
         "checkpoint.every=50", "threads=1"]  # fmt: skip


def examined(episodes, training=None, env_id=WALK, **kwargs):
    judge = evaluator_of(env_id, "sync", kwargs, episodes, seed=5)
    found = judge.examine(*training or ())
    assert judge.anew == (found is not None)
    judge.close()
    return found


KEEPS = property(lambda self: "its world outlives a reset", lambda self, value: None)


def trained(env_id, steps, count=2, vectorization="sync", **kwargs):
    """State of training's environments after so many steps of each, and how many that were."""
    envs = Envs(env_id, count, vectorization, kwargs, seed=3)
    learner = agent("a2c", envs.spec)
    for _ in range(steps):
        envs.step(*learner.act(envs.obs))
    state = envs.state_dict()
    envs.close()
    return state, steps * count


@pytest.mark.parametrize("episodes", [1, 3])
@pytest.mark.parametrize(
    ("keeps", "words"),
    [
        ("numpy", "global generator, which no seed sets: .*; draw from self.np_random"),
        ("python", "global generator"),
        ("torch", "global generator"),
        ("episodes", r"keeps something over reset\(seed=...\), and each copy has its own"),
        ("made", "its copies differ .reward of step 1.: something was drawn when each was made"),
        ("", None),
        ("seeds", None),
    ],
)
def test_what_is_kept_is_found_before_training(keeps, words, episodes):
    if keeps == "made" and episodes == 1:
        words = None  # there is nothing to compare with
    found = examined(episodes, keeps=keeps)
    assert (found is None) == (words is None)
    assert words is None or re.search(words, found)


@pytest.mark.parametrize(
    ("wrappers", "remedy"),
    [
        ("NormalizeObservation", "use agent.normalise_obs=true in place of NormalizeObservation"),
        ("NormalizeReward", "use agent.reward_scale=auto in place of NormalizeReward"),
    ],
)
def test_statistics_inside_an_environment_are_named_with_what_to_use(wrappers, remedy):
    found = examined(2, env_id=NORMAL, wrappers=wrappers)
    assert f"the statistics of {wrappers} continue over resets, and each copy has its own" in found
    assert found.endswith(remedy)


@pytest.mark.parametrize("env_id", CLASSIC)
def test_who_repeats_is_not_accused(env_id):
    assert examined(2, env_id=env_id) is None
    for steps in (1, 60, 230):  # within an episode, and soon after one
        assert examined(2, trained(env_id, steps), env_id) is None


@pytest.mark.parametrize("steps", [1, 4])
def test_who_repeats_is_not_accused_where_images_are_kept_as_bytes(steps):
    env_id, kwargs = "tests.helpers:Picture-v0", {"discrete": True, "among": True}
    state, count = trained(env_id, steps, **kwargs)
    assert examined(2, (state, count), env_id, **kwargs) is None
    state["obs"] = state["obs"] ^ 1
    found = examined(2, (state, count), env_id, **kwargs)
    assert found is not None
    assert "(observation of step 0)" in found


def test_who_repeats_is_not_accused_where_arrays_are_its_state():
    judge = evaluator_of("CartPole-v1", "native", {}, 2, seed=5)
    assert judge.examine() is None
    assert judge.examine(*trained("CartPole-v1", 30, vectorization="native")) is None


@pytest.mark.parametrize(
    ("keeps", "late", "length", "steps"),
    [
        ("numpy", 30, 60, 50),  # late in an episode, which is going on
        ("numpy", 30, 40, 45),  # in the one before it
        ("made", 30, 60, 50),
        ("episodes", 5, 8, 52),  # from the sixth on: seen at the last observation alone
        ("short", 5, 8, 52),  # of the episode before: this one goes on where that one ended
        ("level", 5, 8, 52),  # seen at the end alone, which comes later
        ("seeds", 30, 60, 50),  # of a generator that two copies share
    ],
)
def test_what_begins_late_is_found_at_a_save(keeps, late, length, steps):
    assert examined(2, keeps=keeps, late=late, length=length) is None
    seen = trained(WALK, steps, keeps=keeps, late=late, length=length)
    assert "does not repeat" in examined(2, seen, keeps=keeps, late=late, length=length)
    assert examined(2, trained(WALK, steps, length=length), length=length) is None


def test_no_more_is_repeated_than_a_share_of_what_was_played():
    state, _ = trained(WALK, 1500, count=1, length=10_000)
    stepped = []
    judge = evaluator_of(WALK, "sync", {"length": 10_000}, 1, seed=5)
    (copy,) = judge.envs.backend.copies
    real = copy.step
    copy.step = lambda action: stepped.append(1) or real(action)
    looks = [(20, 1000), (20, 1000), (20, 100), (6000, 303), (20, 100), (10**6, 1000)]
    for since, steps in looks:
        stepped.clear()
        assert judge.examine(state, since) is None
        assert len(stepped) == steps


@pytest.mark.parametrize("keeps", ["numpy", "python", "torch"])
def test_global_generators_are_left_as_they_were(keeps):
    state, python = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    tensors = torch.get_rng_state()
    judge = evaluator_of(WALK, "sync", {"keeps": keeps}, 2, seed=5)
    learner = agent("sac", judge.envs.spec)
    first = judge(learner, step=1).returns
    judge.examine()
    assert judge(learner, step=2).returns != first
    assert torch.equal(torch.get_rng_state(), tensors)
    assert random.getstate() == python
    np.random.random(), random.random(), torch.rand(())  # noqa: NPY002
    state, python = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert judge(learner, step=1).returns == first
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
    assert random.getstate() == python
    with undisturbed():
        random.random()
    assert random.getstate() == python


def test_what_an_environment_says_of_itself_is_taken_for_it(monkeypatch):
    monkeypatch.setattr(Vector, "lasting", KEEPS, raising=False)
    found = examined(2)
    assert "its world outlives a reset" in found
    assert found.endswith("a resumed run is not exact")


def test_an_environment_that_fails_is_left_to_training(monkeypatch):
    def fail(self, action):
        raise ValueError("no")

    monkeypatch.setattr(Walk, "step", fail)
    assert examined(2) is None


def run(tmp_path, name, *arguments, env_id=WALK):
    code = enter("train", train.run, [f"env.id={env_id}", *SMALL, f"run_dir={tmp_path / name}",
                                      *arguments])  # fmt: skip
    assert code == 0
    result = json.loads((tmp_path / name / "result.json").read_text())
    curves = {tag: dict(curve) for tag, curve in read_curves(tmp_path / name).items()
              if not tag.startswith("time/")}  # fmt: skip
    return result, curves


def warnings(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]


def test_a_run_says_it_once_and_is_not_exact_and_evaluates_alike_however_often(tmp_path, capsys):
    """NormalizeObservation: the same number at step 100, whatever was evaluated before."""
    found = []
    for every in (100, 25):
        result, curves = run(tmp_path, f"every{every}", f"eval.every={every}", env_id=NORMAL)
        assert result["exact"] is False
        (line,) = warnings(capsys)
        assert line.startswith(f"warning: env {NORMAL}: an episode does not repeat from its seed")
        assert "agent.normalise_obs=true" in line
        found.append((result["state_digest"], curves["eval/return_mean"][100]))
    assert found[0] == found[1]
    state = checkpoint.load_newest(tmp_path / "every25")[1]
    assert state["exact"] is False
    assert "NormalizeObservation" in state["lasting"]
    first = tmp_path / "every25" / "checkpoints" / "step-000000000000" / "state.json"
    assert not first.exists() or json.loads(first.read_text())["exact"] is False
    where = ["episodes=2", f"run={tmp_path / 'every25'}", f"env.id={NORMAL}"]
    assert enter("evaluate", evaluate.run, where) == 0
    (line,) = warnings(capsys)
    assert "agent.normalise_obs=true" in line


def test_what_is_found_late_counts_from_there_on_and_is_kept(tmp_path, capsys):
    late = ["env.kwargs.keeps=numpy", "env.kwargs.late=80", "env.kwargs.length=1000"]
    result, _ = run(tmp_path, "late", *late, "checkpoint.keep=9", "eval.episodes=1",
                    "eval.max_length=9")  # fmt: skip
    (line,) = [line for line in warnings(capsys) if "did not end" not in line]
    assert "global generator" in line
    assert result["exact"] is False
    exact = [checkpoint.load_newest(tmp_path / "late", name)[1]["exact"]
             for name in checkpoint.names(tmp_path / "late")]  # fmt: skip
    assert exact == [True, True, False, False, False]
    again = [f"resume={tmp_path / 'late'}", f"env.id={WALK}", "total_steps=220"]
    assert enter("train", train.run, again) == 0
    assert not any("does not repeat" in line for line in warnings(capsys))
    assert json.loads((tmp_path / "late" / "result.json").read_text())["exact"] is False


@pytest.mark.parametrize("keeps", ["", "numpy"])
def test_looking_changes_nothing_in_training(keeps, tmp_path, monkeypatch, capsys):
    """Nor does evaluating, where environments draw from one generator: the same digest."""
    found = []
    arguments = [f"env.kwargs.keeps={keeps or 'nothing'}", "env.num_envs=2"]
    for name, more in (("seen", []), ("often", ["eval.every=50"]), ("unseen", [])):
        if name == "unseen":
            monkeypatch.setattr(Evaluator, "examine", lambda *_: None)
        np.random.seed(7)  # noqa: NPY002
        result, curves = run(tmp_path, name, *arguments, *more)
        assert result["exact"] is (keeps == "" or name == "unseen")
        found.append((result["state_digest"], curves["eval/return_mean"][200]))
    assert found[0] == found[1] == found[2]


def test_without_evaluations_nothing_is_looked_for(tmp_path, capsys):
    MADE.clear()
    result, curves = run(tmp_path, "none", "env.kwargs.keeps=numpy", "eval.episodes=0")
    assert len(MADE) == 1
    assert result["exact"] is True
    assert (result["return_mean"], result["return_std"], result["episodes"]) == (None, None, 0)
    assert result["steps"] == 200
    assert not any(tag.startswith("eval/") for tag in curves)
    said = capsys.readouterr()
    assert "nothing was evaluated (eval.episodes=0)" in said.out
    assert said.err == ""


def test_without_evaluations_what_shows_without_playing_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Vector, "lasting", KEEPS, raising=False)
    result, _ = run(tmp_path, "none", "eval.episodes=0")
    assert result["exact"] is False
    (line,) = capsys.readouterr().err.splitlines()
    assert "its world outlives a reset" in line


def test_the_agent_never_learns_from_what_is_looked_at(tmp_path, monkeypatch):
    """Each transition that is observed is one of training's: 200 of them."""
    seen = []
    real = OffPolicyAgent.observe
    monkeypatch.setattr(
        OffPolicyAgent, "observe", lambda self, t: seen.append(len(t.reward)) or real(self, t)
    )
    looks = []
    monkeypatch.setattr(Evaluator, "examine", lambda self, training, since: looks.append(
        (training is not None, since)))  # fmt: skip
    run(tmp_path, "run")
    assert sum(seen) == 200
    assert looks == [(False, 0), *[(True, 50)] * 4]


def test_a_copy_that_hangs_is_left_to_its_deadline(monkeypatch):
    monkeypatch.setattr(Walk, "step", lambda self, action: time.sleep(60))
    judge = evaluator_of(WALK, "async", {}, 1, seed=5, timeout=0.3)
    began = time.monotonic()
    assert judge.examine() is None
    assert time.monotonic() - began < 10


def test_variables_that_change_arithmetic_are_recorded_and_named(tmp_path, monkeypatch, capsys):
    """Another value, one more and one less end exactness; the same ones, and others, do not."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    result, _ = run(tmp_path, "run", "eval.episodes=0")
    assert result["variables"] == {"MKL_CBWR": "AVX2", "OPENBLAS_CORETYPE": "Haswell"}
    monkeypatch.setenv("UNRELATED", "1")
    again = [f"resume={tmp_path / 'run'}", f"env.id={WALK}"]
    assert enter("train", train.run, [*again, "total_steps=210"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert enter("train", train.run, [*again, "total_steps=220"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "from an uninterrupted one: MKL_CBWR was AVX2, is COMPATIBLE; OMP_NUM_THREADS "
        "was not set, is 1; OPENBLAS_CORETYPE was Haswell, is not set"
    )
    assert json.loads((tmp_path / "run" / "result.json").read_text())["exact"] is False


def test_of_a_run_that_recorded_no_variables_nothing_is_said(monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    before = {"threads": 1}
    assert changes(before, {"threads": 1, "variables": variables()}) == []
    assert changes({**before, "variables": {}}, {"threads": 1, "variables": variables()}) != []
