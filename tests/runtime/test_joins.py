"""What joins the parts of a run: each passes on the right thing, at the right step.

An environment that writes down all that happens to it is held against what the run logs, saves,
evaluates and takes up again.
"""

import json
from functools import partial
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import evaluate
import policies
import train
from common.errors import Stopped
from configs import files
from configs.compose import train_config
from envs.envs import Envs
from runtime import audits
from runtime.build import make_parts
from runtime.launch.door import enter
from runtime.launch.signals import Stop
from runtime.logger import Logger
from runtime.schedule import Clock
from storage import checkpoint
from tests.helpers import agent, evaluator_of, saved_and_read

ID = "tests.runtime.test_joins:Told-v0"
COPIES = 3  # of training in the runs below; copies made later are of evaluations
ACTIONS = {
    "bounds": spaces.Box(np.float32([-1, 2]), np.float32([3, 10])),
    "one": spaces.Box(-0.5, 2.0, (), np.float64),
    "discrete": spaces.Discrete(3, start=5),
    "several": spaces.MultiDiscrete([3, 2], start=[4, -1]),
    "binary": spaces.MultiBinary(3),
}


class Told(gymnasium.Env):
    """Writes down what it is given and gives.

    Its observation: a number drawn at the reset, the step, the episode's length, whether it will be
    truncated, and the last action. A step is paid about the number that was drawn. Once training
    has begun, whatever is no episode of its own is of an evaluation, and has four steps.

    Args:
        actions: a name in ACTIONS.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    made: list["Told"] = []  # noqa: RUF012
    known: set[int] = set()  # noqa: RUF012  # seeds of training's episodes
    trained = False  # whether there was a step of training
    evaluated: list[Any] = []  # noqa: RUF012  # (return, rows, seed) of episodes, in turn
    now = 0.0  # seconds: a step of training takes as many hundredths as its number is large

    def __init__(self, actions="bounds", render_mode=None):
        self.render_mode, self.action_space = render_mode, ACTIONS[actions]
        size = int(np.prod(self.action_space.shape, dtype=int))
        self.observation_space = spaces.Box(-np.inf, np.inf, (4 + size,), np.float32)
        self.training = len(Told.made) < COPIES
        Told.made.append(self)
        self.seeds, self.rows, self.episodes = [], [], []  # rows: (obs, action), in turn

    @classmethod
    def forget(cls):
        cls.trained = False
        for told in (cls.made, cls.known, cls.evaluated):
            told.clear()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = seed
        if self.training:
            Told.known.add(seed)
        self.start, self.count, self.paid = float(self.np_random.uniform(1, 2)), 0, 0.0
        self.length = int(self.np_random.integers(1, 5)) if seed in Told.known else 4
        self.truncates = bool(self.np_random.integers(2))
        self.show(np.zeros(self.action_space.shape))
        return self.obs, {}

    def step(self, action):
        self.rows.append((self.obs, np.array(action)))
        Told.trained |= self.training
        evaluated = Told.trained and self.seed not in Told.known
        if not self.count and (self.training or evaluated):
            self.seeds.append(self.seed)
        self.count += 1
        reward = self.start + float(np.mean(action)) / 100
        Told.now += self.start / 100 if self.training else 50.0
        self.paid += reward
        done = self.count == self.length
        if done:
            self.episodes.append((len(self.rows), self.paid, self.length))
        if done and evaluated:
            Told.evaluated.append((self.paid, self.rows[-self.length :], self.seed))
        self.show(action)
        return self.obs, reward, done and not self.truncates, done and self.truncates, {}

    def show(self, action):
        seen = [self.start, self.count, self.length, self.truncates, *np.ravel(action)]
        self.obs = np.array(seen, np.float32)

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)


gymnasium.register("Told-v0", entry_point=Told)


class Still(gymnasium.Env):
    """Shows nothing, so that a deterministic action never changes; pays five actions."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.zeros(1, np.float32), float(action[0]), False, self.count == 5, {}


gymnasium.register("Still-v0", entry_point=Still)


