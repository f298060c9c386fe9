"""Copies that are stepped as one: Pendulum bit for bit, and every mode of resetting them."""

import re
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from common.errors import ConfigError, EnvironmentFault
from data import Replay, Rollout
from envs.envs import Envs
from envs.native import NativePendulum
from networks.normalizer import ReturnScale
from tests.helpers import Counting, evaluator_of, saved_and_read
from tests.tracked import ROOT

LENGTHS = (1, 2, 7)
MODES = [mode.name for mode in AutoresetMode]
PAGE = (ROOT / "docs/wrappers.md").read_text()
TABLE = re.findall(r"^\| `(\w+)` .* \| (\d+) \| (\d+) \|$", PAGE, re.M)


class Parts(gymnasium.ObservationWrapper):
    """The observation as a Dict of two parts."""

    def __init__(self, env):
        super().__init__(env)
        box = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.observation_space = gymnasium.spaces.Dict({"count": box, "episode": box})

    def observation(self, obs):
        return {"episode": obs[:1].copy(), "count": obs[1:].copy()}


class Copied(gymnasium.ObservationWrapper):
    """Its own array for each observation: Gymnasium's SAME_STEP keeps the last one over a reset."""

    def observation(self, obs):
        return obs.copy()


def vector(num_envs, mode="NEXT_STEP", lengths=LENGTHS, parts=False, **kwargs):
    def make(length):
        env = Counting(length=length, **kwargs)
        return Parts(env) if parts else Copied(env)

    makes = [partial(make, length) for length in np.resize(lengths, num_envs).tolist()]
    return SyncVectorEnv(makes, autoreset_mode=AutoresetMode[mode])


gymnasium.register("CountingVector-v0", vector_entry_point=vector)
VECTOR = "tests.envs.test_native:CountingVector-v0"


def act(envs, step):
    """An action for each copy, other ones at each step."""
    action = (torch.arange(envs.num_envs) + envs.num_envs * step) % 17 / 17.0 - 0.4
    return envs.step(action.unsqueeze(-1), action.unsqueeze(-1))


# vector environments


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("ends", ["terminated", "truncated"])
@pytest.mark.parametrize("lengths", [LENGTHS, (1, 1, 1), (2, 2), (7, 7, 7), (1,), (7,)])
@pytest.mark.parametrize("mode", MODES)
def test_no_row_is_false(mode, lengths, ends, parts):
    """A copy's rows are its episodes, in order; in place of one that resets stands another's."""
    kwargs = {"mode": mode, "lengths": lengths, "ends": ends, "parts": parts}
    envs = Envs(VECTOR, len(lengths), "native", kwargs, 0)
    (episode, count), total = np.zeros((2, len(lengths)), int), np.zeros(len(lengths))
    expected, repeated = [], 0
    order = [1, 0] if parts else [0, 1]  # a Dict's parts are in the order of their names
    for step in range(42):
        row = act(envs, step)
        idle = np.zeros(len(lengths), bool) if envs.backend.idle is None else envs.backend.idle
        for index in np.flatnonzero(~idle):
            assert row.obs[index][order].tolist() == [episode[index], count[index]]
            assert row.next_obs[index][order].tolist() == [episode[index], count[index] + 1]
            reward = 2 + 4 * ((index + len(lengths) * step) % 17 / 17.0 - 0.4)  # that of its action
            assert row.reward[index].item() == pytest.approx(reward)
            last = count[index] + 1 == lengths[index]
            assert row.terminated[index].item() == (last and ends == "terminated")
            assert row.truncated[index].item() == (last and ends == "truncated")
            count[index], total[index] = count[index] + 1, total[index] + reward
            if last:
                expected.append((index, pytest.approx(total[index]), lengths[index]))
                episode[index], count[index], total[index] = episode[index] + 1, 0, 0.0
        for index in np.flatnonzero(idle):
            same = [all(torch.equal(field[other], field[index]) for field in row._replace(
                truncated=row.terminated)) for other in np.flatnonzero(~idle)]  # fmt: skip
            assert same.count(True) == 1
            assert row.truncated[index]  # nothing is chained to it
            repeated += 1
    assert envs.drain() == expected
    assert (repeated > 0) == (mode == "NEXT_STEP" and len(set(lengths)) > 1)
    if lengths == LENGTHS:
        assert (mode, str(42 * 3 - repeated), str(repeated)) in TABLE
    envs.close()


