"""The real loop: what it stores, when it saves, evaluates and stops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.errors import Divergence, Stopped, StorageFault
from configs.compose import train_config
from data import Replay, Rollout
from envs.envs import Envs
from runtime.build import Parts
from runtime.divergence import Recorded
from runtime.evaluation import Evaluation
from runtime.launch.door import enter
from runtime.launch.ranks import Ranks
from runtime.launch.signals import Stop
from runtime.loop import train
from runtime.schedule import Clock, LoadWatch, Schedule, TemperatureWatch, reached
from tests.helpers import agent, batch, saved_and_read
from train import run


class Silent:
    """Stands in for the logger and the progress bar."""

    def __init__(self):
        self.written = []

    def add(self, metrics):
        pass

    def flush(self, step, extra):
        self.written.append((step, dict(extra)))
        return extra

    def write(self, step, values):
        self.written.append((step, dict(values)))
        return values

    def state_dict(self):
        return {"pending": 1}

    def load_state_dict(self, state):
        assert state == {"pending": 1}

    def note(self, values):
        pass

    def update(self, step):
        pass


class Saves:
    """Stands in for the saver: notes what is saved, and at which step."""

    ranks = Ranks()

    def __init__(self, path, config, parts, step):
        self.path, self.config, self.parts, self.step, self.saved = path, config, parts, step, []

    def save(self, step, score, schedule):
        self.saved.append((step, score))

    def rate(self, step, score):
        self.saved.append((step, "later", score))


@pytest.fixture
def schedule(tmp_path, monkeypatch):
    """Makes a schedule that begins at `step`; what it saves, and what it logs."""
    monkeypatch.setattr("runtime.audits.audit", lambda *_: None)

    def make(learner, envs, total_steps=300, scores=(1.0,), every=100, log_every=50, step=0):
        left = list(scores)

        def evaluator(agent, step):
            return Evaluation([left.pop(0) if left else 0.0], [1])

        config = train_config([f"{name}.every={every}" for name in ("eval", "checkpoint", "audit")])
        config = replace(config, total_steps=total_steps, log=replace(config.log, every=log_every))
        learner.step = Recorded(learner.step)  # as `make_parts` does
        quiet = Silent()
        saves = Saves(tmp_path, config, Parts(learner, envs, None, evaluator), step)
        return Schedule(saves, quiet, quiet, Stop()), saves.saved, quiet

    return make


def counting(count, vectorization="sync", **kwargs):
    return Envs("tests.helpers:Counting-v0", count, vectorization, kwargs, seed=0)


def test_each_step_is_saved_once_with_its_evaluation(schedule):
    """Falling evaluations: the first stays the best, whatever else is due at the same step."""
    envs = counting(1)
    made, saved, _ = schedule(agent("a2c", envs.spec), envs, scores=(9.0, 5.0, 3.0))
    train(made.agent, envs, Rollout(5), made)
    assert saved == [(100, 9.0), (200, 5.0), (300, 3.0)]
    assert made.record.best == 9.0


class Later:
    """A signal that comes after so many steps."""

    def __init__(self, steps):
        self.left = steps

    def __call__(self):
        self.left -= 1
        if not self.left:
            raise Stopped("stopped: by a test; go on", 75)


SCORES = (1.0, 5.0, 4.0, 5.0, 5.0, 6.0)


@pytest.mark.parametrize(
    ("keys", "last"),
    [
        ({"stop_at": 5.0}, 20),
        ({"stop_at": 4.0, "stop_after": 2}, 30),
        ({"stop_at": 5.0, "stop_after": 2}, 50),
        ({"patience": 1}, 30),
        ({"patience": 3}, 50),
        ({"patience": 4, "stop_at": 7.0}, 60),
    ],
)
@pytest.mark.parametrize("stopped_at", [None, 15, 30])
def test_evaluations_end_a_run(keys, last, stopped_at, schedule, monkeypatch):
    """All is due at that step, whatever the intervals, and a resumed run ends at the same one."""
    audits = []
    monkeypatch.setattr("runtime.audits.audit", lambda *given: audits.append(given[3]))
    envs = counting(1)

    def make(scores, step=0):
        whole = {"total_steps": 60, "every": 10, "log_every": 7, "step": step}
        made, saved, quiet = schedule(agent("a2c", envs.spec), envs, scores=scores, **whole)
        ends = replace(made.config.eval, **keys)
        made.config = replace(made.config, eval=ends)
        made.actions[-1] = (40, made.audit)
        return made, saved, quiet

    made, saved, quiet = make(SCORES)
    if stopped_at is not None and stopped_at < last:
        made.stop.check = Later(stopped_at)
        with pytest.raises(Stopped):
            train(made.agent, envs, Rollout(5), made)
        state = saved_and_read(made.state_dict())
        made, saved, quiet = make(SCORES[len(made.record.returns) :], stopped_at)
        made.load_state_dict(state)
        assert made.stopped is None
    evaluation = train(made.agent, envs, Rollout(5), made, made.saver.step)
    assert saved[-1] == (last, SCORES[last // 10 - 1])
    assert evaluation.returns == [saved[-1][1]]
    assert audits[-1] == quiet.written[-1][0] == made.record.last_log == last
    assert (made.stopped is None) == (last == 60)


def test_a_run_that_its_evaluations_have_ended_does_not_go_on_from_there(schedule):
    """With a goal that is lowered later, too; with a higher one it does."""
    envs = counting(1)
    made, _, _ = schedule(agent("a2c", envs.spec), envs, scores=(5.0, 2.0), total_steps=200)
    train(made.agent, envs, Rollout(5), made)
    for goal, more in ((1.0, False), (3.0, True)):
        again, saved, _ = schedule(made.agent, envs, step=200)
        again.config = replace(again.config, eval=replace(again.config.eval, stop_at=goal))
        again.load_state_dict(made.state_dict())
        train(again.agent, envs, Rollout(5), again, 200)
        assert [step for step, _ in saved] == ([300] if more else [])


@pytest.mark.parametrize("score", [9.0, 5.0, 1.0])
@pytest.mark.parametrize("last", [200, 300])
def test_an_evaluation_that_a_signal_cut_short_is_saved_with_its_step_later(last, score, schedule):
    def stopped(agent, step):
        if step == 200:
            raise Stopped("stopped: by a test; go on", 75)
        return play(agent, step)

    envs = counting(1)
    learner, buffer = agent("a2c", envs.spec), Rollout(5)
    made, saved, _ = schedule(learner, envs, total_steps=last, scores=(5.0,))
    play, made.evaluator = made.evaluator, stopped
    with pytest.raises(Stopped):
        train(learner, envs, buffer, made)
    assert saved == [(100, 5.0), (200, None)]
    again, later, _ = schedule(learner, envs, total_steps=last, scores=(score, 3.0), step=200)
    again.load_state_dict(made.state_dict())
    train(learner, envs, buffer, again, 200)
    assert later == [(200, "later", score), (300, 3.0)][: last // 100 - 1]
    assert again.record.best == max(score, 5.0)


def test_log_and_evaluation_stand_at_the_end_whatever_the_intervals(schedule):
    envs = counting(4)
    made, saved, quiet = schedule(
        agent("a2c", envs.spec), envs, scores=(1.0,), every=10_000, total_steps=130
    )
    evaluation = train(made.agent, envs, Rollout(5), made)
    assert evaluation.returns == [1.0]
    assert quiet.written[-2][0] == quiet.written[-1][0] == 132  # 33 steps of 4 environments
    assert "eval/return_mean" in quiet.written[-2][1]
    assert saved == [(132, 1.0)]


def test_a_divergence_stops_the_run_before_anything_is_saved(schedule):
    envs = counting(1)
    learner = agent("a2c", envs.spec)
    learner.update(batch(3, 1, spec=envs.spec)._replace(reward=torch.full((3, 1), np.nan)))
    made, saved, _ = schedule(learner, envs, log_every=10_000)
    with pytest.raises(Divergence, match="not finite"):
        train(learner, envs, Rollout(5), made)
    assert saved == []


def test_a_disk_that_stays_full_is_not_told_without_end(capsys, schedule):
    def full(*_):
        raise StorageFault("checkpoint: no room; free the disk")

    envs = counting(1)
    made, _, _ = schedule(agent("a2c", envs.spec), envs)
    made.saver.save = full
    for step in range(1, 9):
        made.checkpoint(step)
    assert capsys.readouterr().err.count("no room") == 5
    with pytest.raises(StorageFault, match="no room"):
        made.checkpoint(9, final=True)


def test_steps_per_second_leaves_out_evaluations_and_saving(monkeypatch, schedule):
    """A clock that only moves where told: 0.01 s per step, 100 s per evaluation and per save."""
    now = [0.0]
    monkeypatch.setattr("runtime.schedule.time.perf_counter", lambda: now[0])
    envs = counting(1)

    def spend(call, seconds):
        def spending(*arguments):
            now[0] += seconds
            return call(*arguments)

        return spending

    made, _, _ = schedule(agent("a2c", envs.spec), envs)
    made.saver.save = spend(made.saver.save, 100)
    made.evaluator = spend(made.evaluator, 100)
    envs.step = spend(envs.step, 0.01)
    train(made.agent, envs, Rollout(5), made)
    assert now[0] > 500
    assert made.steps_per_second == pytest.approx(100, rel=1e-6)


def test_a_run_whose_first_update_is_its_last_step_has_the_speed_of_all_its_steps(
    monkeypatch, schedule
):
    now = [0.0]
    monkeypatch.setattr("runtime.schedule.time.perf_counter", lambda: now[0])
    envs = counting(1)
    made, _, _ = schedule(agent("a2c", envs.spec), envs, 5)
    made.clock = Clock(0.0)
    step = envs.step

    def spending(*arguments):
        now[0] += 0.01
        return step(*arguments)

    envs.step = spending
    train(made.agent, envs, Rollout(5), made)
    assert made.record.learning_since[0] == made.config.total_steps == 5
    assert made.steps_per_second == pytest.approx(100, rel=1e-6)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(("length", "ends"), [(1, "terminated"), (3, "truncated")])
def test_what_lies_in_the_buffers_is_what_happened(vectorization, length, ends, schedule):
    """Every stored row: same episode, next count, right flags, and the reward of its own action."""
    envs = counting(2, vectorization, length=length, ends=ends)
    replay = Replay(1000, 4, 5, 1.0, torch.Generator().manual_seed(0))
    made, _, _ = schedule(agent("sac", envs.spec), envs, 120)
    train(made.agent, envs, replay, made)
    envs.close()
    obs, action, reward, next_obs, terminated, truncated, _ = replay.at(torch.arange(120)).read()
    assert torch.equal(obs[:, 0], next_obs[:, 0])
    assert torch.equal(obs[:, 1] + 1, next_obs[:, 1])
    last = next_obs[:, 1] == length
    assert torch.equal(terminated, last & (ends == "terminated"))
    assert torch.equal(truncated, last & (ends == "truncated"))
    assert torch.allclose(reward, 2 + 4 * action[:, 0], atol=1e-5)
    steps = obs[::2, 0] * length + obs[::2, 1]
    assert steps.tolist() == list(range(60))


def test_native_rollout_at_episode_length_one():
    envs = Envs("CartPole-v1", 3, "native", {"max_episode_steps": 1}, seed=0)
    rollout = Rollout(20)
    for _ in range(20):
        rollout.add(envs.step(*agent("a2c", envs.spec).act(envs.obs)))
    (rows,) = rollout.batches()
    assert rows.truncated.all()
    assert (rows.reward == 1).all()
    assert (rows.obs.abs() <= 0.05).all()  # every row begins an episode
    assert (rows.next_obs[..., 1].abs() > 0.1).all()  # and none leads to another's beginning
    assert len(envs.drain()) == 60


def test_the_action_histogram_is_not_overwritten_by_the_next_rollout():
    envs = counting(2)
    learner, rollout = agent("a2c", envs.spec), Rollout(2)
    for _ in range(2):
        rollout.add(envs.step(*learner.act(envs.obs)))
    (rows,) = rollout.batches()
    shown = learner.update(rows)["policy/action"]
    before = shown.clone()
    rollout.add(envs.step(torch.full((2, 1), 0.123), torch.full((2, 1), 0.123)))
    assert torch.equal(shown, before)


@pytest.mark.parametrize("best", [None, 9.0])
def test_a_schedule_goes_on_where_it_was(best, schedule):
    envs = counting(1)
    made, _, _ = schedule(agent("a2c", envs.spec), envs)
    made.updated(10, {}, None)
    made.updated(20, {}, None)
    made.log(50)
    made.record.returns = [] if best is None else [1.0, best]
    again, _, _ = schedule(made.agent, envs)
    again.load_state_dict(saved_and_read(made.state_dict()))
    for name in ("updates", "best", "learning_since", "last_log", "timed", "last_update"):
        was, now = getattr(made.record, name), getattr(again.record, name)
        assert now == (list(was) if isinstance(was, tuple) else was)
    assert again.record.updates == 2
    earlier = {**made.state_dict(), "best": best}  # of a run from before the list
    earlier["last_log"] = [50, *made.record.timed[1:]]
    del earlier["returns"], earlier["timed"], earlier["last_update"]
    again.load_state_dict(earlier)
    assert again.record.best == (-np.inf if best is None else best)
    assert again.record.last_log == 50
    assert again.record.timed == again.record.last_update == earlier["last_log"]
    assert again.clock.elapsed() >= made.record.timed[1] > 0


def test_there_is_no_speed_before_a_step_was_timed(schedule):
    """At the first step that learns there may be several updates, and none of them took a step."""
    envs = counting(1, choices=2)
    made, _, _ = schedule(agent("sac_discrete", envs.spec), envs)
    for _ in range(2):
        made.updated(10, {}, None)
    assert made.speeds() == {}
    made.updated(20, {}, None)
    assert set(made.speeds()) == {"time/steps_per_second", "time/updates_per_second"}


def test_an_interval_ends_where_a_multiple_is_reached_or_passed():
    assert [step for step in range(4, 41, 4) if reached(10, step, 4)] == [12, 20, 32, 40]


@pytest.mark.parametrize(("vectorization", "looks"), [("sync", [1, 1]), ("async", [])])
def test_each_log_looks_whether_the_run_has_its_cores(vectorization, looks, schedule):
    """But where workers of its own would count as others."""
    envs, threads = counting(1), []
    made, _, _ = schedule(agent("a2c", envs.spec), envs)
    env = replace(made.config.env, vectorization=vectorization)
    made.config, made.load.look = replace(made.config, env=env, threads=1), threads.append
    made.log(50)
    made.log(100)
    assert threads == looks


def test_a_temperature_that_runs_away_is_warned_of_once(capsys):
    made = TemperatureWatch()

    def log(alpha, entropy):
        made.look({"policy/alpha": alpha, "policy/entropy": entropy, "policy/target_entropy": -1.0})
        return capsys.readouterr().err

    assert log(0.2, -3.0) == ""
    assert log(19.0, -3.0) == ""
    assert log(21.0, -0.5) == ""  # large, and it has had its effect
    made = TemperatureWatch(**saved_and_read(vars(made)))  # its first alpha is kept
    assert log(21.0, -3.0).startswith("warning: the temperature runs away: alpha is 21 and the")
    made = TemperatureWatch(**saved_and_read(vars(made)))
    assert log(30.0, -3.0) == ""


@pytest.mark.parametrize(
    ("share", "load", "threads", "words"),
    [
        (0.2, 8.0, 2, "this run had 20% of one core for 70 s; end some, or give threads=1"),
        (0.2, 8.0, 1, "8 processes share 4 cores, this run had 20% of one core for 70 s; end so"),
        (0.9, 8.0, 2, ""),  # it has a core
        (0.2, 5.0, 2, ""),  # it waits for something else
    ],
)
def test_a_run_that_crawls_says_why_once(share, load, threads, words, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("runtime.schedule.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("runtime.schedule.time.process_time", lambda: share * now[0])
    monkeypatch.setattr("runtime.schedule.os.getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr("runtime.schedule.os.cpu_count", lambda: 4)
    watch = LoadWatch()
    for time in (0.0, 20.0, 40.0, 70.0, 140.0, 210.0):
        now[0] = time
        watch.look(threads)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(words)
    assert words in "".join(lines)


def test_without_a_temperature_there_is_nothing_to_look_at(capsys):
    made = TemperatureWatch()
    made.look({"policy/entropy": -3.0})
    made.look({"policy/alpha": 1.0, "policy/entropy": -3.0})
    assert made == TemperatureWatch()
    assert capsys.readouterr().err == ""


def test_a_run_warns_by_the_tags_that_it_logs(tmp_path, monkeypatch, capsys):
    """With a rate at which the policy commits at once, and only the temperature goes on."""
    monkeypatch.chdir(tmp_path)
    small = ["env=pendulum", "agent=sac", "agent.hidden=[8]", "agent.batch_size=8"]
    small += ["agent.learning_starts=50", "agent.lr=1", "total_steps=150", "log.every=20"]
    small += ["env.num_envs=1", "eval.episodes=1", "run_dir=run", "agent.activation=relu"]
    assert enter("train", run, small) == 0
    assert capsys.readouterr().err.count("warning: the temperature runs away") == 1


def test_a_temperature_goes_on_being_watched_where_a_run_goes_on(capsys, schedule):
    """Of three processes, the first logs where it began, the second warns, the third does not."""
    envs = counting(1)
    learner, state = agent("a2c", envs.spec), None
    for step, alpha in enumerate([0.2, 21.0, 30.0], 1):
        made, _, quiet = schedule(learner, envs)
        if state is not None:
            made.load_state_dict(saved_and_read(state))
        shown = {"policy/alpha": alpha, "policy/entropy": -3.0, "policy/target_entropy": -1.0}
        quiet.flush = lambda step, extra, shown=shown: shown
        made.log(50 * step)
        state = made.state_dict()
        assert capsys.readouterr().err.count("the temperature runs away") == (alpha == 21.0)


def test_an_update_is_given_the_draws_that_its_actions_came_from(schedule):
    envs = counting(2)
    learner, batches = agent("a2c", envs.spec, policy="tanh_gaussian"), []
    update = learner.update

    def recorded(batch):
        batches.append([field.clone() for field in batch])
        return update(batch)

    learner.update = recorded
    made, _, _ = schedule(learner, envs, total_steps=40)
    train(learner, envs, Rollout(5), made)
    assert len(batches) == 4
    for _, action, *_, latent in batches:
        assert torch.allclose(latent.tanh(), action)
        assert not torch.equal(latent, action)