# what the environments are given, and give


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_what_comes_out_of_copies_that_end_at_different_times(mode):
    """Each row of one episode, each flag its own, each start new, each finished episode once."""
    Told.made.clear()
    envs = Envs(ID, COPIES, mode, {}, seed=4)
    generator = torch.Generator().manual_seed(0)
    finished, before, paid, rows = [], envs.obs.clone(), np.zeros(COPIES), []
    starts = set(before[:, 0].tolist())
    try:
        for _ in range(40):
            action = torch.rand(COPIES, 2, generator=generator) * 2 - 1
            latent = torch.rand(COPIES, 2, generator=generator)
            row = envs.step(action, latent)
            rows.append((row, [field.clone() for field in row]))
            assert torch.equal(row.obs, before)
            assert torch.equal(row.action, action)
            assert torch.equal(row.latent, latent)
            assert row.reward.dtype == row.obs.dtype == row.next_obs.dtype == torch.float32
            start, count, length, truncates = row.next_obs[:, :4].unbind(-1)
            assert torch.equal(start, row.obs[:, 0])
            assert torch.equal(count, row.obs[:, 1] + 1)
            done = count == length
            assert torch.equal(row.truncated, done & (truncates == 1))
            assert torch.equal(row.terminated, done & (truncates == 0))
            given = row.next_obs[:, 4:]
            assert torch.allclose(given, action * torch.tensor([2.0, 4.0]) + torch.tensor([1, 6]))
            assert torch.allclose(row.reward, start + given.mean(-1) / 100)
            paid += row.reward.numpy()
            for index in done.nonzero().flatten().tolist():
                finished.append((index, pytest.approx(paid[index], rel=1e-5), length[index].item()))
                paid[index] = 0.0
                assert envs.obs[index, 1] == 0
                starts.add(envs.obs[index, 0].item())
            assert torch.equal(envs.obs[~done], row.next_obs[~done])
            before = envs.obs.clone()
        assert all(torch.equal(*pair) for row, was in rows for pair in zip(row, was, strict=True))
        assert envs.drain() == finished
        assert envs.drain() == []
        assert len({length for _, _, length in finished}) > 1
        assert len(starts) == len(finished) + COPIES  # no number drawn a second time
    finally:
        envs.close()


@pytest.mark.parametrize("mode", ["sync", "async", "native"])
def test_each_episode_of_each_copy_under_each_seed_has_a_beginning_of_its_own(mode):
    def beginnings(mode, seed):
        name, rest = ("CartPole-v1", torch.zeros(3, dtype=int)) if mode == "native" else (
            "Pendulum-v1", torch.zeros(3, 1))  # fmt: skip
        envs = Envs(name, 3, mode, {"max_episode_steps": 2}, seed)
        seen = [envs.obs]
        for _ in range(8):
            envs.step(rest, rest)
            seen.append(envs.obs)
        envs.reset(seed + 10)
        envs.close()
        return torch.cat([*seen[::2], envs.obs]).tolist()

    found, same = beginnings(mode, 0), "native" if mode == "native" else "sync"
    assert len({tuple(obs) for obs in found + beginnings(same, 1)}) == 2 * 3 * 6
    assert found == beginnings(same, 0)


def test_native_episodes_are_counted_anew_each():
    """A policy that balances: cut at 500, again at 1,000; the other copy has fallen once before."""
    envs = Envs("CartPole-v1", 2, "native", {}, seed=0)
    cut = []
    for step in range(1, 1041):
        obs = envs.obs.numpy()
        action = torch.from_numpy((obs[:, 2] + 0.3 * obs[:, 3] + 0.03 * obs[:, 1] > 0).astype(int))
        if step <= 20 and not envs.finished:
            action[1] = 1
        row = envs.step(action, action)
        assert not (row.terminated.any() and step > 20)
        cut += [(step, index) for index in row.truncated.nonzero().flatten().tolist()]
    (fallen, *rest) = envs.drain()
    assert fallen[0] == 1
    assert 5 < fallen[2] < 20
    assert cut == [(500, 0), (500 + fallen[2], 1), (1000, 0), (1000 + fallen[2], 1)]
    assert [(index, length) for index, _, length in rest] == [(0, 500), (1, 500)] * 2
    assert [total for _, total, _ in rest] == [500.0] * 4


def test_native_step_counters_are_restored():
    kwargs = {"max_episode_steps": 9}
    first, second = (Envs("CartPole-v1", 2, "native", kwargs, seed=seed) for seed in (0, 1))
    left, right = torch.tensor([0, 1]), torch.tensor([1, 0])
    for step in range(5):
        first.step(*2 * [left if step % 2 else right])
    second.load_state_dict(saved_and_read(first.state_dict()))
    cut = [second.step(*2 * [left if step % 2 else right]).truncated.tolist() for step in range(4)]
    assert cut == [[False, False]] * 3 + [[True, True]]


def test_a_reset_forgets_what_was_before():
    Told.made.clear()
    envs = Envs(ID, COPIES, "sync", {}, seed=0)
    Told.made.clear()
    fresh = Envs(ID, COPIES, "sync", {}, seed=0)
    action = torch.zeros(COPIES, 2)
    for _ in range(5):
        envs.step(action, action)
    for one in (envs, fresh):
        one.reset(7)
        assert one.drain() == []
        for _ in range(9):
            one.step(action, action)
    assert envs.drain() == fresh.drain() != []