@pytest.mark.parametrize("mode", MODES)
def test_what_is_stored_of_a_vector_environment_is_what_it_gave(mode):
    """Rollout and replay keep successors once, by comparison with the next observations."""
    envs = Envs(VECTOR, 3, "native", {"mode": mode}, 0)
    rollout = Rollout(30)
    replay = Replay(90, 8, 0, 1.0, torch.Generator().manual_seed(0))
    rows = []
    for step in range(30):
        rows.append(act(envs, step))
        rollout.add(rows[-1])
        replay.add(rows[-1])
    (batch,) = rollout.batches()
    stored = replay.at(torch.arange(90)).read()
    for found in (batch.next_obs, stored.next_obs.view(30, 3, 2)):
        assert torch.equal(found, torch.stack([row.next_obs for row in rows]))


@pytest.mark.parametrize(
    ("lengths", "gamma"), [((2, 3), 0.99), ((6, 7, 8), 0.99), ((19, 20, 21, 30), 0.9)]
)
def test_what_is_used_twice_moves_the_unit_of_rewards_by_a_tenth_at_most(lengths, gamma):
    """It enters `agent.reward_scale=auto` as a return of one step; a chain would move more."""
    units = []
    for mode in ("NEXT_STEP", "DISABLED"):
        envs = Envs(VECTOR, len(lengths), "native", {"mode": mode, "lengths": lengths}, 0)
        rows = [act(envs, step) for step in range(300)]
        steps = [torch.stack(field).float() for field in list(zip(*rows, strict=True))[2:6]]
        scale = ReturnScale(gamma)
        fields = torch.stack([steps[0], *steps[2:]], -1)  # without the successors
        scale.update(fields, gather=lambda rows: rows, skip=torch.tensor(False))
        units.append(scale.unit.item())
    assert units[0] == pytest.approx(units[1], rel=0.1)


@pytest.mark.parametrize("steps", [0, 5])
@pytest.mark.parametrize("mode", MODES)
def test_a_vector_environment_begins_anew_after_a_stop_and_says_so_once(mode, steps):
    envs = Envs(VECTOR, 3, "native", {"mode": mode}, 0)
    envs.abandon(np.ones(3, dtype=bool))  # reset as often as `again`: their observations are equal
    for step in range(steps):
        act(envs, step)
    again = Envs(VECTOR, 3, "native", {"mode": mode}, 0)
    assert not again.load_state_dict(saved_and_read(envs.state_dict()))
    assert again.obs[:, 1].tolist() == again.lengths.tolist() == [0, 0, 0]
    assert act(again, 0).next_obs[:, 1].tolist() == [1, 1, 1]
    found = evaluator_of(VECTOR, "native", {"mode": mode}, 3, 0).examine()
    assert "nothing that a vector environment has inside can be saved" in found


@pytest.mark.parametrize(("lengths", "abandoned"), [((1, 1), False), ((1, 2), True)])
def test_copies_that_began_anew_wait_for_no_reset(lengths, abandoned):
    """After the step that resets all of them at once, and after a reset while one waits."""
    envs = Envs(VECTOR, 2, "native", {"lengths": lengths}, 0)
    act(envs, 0)
    if abandoned:
        envs.abandon(np.array([True, True]))
    row = act(envs, 1)
    assert row.obs[:, 1].tolist() == [0, 0]
    assert not row.truncated.any()


@pytest.mark.parametrize("mode", MODES)
def test_an_endless_episode_of_one_copy_is_cut_where_that_can_be_done(mode):
    envs = Envs(VECTOR, 2, "native", {"mode": mode}, 0)
    only_first = np.array([True, False])
    if mode == "DISABLED":
        act(envs, 0)
        act(envs, 1)
        envs.abandon(only_first)
        assert envs.obs[:, 1].tolist() == [0, 0]
    else:
        with pytest.raises(EnvironmentFault, match=r"raise eval.max_length, or make it with"):
            envs.abandon(only_first)