@pytest.mark.parametrize("name", ACTIONS)
def test_every_component_of_an_action_arrives_in_its_own_units(name):
    Told.made.clear()
    space = ACTIONS[name]
    envs = Envs(ID, 2, "sync", {"actions": name}, seed=0)
    if isinstance(space, spaces.Box):
        low, high = np.broadcast_arrays(space.low, space.high)
        width = int(np.prod(space.shape, dtype=int))
        for share in (-3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0):
            shares = np.array([share, -share / 2])[:width]
            inside = np.clip(shares, -1, 1).reshape(space.shape)
            given = torch.tensor(np.stack([shares, shares]), dtype=torch.float32)
            envs.step(given, given)
            (_, action) = Told.made[1].rows[-1]
            np.testing.assert_allclose(action, low + (high - low) * (inside + 1) / 2, rtol=1e-6)
            assert action.dtype == space.dtype
            assert space.contains(action)
        return
    bits = [[0, 1, 1], [1, 0, 0]]
    choices = {"discrete": [[0], [2]], "several": [[0, 0], [2, 1]], "binary": bits}
    wanted = {"discrete": [5, 7], "several": [[4, -1], [6, 0]], "binary": bits}
    chosen = torch.tensor(choices[name])
    envs.step(chosen.squeeze(-1), chosen.squeeze(-1))
    assert [copy.rows[-1][1].tolist() for copy in Told.made] == wanted[name]
    assert space.contains(envs.to_env(chosen.squeeze(-1).numpy())[0])


# one run and everything that it leaves, against what its environments saw

SETTINGS = [
    *(f"env.id={ID}", f"env.num_envs={COPIES}", "env.vectorization=sync", "agent=a2c", "seed=159"),
    *("agent.n_steps=4", "agent.hidden=[8]", "agent.lr_schedule=linear", "total_steps=100"),
    *("agent.normalise_obs=true", "log.every=14", "eval.every=40", "eval.episodes=2"),
    *("agent.reward_scale=auto",),
    *("audit.every=60", "checkpoint.every=35", "checkpoint.keep=99"),
]  # fmt: skip
LAST, UPDATE = 102, 12  # steps: the first multiple of 3 from 100 on, and those of one update


class StopAt(Stop):
    """A signal is seen at the first look at or after a step, when so many episodes were played."""

    def __init__(self, step, played):
        super().__init__()
        self.step, self.played = step, played

    def check(self):
        if not Told.made or len(Told.evaluated) < self.played:
            return
        if COPIES * len(Told.made[0].rows) >= self.step:
            raise Stopped("stopped: by a test; go on", 75)


class Seen:
    """One process of a run: what its environments and its audits saw."""

    def __init__(self, arguments, stop=None):
        Told.made.clear()
        self.audits, self.began = [], Told.now
        audit = audits.at_states

        def recorded(agent, obs, generator):
            self.audits.append((obs.tolist(), generator.initial_seed()))
            return audit(agent, obs, generator)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(audits, "at_states", recorded)
            patch.setattr("time.perf_counter", lambda: Told.now)
            self.code = enter("train", partial(train.run, stop=stop), arguments)
        self.training, self.others = Told.made[:COPIES], Told.made[COPIES:]
        self.evaluated, self.ended = list(Told.evaluated), Told.now

    def evaluations(self):
        """(returns, seeds) of the evaluations, of two episodes each."""
        returns = np.array([paid for paid, *_ in self.evaluated])
        return returns.reshape(-1, 2), [seed for *_, seed in self.evaluated]


def events(run):
    found = EventAccumulator(str(run), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    return found.Reload()


def curves(run):
    found = events(run)
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def result(run):
    return json.loads((run / "result.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(directory, what was seen) of the uninterrupted run."""
    run = tmp_path_factory.mktemp("joins") / "run"
    Told.forget()
    seen = Seen([*SETTINGS, f"run_dir={run}"])
    assert seen.code == 0
    returns = seen.evaluations()[0].mean(1)
    assert (np.diff(returns) < -0.3).all(), "they get worse; choose another seed"
    return run, seen


def crossed(every):
    """The steps at which a multiple is reached, or passed."""
    return [s for s in range(COPIES, LAST + 1, COPIES) if s // every > (s - COPIES) // every]


def seconds(seen, step):
    """Spent in training until that step."""
    rows = [row for copy in seen.training for row in copy.rows[: step // COPIES]]
    return sum(float(obs[0]) / 100 for obs, _ in rows)


def test_each_log_has_the_episodes_and_the_time_of_its_interval(whole):
    run, seen = whole
    found = curves(run)
    logs = [*crossed(14), LAST]
    wanted = {tag: [] for tag in ("rollout/return", "rollout/length")}
    for past, step in pairwise([0, *logs]):
        ended = [e for copy in seen.training for e in copy.episodes if past < e[0] * COPIES <= step]
        if ended:
            wanted["rollout/return"].append((step, np.mean([paid for _, paid, _ in ended])))
            wanted["rollout/length"].append((step, np.mean([length for *_, length in ended])))
    for tag, curve in wanted.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in curve]
        np.testing.assert_allclose([v for _, v in found[tag]], [v for _, v in curve], rtol=1e-5)
    marks = [step // UPDATE * UPDATE for step in [0, *logs]]  # the last updates until then
    speeds = {"time/steps_per_second": 1, "time/updates_per_second": UPDATE}
    for tag, size in speeds.items():
        wanted = [
            (step, (now - past) / size / (seconds(seen, now) - seconds(seen, past)))
            for step, (past, now) in zip(logs, pairwise(marks), strict=True)
            if now > past  # no rollout ends in the last interval
        ]
        np.testing.assert_allclose(found[tag], wanted, rtol=1e-5)
    assert result(run)["steps_per_second"] == pytest.approx(
        (LAST - UPDATE) / (seconds(seen, LAST) - seconds(seen, UPDATE)), rel=1e-5
    )


def test_each_log_has_the_learning_rate_of_its_updates(whole):
    """It falls over the updates of the run, from all of it to an eighth."""
    run, _ = whole
    rate, planned = train_config(SETTINGS).agent.lr, 100 // UPDATE
    wanted = []
    for past, step in pairwise([0, *crossed(14), LAST]):
        made = range(past // UPDATE, step // UPDATE)
        if made:
            wanted.append((step, np.mean([rate * (1 - number / planned) for number in made])))
    found = curves(run)["train/lr"]
    assert [step for step, _ in found] == [step for step, _ in wanted]
    np.testing.assert_allclose([v for _, v in found], [v for _, v in wanted], rtol=1e-5)


def test_evaluations_are_of_their_own_episodes_and_stand_where_they_were_due(whole):
    run, seen = whole
    steps = [*crossed(40), LAST]
    found = curves(run)
    pairs, of_evaluations = seen.evaluations()
    assert len(pairs) == len(steps)
    for tag, of in (("return_mean", np.mean), ("return_std", partial(np.std, ddof=1))):
        wanted = of(pairs, axis=1)
        assert [step for step, _ in found[f"eval/{tag}"]] == steps
        np.testing.assert_allclose([v for _, v in found[f"eval/{tag}"]], wanted, rtol=1e-4)
    assert found["eval/length_mean"] == [(step, 4.0) for step in steps]
    of_training = {seed for copy in seen.training for seed in copy.seeds}
    assert len(of_training) == sum(len(copy.seeds) for copy in seen.training)
    assert len({*of_evaluations}) == len(of_evaluations)
    assert not of_training & {*of_evaluations}


def test_checkpoints_stand_where_they_were_due_and_at_a_best_evaluation(whole):
    """Evaluations get worse, so that only the first of them is one."""
    run, _ = whole
    steps = [int(name[5:]) for name in checkpoint.names(run)]
    assert steps == sorted([0, *crossed(35), crossed(40)[0], LAST])
    scores = [checkpoint.load(run / "checkpoints" / name)["return_mean"]
              for name in checkpoint.names(run)]  # fmt: skip
    evaluated = dict(curves(run)["eval/return_mean"])
    assert scores == [pytest.approx(evaluated[s], rel=1e-5) if s in evaluated else None
                      for s in steps]  # fmt: skip
    assert checkpoint.load_newest(run, "best")[0] == crossed(40)[0]


def test_audits_look_at_the_last_observations_of_the_logs_and_at_that_of_now(whole):
    run, seen = whole
    steps = [*crossed(60), LAST]
    obs, _ = zip(*seen.training[0].rows, strict=True)
    now = {LAST: seen.training[0].obs}
    tag = next(tag for tag in curves(run) if tag.endswith("/pit_ks"))
    assert [step for step, _ in curves(run)[tag]] == steps
    for step, (looked_at, _) in zip(steps, seen.audits, strict=True):
        logged = [log for log in [*crossed(14), LAST] if log <= step][-3:]
        wanted = [now[s] if s in now else obs[s // COPIES] for s in (*logged, step)]
        assert looked_at == np.stack(wanted).tolist()
    seeds = {seed for _, seed in seen.audits}
    assert len(seeds) == len(steps)


def test_the_result_is_that_of_the_last_evaluation(whole):
    run, seen = whole
    told = result(run)
    returns = seen.evaluations()[0][-1]
    assert (told["steps"], told["episodes"], told["seed"], told["exact"]) == (LAST, 2, 159, True)
    assert told["return_mean"] == pytest.approx(np.mean(returns))
    assert told["return_std"] == pytest.approx(np.std(returns, ddof=1))
    spent = seconds(seen, LAST) - seconds(seen, UPDATE)  # since the first update
    assert told["steps_per_second"] == pytest.approx((LAST - UPDATE) / spent)


def test_how_often_something_is_logged_or_looked_at_changes_no_step(whole, tmp_path):
    run, seen = whole
    often = {"log": 5, "eval": 9, "audit": 10, "checkpoint": 7}
    Told.forget()
    other = Seen([*SETTINGS, *(f"{name}.every={every}" for name, every in often.items()),
                  "eval.episodes=3", f"run_dir={tmp_path / 'run'}"])  # fmt: skip
    assert other.code == 0
    assert result(tmp_path / "run")["state_digest"] == result(run)["state_digest"]
    for one, two in zip(seen.training, other.training, strict=True):
        assert [action.tolist() for _, action in one.rows] == [a.tolist() for _, a in two.rows]


def test_another_seed_is_another_run_throughout(whole, tmp_path):
    _, seen = whole
    Told.forget()
    other = Seen([*SETTINGS, "seed=4", "total_steps=60", f"run_dir={tmp_path / 'run'}"])
    assert len(other.audits) == 1  # at a step of one of the others
    drawn = [{seed for copy in (*one.training, *one.others) for seed in copy.seeds}
             | {seed for _, seed in one.audits} for one in (seen, other)]  # fmt: skip
    assert not drawn[0] & drawn[1]


@pytest.mark.parametrize(
    ("step", "played"),
    [(42, 2), (60, 2), (96, 4), (LAST, 4)],
    ids=["after a log and an evaluation", "after an audit", "after an update", "at the end"],
)
def test_a_stopped_run_repeats_nothing_and_leaves_nothing_out(
    step, played, whole, tmp_path, capsys
):
    run, seen = whole
    mine = tmp_path / "run"
    Told.forget()
    capsys.readouterr()
    first = Seen([*SETTINGS, f"run_dir={mine}"], StopAt(step, played))
    assert first.code == 75
    assert checkpoint.names(mine)[-1] == f"step-{step:012d}"
    again = Seen([f"resume={mine}", f"env.id={ID}"])
    assert again.code == 0
    assert "warning" not in capsys.readouterr().err
    found, wanted = curves(mine), curves(run)
    assert set(found) == set(wanted)
    for tag, curve in wanted.items():
        assert [at for at, _ in found[tag]] == [at for at, _ in curve], tag
        close = {"rtol": 1e-4} if tag.startswith("time/") else {"rtol": 0}
        np.testing.assert_allclose([v for _, v in found[tag]], [v for _, v in curve], **close)
    for tag in events(run).Tags()["histograms"]:
        shown = [[e.step for e in events(one).Histograms(tag)] for one in (mine, run)]
        assert shown[0] == shown[1], tag
    assert [text.step for text in events(mine).Tensors("config/text_summary")] == [0, step]
    assert first.audits + again.audits == seen.audits
    assert {*checkpoint.names(mine)} == {*checkpoint.names(run), f"step-{step:012d}"}
    told, said = result(mine), result(run)
    for name in ("steps", "return_mean", "return_std", "episodes", "exact", "state_digest"):
        assert told[name] == said[name], name
    assert told["steps_per_second"] == pytest.approx(said["steps_per_second"], rel=1e-6)
    started = seen.ended - said["wall_seconds"]
    assert told["wall_seconds"] == pytest.approx(first.ended - started + again.ended - started)


# evaluations


def still(seed=0, episodes=4, **options):
    return evaluator_of("tests.runtime.test_joins:Still-v0", "sync", {}, episodes, seed, **options)


def test_an_evaluation_is_deterministic_unless_it_is_asked_to_sample():
    made, judge = agent("a2c", still().envs.spec), still()
    default, asked, drawn = judge(made, 100), judge(made, 100, True), judge(made, 100, False)
    assert default.returns == asked.returns
    assert len({*default.returns}) == 1
    assert len({*drawn.returns}) == 4
    assert judge(made, 100, False).returns == drawn.returns
    assert judge(made, 200, False).returns != drawn.returns
    assert still(seed=1)(made, 100, False).returns != drawn.returns
    assert still()(made, 100, False).returns == drawn.returns


def test_episodes_are_shared_out_evenly_and_the_rest_goes_to_the_first_copies(monkeypatch):
    Told.forget()
    monkeypatch.setattr("runtime.evaluation.MOST_ENVS", COPIES)
    judge = evaluator_of(ID, "sync", {}, 7, 0)
    made = agent("a2c", judge.envs.spec)
    evaluated = judge(made, 0)
    ended = [copy.episodes for copy in Told.made]
    counted = [e for one, quota in zip(ended, (3, 2, 2), strict=True) for e in one[:quota]]
    assert len(counted) == 7
    assert sorted(evaluated.lengths) == sorted(length for *_, length in counted)
    np.testing.assert_allclose(sorted(evaluated.returns), sorted(paid for _, paid, _ in counted))
    assert len(judge(made, 1).returns) == 7


def test_in_training_too_evaluations_do_not_sample(tmp_path):
    where = ["env.id=tests.runtime.test_joins:Still-v0", "agent=a2c", "env.num_envs=2"]
    short = ["agent.n_steps=4", "agent.hidden=[8]", "eval.episodes=3", "total_steps=16"]
    run = tmp_path / "run"
    assert enter("train", train.run, [*where, *short, "eval.every=8", f"run_dir={run}"]) == 0
    assert [value for _, value in curves(run)["eval/return_std"]] == [0.0, 0.0]

    def play(*given):
        assert enter("evaluate", evaluate.run, [f"run={run}", where[0], "episodes=3", *given]) == 0
        return json.loads((run / "evaluation.json").read_text())

    default, asked = play("seed=5"), play("seed=5", "deterministic=true")
    assert default == asked
    assert default["return_std"] == 0.0
    assert default["return_mean"] == pytest.approx(result(run)["return_mean"])
    drawn = play("seed=5", "deterministic=false")
    assert (default["deterministic"], drawn["deterministic"]) == (True, False)
    assert drawn["return_std"] > 0.1
    assert play("seed=5", "deterministic=false") == drawn
    assert play("seed=6", "deterministic=false")["return_mean"] != drawn["return_mean"]


def test_what_an_evaluation_writes_is_what_was_played(whole, capsys):
    """With the run's own seed, at the run's last step: other episodes than the run evaluated."""
    run, seen = whole
    Told.forget()
    Told.made += [None] * COPIES  # stand for those of training
    Told.trained = True
    given = [f"run={run}", f"env.id={ID}", "episodes=2", "seed=159"]
    assert enter("evaluate", evaluate.run, given) == 0
    told = json.loads((run / "evaluation.json").read_text())
    played = Told.evaluated[-2:]
    returns = np.array([paid for paid, *_ in played])
    wanted = {"return_mean": returns.mean(), "return_std": returns.std(ddof=1),
              "return_min": returns.min(), "return_max": returns.max(),
              "return_sem": returns.std(ddof=1) / 2**0.5, "length_mean": 4.0, "episodes": 2,
              "seed": 159, "deterministic": True, "checkpoint_step": LAST}  # fmt: skip
    assert {name: told[name] for name in wanted} == pytest.approx(wanted)
    known = {seed for copy in (*seen.training, *seen.others) for seed in copy.seeds}
    assert not known & {seed for *_, seed in played}
    assert enter("evaluate", evaluate.run, [*given, "checkpoint=best"]) == 0
    told = json.loads((run / "evaluation.json").read_text())
    assert told["checkpoint_step"] == crossed(40)[0]


@pytest.mark.parametrize("name", ACTIONS)
def test_every_door_gives_the_environment_the_same_action(name, tmp_path):
    """In units of its own, which training, evaluation and a notebook map to alike."""
    run = tmp_path / "run"
    Told.forget()
    own = [f"env.id={ID}", f"env.kwargs.actions={name}"]
    short = ["agent=a2c", "agent.n_steps=4", "agent.hidden=[8]", "agent.normalise_obs=true",
             f"env.num_envs={COPIES}", "eval.episodes=2", "total_steps=60"]  # fmt: skip
    seen = Seen([*own, *short, "agent.lr=0.05", f"run_dir={run}"])
    assert seen.code == 0
    assert enter("evaluate", evaluate.run, [f"run={run}", own[0], "episodes=4"]) == 0
    played = Told.evaluated[-4:]
    film = [f"run={run}", own[0], "episodes=1", "video=true"] if name == "bounds" else []
    if film:
        assert enter("evaluate", evaluate.run, film) == 0
        played += Told.evaluated[-2:]  # one of them before the camera
    policy = policies.load(run, env_id=ID)
    last = [row for _, rows, _ in played for row in rows]
    assert len(last) == 4 * len(played)
    for obs, action in last:
        given = policy(obs)
        np.testing.assert_allclose(given, action, atol=1e-5)
        assert np.asarray(given).dtype == ACTIONS[name].dtype
    several = policy(np.stack([obs for obs, _ in last]))
    np.testing.assert_allclose(several, np.stack([action for _, action in last]), atol=1e-5)
    for _, action in last + [row for copy in seen.training for row in copy.rows]:
        assert ACTIONS[name].contains(action if action.shape else action[()])


def test_a_policy_is_loaded_from_the_checkpoint_that_is_named(whole):
    run, seen = whole
    obs = np.stack([obs for obs, _ in seen.training[0].rows])
    names = ["latest", "best", *checkpoint.names(run)]
    actions = {name: policies.load(run, name, env_id=ID)(obs) for name in names}
    at = {name: f"step-{step:012d}" for name, step in (("latest", LAST), ("best", 42))}
    for name, same in at.items():
        assert np.array_equal(actions[name], actions[same])
    distinct = {step // UPDATE for step in (0, 36, 42, 72, LAST)}
    assert len({action.tobytes() for action in actions.values()}) == len(distinct)


# the agents' own

AGENTS = {
    "a2c": ["agent.n_steps=4", "env=pendulum", "env.num_envs=2"],
    "ppo": ["agent.n_steps=8", "agent.batch_size=8", "agent.epochs=2", "env=pendulum",
            "env.num_envs=2"],
    "sac": ["agent.batch_size=8", "agent.learning_starts=20", "env=pendulum", "env.num_envs=1",
            "agent.reward_scale=auto"],
    "sac_discrete": ["agent.batch_size=8", "agent.learning_starts=20", "env=cartpole"],
}  # fmt: skip
TAGS = {"policy/entropy", "policy/log_prob_mean", "policy/log_prob_std", "policy/log_prob_min",
        "policy/log_prob_max", "loss/actor", "loss/critic", "value/mean", "value/target_mean",
        "value/explained_variance", "value/td_abs", "grad_norm/actor", "grad_norm/critic",
        "train/lr", "time/steps_per_second", "time/updates_per_second", "eval/return_mean",
        "eval/return_std", "eval/length_mean"}  # fmt: skip
SOFT = {"policy/target_entropy", "policy/alpha", "loss/alpha"}
OWN = {"a2c": {"policy/log_std_mean", "policy/saturation"}, "sac_discrete": SOFT,
       "ppo": {"policy/log_std_mean", "policy/saturation", "policy/kl", "policy/clip_fraction"},
       "sac": {"policy/log_std_mean", "policy/saturation", "train/reward_unit", *SOFT}}  # fmt: skip


@pytest.mark.parametrize("name", AGENTS)
def test_each_agent_logs_its_tags_and_its_rate_falls_to_0_with_its_last_update(name, tmp_path):
    run = tmp_path / "run"
    given = [*AGENTS[name], f"agent={name}", "agent.hidden=[8]", "agent.lr_schedule=linear",
             "agent.lr=0.001", "log.every=8", "eval.episodes=1", "total_steps=64"]  # fmt: skip
    assert enter("train", train.run, [*given, f"run_dir={run}"]) == 0
    found = curves(run)
    assert set(found) >= TAGS | OWN[name]
    histograms = events(run).Tags()["histograms"]
    assert {"policy/log_prob", "policy/action"} <= {*histograms}
    config = train_config(given)
    if config.agent.on_policy:
        size = config.agent.n_steps * config.env.num_envs
        at = range(size, 65, size)
    else:
        each = config.agent.updates_per_step
        at = [step for step in range(20, 65) for _ in range(int(each))]
    wanted = []
    for past, step in pairwise(range(0, 65, 8)):
        made = [number for number, when in enumerate(at) if past < when <= step]
        if made:
            wanted.append((step, 0.001 * np.mean([1 - number / len(at) for number in made])))
    assert [step for step, _ in found["train/lr"]] == [step for step, _ in wanted]
    np.testing.assert_allclose([v for _, v in found["train/lr"]], [v for _, v in wanted], rtol=1e-4)
    if name == "a2c":
        assert Seen([f"resume={run}", "total_steps=96"]).code == 0
        longer = curves(run)["train/lr"]
        assert longer[: len(found["train/lr"])] == found["train/lr"]
        assert [value for step, value in longer if step > 64] == [0.0] * 4


# what the loop passes on


SAC = [
    *(f"env.id={ID}", f"env.num_envs={COPIES}", "agent=sac", "agent.hidden=[8]", "total_steps=90"),
    *("agent.batch_size=8", "agent.learning_starts=30", "agent.explore_hold=5"),
    *("agent.normalise_obs=true", "eval.episodes=2"),
]


def test_until_learning_starts_actions_are_uniform_and_held(tmp_path):
    seen = Seen([*SAC, f"run_dir={tmp_path / 'run'}"])
    assert seen.code == 0
    for copy in seen.training:
        actions = [tuple(action.tolist()) for _, action in copy.rows]
        assert [len({*actions[:5]}), len({*actions[5:10]})] == [1, 1]
        assert len({*actions}) == 2 + 20  # each of the policy's its own
    held = [copy.rows[0][1].tolist() for copy in seen.training]
    assert len({*map(tuple, held)}) == COPIES


@pytest.mark.parametrize("given", [SAC, SETTINGS], ids=["sac", "a2c"])
def test_the_statistics_are_those_of_what_training_has_met(given, tmp_path):
    """Of every observation that was acted on; on-policy, up to the last update."""
    run = tmp_path / "run"
    seen = Seen([*given, f"run_dir={run}"])
    assert seen.code == 0
    steps = 30 if given is SAC else 100 // UPDATE * UPDATE // COPIES
    met = np.stack([obs for copy in seen.training for obs, _ in copy.rows[:steps]])
    state = checkpoint.load(run / "checkpoints" / checkpoint.names(run)[-1])
    found = state["agent"]["modules"]["normalizer"]
    np.testing.assert_allclose(found["mean"], met.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["inverse_std"], 1 / met.std(0), rtol=1e-4)


def test_no_two_generators_of_a_run_begin_alike():
    states = []
    for seed in (0, 1):
        config = train_config([*SAC, f"seed={seed}", "accelerate=none"])
        parts = make_parts(config)
        states += [g.get_state() for g in parts.agent.generators.values()]
        states.append(parts.buffer.generator.get_state())
        parts.close()
    assert len({state.numpy().tobytes() for state in states}) == 6


def test_the_digest_is_of_all_that_the_next_step_depends_on():
    parts = make_parts(train_config([*SAC, "accelerate=none"]))
    learner, replay = parts.agent, parts.buffer
    found = [parts.digest()]

    def changed():
        found.append(parts.digest())
        return len({*found}) == len(found)

    action = learner.explore(parts.envs.obs)
    assert changed()
    row = parts.envs.step(*action)
    assert changed()
    replay.add(row)
    assert changed()
    assert parts.digest() == found[-1]
    next(learner.actor.parameters()).data.view(-1)[0] += 1
    assert changed()
    for generator in (*learner.generators.values(), replay.generator):
        torch.rand(1, generator=generator)
        assert changed()
    parts.close()
    both = [make_parts(train_config([*SAC, "accelerate=none"])) for _ in range(2)]
    for number, parts in enumerate(both):  # with other rewards in all else the same
        parts.buffer.add(row._replace(reward=row.reward + number))
        found.append(parts.digest())
        parts.close()
    assert found[-2] != found[-1]


def test_the_time_of_a_pause_does_not_count_before_it_is_over_either(monkeypatch):
    """A checkpoint has the time of training, and is written in a pause."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = Clock()
    now[0] = 2.0
    for _ in range(2):
        with clock.pause():
            now[0] += 5.0
            assert clock.elapsed() == 2.0
        assert clock.elapsed() == 2.0
    now[0] += 1.0
    assert clock.elapsed() == 3.0


def test_on_policy_agents_have_eight_environments_and_the_others_one():
    counts = {name: train_config(["env.id=Any-v0", f"agent={name}"]).env.num_envs
              for name in AGENTS}  # fmt: skip
    assert counts == {"a2c": 8, "ppo": 8, "sac": 1, "sac_discrete": 1}


# files


def test_of_equal_evaluations_the_newest_is_the_best_and_stays(tmp_path):
    for step, score in enumerate([None, 1.0, 2.0, 2.0, None, 1.0, 0.0]):
        checkpoint.save(tmp_path, step, {"return_mean": score, "a": 1}, keep=2)
    assert [int(name[5:]) for name in checkpoint.names(tmp_path)] == [3, 5, 6]
    assert checkpoint.load_newest(tmp_path, "best")[0] == 3
    assert checkpoint.load_newest(tmp_path)[0] == 6
    checkpoint.save(tmp_path, 7, {"return_mean": 2.0, "a": 1}, keep=9)
    assert checkpoint.load_newest(tmp_path, "best")[0] == 7
    checkpoint.save(tmp_path, 8, {"return_mean": 3.0, "a": 1}, keep=4)
    assert [int(name[5:]) for name in checkpoint.names(tmp_path)] == [5, 6, 7, 8]


def test_evaluations_below_zero_are_better_than_none(tmp_path):
    for step, score in enumerate([-5.0, -9.0, None, None]):
        checkpoint.save(tmp_path, step, {"return_mean": score, "a": 1}, keep=1)
    assert [int(name[5:]) for name in checkpoint.names(tmp_path)] == [0, 3]
    assert checkpoint.load_newest(tmp_path, "best")[0] == 0


def test_the_log_of_a_resumed_run_is_named_after_the_one_that_it_takes_back(tmp_path):
    found = []
    for purge_step in (None, 11, 21):
        Logger(tmp_path, purge_step=purge_step).close()
        found += [path.name for path in tmp_path.iterdir() if path.name not in found]
    assert len(found) == 3
    assert found == sorted(found)


TUNED = sorted(path.stem for path in (files.DIRECTORY / "tuned").glob("*.yaml"))


@pytest.mark.parametrize("pair", TUNED)
def test_a_tuned_pair_is_of_its_environment_and_agent_and_is_what_they_are_trained_with(pair):
    env, _, name = pair.rpartition("-")
    config = train_config([f"env={env}", f"agent={name}"])
    where = yaml.safe_load((files.DIRECTORY / "env" / f"{env}.yaml").read_text())
    assert (config.env.id, config.agent.name) == (where["id"], name)
    tuned = yaml.safe_load((files.DIRECTORY / "tuned" / f"{pair}.yaml").read_text())
    general = train_config([f"env.id={where['id']}", f"agent={name}"])
    assert config.total_steps == tuned.pop("total_steps")
    differ = 0
    for group, keys in tuned.items():
        for key, value in keys.items():
            assert getattr(getattr(config, group), key) == value
            differ += getattr(getattr(general, group), key) != value
    assert differ > 0