def test_the_environments_of_envpool_give_no_false_row(tmp_path, monkeypatch):
    """By the file of the page; CartPole pays 1 at each step, and one action ends it soon."""
    pytest.importorskip("envpool")
    (code,) = re.findall(r"```python\n(\"\"\"pool\.py.*?)```", PAGE, re.S)
    (tmp_path / "pool_of_the_page.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    envs = Envs("pool_of_the_page:Pool-v0", 3, "native", {"task": "CartPole-v1"}, seed=4)
    before, ages, ended, own = envs.obs.clone(), np.zeros(3, int), [], 0
    for _ in range(450):
        row = envs.step(torch.ones(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
        idle = np.zeros(3, bool) if envs.backend.idle is None else envs.backend.idle
        for index in np.flatnonzero(~idle):
            assert torch.equal(row.obs[index], before[index])
            own, ages[index] = own + 1, ages[index] + 1
            if row.terminated[index]:
                ended.append((index, float(ages[index]), ages[index]))
                ages[index] = 0
            else:
                assert torch.equal(row.next_obs[index], envs.obs[index])
        before = envs.obs.clone()
    assert envs.drain() == ended
    assert own == sum(length for *_, length in ended) + ages.sum() > 1000


class Wrong(gymnasium.vector.VectorWrapper):
    """Changes one of the things that a step returns."""

    def __init__(self, env, place, value):
        super().__init__(env)
        self.place, self.value = place, value

    def step(self, action):
        found = list(self.env.step(action))
        found[self.place] = self.value
        return tuple(found)


def wrong(num_envs, place, value):
    return Wrong(vector(num_envs, "SAME_STEP"), place, value)


gymnasium.register("WrongVector-v0", vector_entry_point=wrong)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            0,
            np.zeros((3, 5), np.float32),
            r"observations have shape \(3, 5\), their space \(3, 2\)",
        ),
        (0, np.full((3, 2), np.nan, np.float32), "is not finite"),
        (1, np.zeros(2), r"reward has shape \(2,\), not \(3,\)"),
        (1, np.array([0.0, np.nan, 0.0]), "reward nan is not finite"),
        (2, True, r"terminated has shape \(\), not \(3,\)"),
        (4, {}, "info has no final_obs"),
    ],
)
def test_what_a_vector_environment_does_wrong_is_named(place, value, message):
    name = "tests.envs.test_native:WrongVector-v0"
    envs = Envs(name, 3, "native", {"place": place, "value": value}, 0)
    with pytest.raises(EnvironmentFault, match=message):
        act(envs, 0)


def test_an_id_without_a_vector_form_is_refused():
    with pytest.raises(ConfigError, match="has no vector_entry_point; use sync or async"):
        Envs("Acrobot-v1", 2, "native", {}, 0)


def test_an_id_with_a_vector_form_alone_has_no_single_copies():
    with pytest.raises(
        ConfigError, match=r"has a vector_entry_point and .*; give train.py env.vec"
    ):
        Envs(VECTOR, 2, "sync", {}, 0)


# Pendulum


@pytest.mark.parametrize("count", [10_000, pytest.param(50_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("g", [10.0, 9.81])
def test_pendulum_is_gymnasiums_from_equal_states_and_actions(g, count):
    """So many steps, bit for bit: states, rewards, observations."""
    generator = np.random.default_rng(0)
    single, many = PendulumEnv(g=g), NativePendulum(count, g=g)
    many.reset(0)
    many.angle, many.speed = generator.uniform(-30, 30, count), generator.uniform(-8, 8, count)
    action = generator.uniform(-2.5, 2.5, (count, 1)).astype(np.float32)
    before = np.stack([many.angle, many.speed])
    obs, reward, terminated, truncated = many.step(action)
    assert not terminated.any()
    assert not truncated.any()
    seen, paid, states = [], [], []
    for index in range(count):
        single.state = before[:, index]
        wanted, earned, *_ = single.step(action[index])
        seen.append(wanted)
        paid.append(earned)
        states.append(single.state)
    assert obs.tobytes() == np.stack(seen).tobytes()
    assert reward.tolist() == paid
    assert np.stack([many.angle, many.speed], -1).tobytes() == np.stack(states).tobytes()


@pytest.mark.parametrize("kwargs", [{}, {"g": 5.0, "max_episode_steps": 30}])
def test_native_pendulum_plays_the_same_episodes_as_its_copies_one_by_one(kwargs):
    envs = {mode: Envs("Pendulum-v1", 3, mode, kwargs, seed=4) for mode in ("native", "sync")}
    assert envs["native"].spaces == envs["sync"].spaces
    assert envs["native"].backend.limit == envs["sync"].backend.limit
    for step in range(410):
        if step == 120:
            for one in envs.values():
                one.abandon(np.array([False, True, False]))
        native, sync = (act(one, step) for one in envs.values())
        assert all(torch.equal(*pair) for pair in zip(native, sync, strict=True))
        assert torch.equal(envs["native"].obs, envs["sync"].obs)
    assert envs["native"].drain() == envs["sync"].drain()


@pytest.mark.parametrize("kwargs", [{"mass": 2.0}, {"max_episode_steps": 0}])
def test_arguments_that_pendulum_does_not_take_are_refused(kwargs):
    with pytest.raises(ConfigError, match=f"env.kwargs: Pendulum-v1: .*{next(iter(kwargs))}"):
        Envs("Pendulum-v1", 2, "native", kwargs, 0)
