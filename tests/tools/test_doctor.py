"""The doctor finds what is planted, and nothing in environments that are well."""

import itertools
import re
import shutil
import time
from functools import partial

import gymnasium
import numpy as np
import pytest
import yaml

from configs import files
from configs.schema import EnvConfig
from configs.validate import build
from envs.envs import Envs
from tools import doctor
from tools.doctor import group_name

OUTSIDE = itertools.count()  # what a seed does not reach


class Ill(gymnasium.Env):
    """Well, but for what `has` names."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    open = 0  # copies that no other can stand beside

    def close(self):
        Ill.open -= self.has == "sole"

    def __init__(self, has="", scale=1.0):
        self.has, self.scale = has, scale
        if has.startswith("far"):
            self.observation_space = gymnasium.spaces.Box(-1001, 1001, (3,), np.float32)
        if has == "sole":
            if Ill.open:
                raise OSError("Address already in use")
            Ill.open += 1
        print("made anew")  # as some environments do
        if has == "world":
            import Box2D

            self.world = Box2D.b2World()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.resets = 0, getattr(self, "resets", 0) + 1
        return self.seen(), {}

    def seen(self):
        obs = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        if self.has == "clock":
            obs[0] = next(OUTSIDE) % 1000 / 1000
        if self.has == "hash":
            obs[0] = hash("a text") % 1000 / 1000
        if self.has == "bounds" or (self.has == "start" and self.count == 0):
            obs[1] = 3.0
        if self.has == "still":
            obs[:] = 0.5
        if self.has == "hole" and self.count == 5:
            obs[2] = np.nan
        if self.has == "wide" or (self.has == "later" and self.count):
            return obs.astype(np.float64)
        if self.has == "small":
            return obs / 1000
        if self.has.startswith("far"):
            return obs + np.float32(-1000 if self.has == "far below" else 1000)
        return obs.tolist() if self.has == "list" else obs

    def step(self, action):
        self.count += 1
        if self.has == "slow":
            time.sleep(0.005)
        reward = 0.0 if self.has == "nothing" else self.scale
        reward += self.resets * (self.has == "memory" or (self.has == "late" and self.resets > 12))
        end = self.count == 10 and self.has != "endless"
        terminated = end and self.has in ("both", "limit")
        if self.has == "number":
            return self.seen(), reward, 0, end, {}
        if self.has == "numbers":
            return self.seen(), reward, np.bool_(False), np.int64(end), {}
        return self.seen(), reward, terminated, end and self.has != "limit", {}


gymnasium.register("Ill-v0", entry_point=Ill)
ILL = "tests.tools.test_doctor:Ill-v0"
IN_PLACE = "tests.envs.test_border:Scales-v0"  # changes its action


@pytest.fixture(autouse=True)
def played_here_alone(request, monkeypatch):
    """No second process, and no look at how busy the cores are, but where that is the subject."""
    if "hash" not in request.node.name:
        monkeypatch.setattr(doctor, "elsewhere", lambda *_: None)
    if "slow" not in request.node.name:
        monkeypatch.setattr(doctor, "SLOW", 1.0)


def lines(capsys):
    said = capsys.readouterr()
    assert said.err == ""
    rows = said.out.split("\n\n")[0].splitlines()
    return [line.split(maxsplit=1) for line in rows if not line.startswith(" ")]


@pytest.mark.parametrize(
    "env_id",
    ["Pendulum-v1", "CartPole-v1", "MountainCar-v0", "FrozenLake-v1", ILL, IN_PLACE],
)
def test_what_is_well_is_not_warned_of(env_id, capsys):
    assert doctor.main([f"env.id={env_id}", "steps=400"]) == 0
    found = dict(lines(capsys))
    assert "warning" not in found or found["warning"].startswith(("no episode", "random actions"))
    assert found["seed"] == "the same seed gives the same 400 steps, in another process too"
    if env_id == "FrozenLake-v1":
        assert found["observation"] == "Discrete(16)"
    assert found["resume"].startswith("exact")
    fitting = {*found["agents"].replace("agent=", "").split(" or ")}
    other = "sac" if env_id in ("Pendulum-v1", IN_PLACE) else "sac_discrete"
    assert fitting & {"a2c", "ppo", "sac", "sac_discrete"} == {"a2c", "ppo", other}


ONCE = """
import os
from pathlib import Path

import gymnasium
from gymnasium.envs.classic_control import PendulumEnv


class Once(PendulumEnv):
    def reset(self, **options):
        if "PYTHONHASHSEED" in os.environ and not Path("mended").exists():
            raise RuntimeError("there is one already")
        return super().reset(**options)


gymnasium.register("Once-v0", entry_point=Once, max_episode_steps=50)
"""


def test_what_breaks_in_a_second_process_with_other_hashes_is_mended(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    (tmp_path / "once.py").write_text(ONCE)
    assert doctor.main(["env.id=once:Once-v0", "steps=120"]) == 3
    first, *_, last = capfd.readouterr().err.splitlines()
    assert "there is one already" in first
    assert last.endswith("see the error above, and fix it")
    (tmp_path / "mended").touch()
    assert doctor.main(["env.id=once:Once-v0", "steps=120"]) == 0
    said = capfd.readouterr().out
    assert "the same 120 steps, in another process too" in said
    assert "warning" not in said


@pytest.mark.parametrize(
    ("has", "words"),
    [
        ("clock", "elsewhere from step 1 on"),
        ("hash", "elsewhere in another process from step 1 on"),
        ("bounds", "1 components leave the bounds"),
        ("start", "1 components leave the bounds"),
        ("endless", "no episode ended"),
        ("limit", "all episodes end as terminated after the same number of steps"),
        ("both", "terminated and truncated at once"),
        ("nothing", "received no reward"),
        ("wide", "observations come as float64, their space is of float32"),
        ("later", "observations come as float64, their space is of float32"),
        ("list", "observations come as list, their space is of float32"),
        ("number", "terminated or truncated comes as int, not"),
        ("numbers", "terminated or truncated comes as int64, not"),
        ("still", "observations did not change in 100 steps"),
        ("world", "its Box2D world outlives a reset"),
    ],
)
def test_what_is_planted_is_found(has, words, capsys):
    if has == "world":
        pytest.importorskip("Box2D")
    assert doctor.main([f"env.id={ILL}", f"env.kwargs.has={has}", "steps=100"]) == 0
    warnings = [text for name, text in lines(capsys) if name == "warning"]
    assert len(warnings) == 1
    assert words in warnings[0]


def test_what_is_kept_over_a_reset_is_found(capsys):
    where = "env.id=tests.helpers:Counting-v0"
    assert doctor.main([where, "steps=50"]) == 0
    kept = "it keeps something over reset(seed=...), and each copy has its own"
    assert kept in dict(lines(capsys))["warning"]
    assert doctor.main([where, "steps=50", "env.kwargs.show_episode=false"]) == 0
    assert dict(lines(capsys))["resume"].startswith("exact")


def test_what_is_kept_and_not_seen_is_found(capsys):
    """Its observations come back; its rewards, which count the resets, do not."""
    assert doctor.main([f"env.id={ILL}", "env.kwargs.has=memory", "steps=90"]) == 0
    found = dict(lines(capsys))
    assert "it keeps something over reset(seed=...), and each copy has its own" in found["warning"]
    assert "resume" not in found


def test_what_is_kept_from_a_later_episode_on_is_found(capsys):
    """By taking up alone: twenty steps from two resets repeat."""
    assert doctor.main([f"env.id={ILL}", "env.kwargs.has=late", "steps=400"]) == 0
    assert dict(lines(capsys))["warning"].startswith(
        "a copy that repeats an episode from its seed reaches another"
    )


def test_statistics_inside_an_environment_are_named_with_what_to_use(capsys):
    assert doctor.main(["env.id=tests.runtime.test_exactness:NormalWalk-v0", "steps=90"]) == 0
    found = dict(lines(capsys))["warning"]
    assert "the statistics of NormalizeObservation continue over resets, and each copy has" in found
    assert "use agent.normalise_obs=true in place of NormalizeObservation" in found


@pytest.mark.parametrize(("fails", "exact"), [(0, True), (1, False), (2, False)])
def test_a_run_is_taken_up_twice_within_an_episode(fails, exact, monkeypatch):
    taken, real = [], Envs.load_state_dict

    def load(self, state):
        taken.append((state["backend"]["episodes"][0], state["backend"]["ages"][0]))
        return real(self, state) and len(taken) != fails

    monkeypatch.setattr(Envs, "load_state_dict", load)
    made = partial(Envs, "Pendulum-v1", 1, "sync", {}, 0)
    assert doctor.resumes(made, 250, seed=0) is exact
    assert taken == [(1, 50), (1, 55)]


def test_where_there_can_be_one_copy_that_is_told_and_examined(monkeypatch, capsys):
    monkeypatch.setattr(Ill, "open", 0)
    assert doctor.main([f"env.id={ILL}", "env.kwargs.has=sole", "steps=50"]) == 0
    found = dict(lines(capsys))
    assert "no second copy beside the first, " in found["warning"]
    assert "train with env.num_envs=1 eval.episodes=0" in found["warning"]
    assert found["advice"] == "env.num_envs=1 eval.episodes=0"
    assert found["resume"].startswith("exact")
    assert Ill.open == 0


def test_a_second_copy_that_fails_as_if_for_its_arguments_is_told_as_that(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "elsewhere", lambda *_: None)
    sole = ["env.id=tests.runtime.test_evaluation:Sole-v0", "env.kwargs.fails=value"]
    assert doctor.main([*sole, "steps=50"]) == 0
    told = [text for name, text in lines(capsys) if name == "warning"]
    assert any(text.startswith("there can be no second copy beside the first, ") for text in told)


@pytest.mark.parametrize(
    ("env_id", "words"),
    [
        (ILL, "200 in 2,000 steps, 10 steps long; 0"),
        ("CartPole-v1", r"\d+ in .*, \d+ to \d+ steps"),
    ],
)
def test_the_lengths_of_episodes_are_told(env_id, words, capsys):
    envs = Envs(env_id, 1, "sync", {}, seed=0)
    doctor.ends(doctor.play(envs, 2000, seed=0), envs.backend.limit)
    envs.close()
    assert re.match(words, dict(lines(capsys))["episodes"])


def test_a_limit_above_the_steps_played_is_named(capsys):
    more = ["env.kwargs.has=endless", "env.kwargs.max_episode_steps=60"]
    assert doctor.main([f"env.id={ILL}", *more, "steps=50"]) == 0
    found = dict(lines(capsys))["warning"]
    assert found.startswith("no episode ended; its limit is 60 steps: examine it with steps=N")
    assert doctor.main([f"env.id={ILL}", *more, "steps=70"]) == 0
    assert "warning" not in dict(lines(capsys))


def test_large_rewards_get_a_scale(capsys):
    assert doctor.main([f"env.id={ILL}", "env.kwargs.scale=100.0", "steps=100"]) == 0
    # 100 for 10 steps: discounted, 100 (1 - 0.99^10) / 0.01 = 956.2.
    found = dict(lines(capsys))
    assert "returns up to 956.2" in found["reward"]
    assert "agent.reward_scale=auto" in found["advice"]


@pytest.mark.parametrize(
    ("scale", "advice"),
    [
        ("0.001", "agent.reward_scale=auto"),  # 0.009562
        ("1e-9", "agent.reward_scale=auto"),
        ("-0.001", "agent.reward_scale=auto"),
        ("0.02", None),
        ("5.0", None),
    ],
)
def test_small_rewards_get_a_scale(scale, advice, capsys):
    assert doctor.main([f"env.id={ILL}", f"env.kwargs.scale={scale}", "steps=100"]) == 0
    assert dict(lines(capsys)).get("advice") == advice


@pytest.mark.parametrize(
    ("has", "advised"), [("small", True), ("far", True), ("far below", True), ("", False)]
)
def test_numbers_far_from_one_are_to_be_normalised(has, advised, capsys):
    assert doctor.main([f"env.id={ILL}", f"env.kwargs.has={has}", "steps=100"]) == 0
    assert ("agent.normalise_obs=true" in dict(lines(capsys)).get("advice", "")) == advised


def test_steps_that_sleep_are_told_as_slow(capsys):
    assert doctor.main([f"env.id={ILL}", "env.kwargs.has=slow", "steps=50"]) == 0
    found = dict(lines(capsys))
    assert "env.vectorization=async env.num_envs=8" in found["advice"]
    rate, each = re.match(r"([\d,]+) steps/s, ([\d,]+) µs", found["speed"]).groups()
    assert int(rate) <= 200  # a sleep is at least as long as asked
    assert int(each.replace(",", "")) >= 5000


def test_it_ends_with_a_file_that_can_be_saved(capsys):
    assert doctor.main([f"env.id={ILL}", "env.kwargs.has=both", "steps=50"]) == 0
    head, text = capsys.readouterr().out.split("\n\n")[1:]
    assert head == "configs/env/ill_v0.yaml, for env=ill_v0:"
    config = build(EnvConfig, {"wrappers": [], **yaml.safe_load(text)})
    assert (config.id, config.kwargs) == (ILL, {"has": "both"})


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([f"env.id={ILL}", "env.kwargs.has=hole"], 3, "is not finite in environment 0 at step"),
        (["env.id=Nope-v0"], 2, "env.id"),
        ([f"env.id={ILL}", "env.kwargs.nope=1"], 2, "env.kwargs"),
        ([f"env.id={ILL}", "steps=x"], 2, "steps"),
        ([f"env.id={ILL}", "agent=sac"], 2, "agent"),
        ([f"env.id={ILL}", "step=5"], 2, "step: is not a key; did you mean steps?"),
        ([f"env.id={ILL}", "env=cartpole"], 2, "and env=cartpole is given; give one Gymnasium id"),
        (["env=pendolum"], 2, "did you mean pendulum?"),
        (["steps=3"], 2, "env.id"),
    ],
)
def test_what_cannot_be_examined_is_one_line(arguments, code, words, capsys):
    assert doctor.main(arguments) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["env.id=Pendulum-v1"],
            "it has a file already: env=pendulum, with settings of its own for "
            "agent=a2c or agent=ppo or agent=sac\n",
        ),
        (["env=pendulum"], "it has a file already: env=pendulum, with settings of its own for "),
        (["env.id=Pendulum-v1", "env.kwargs.g=9.8"], "configs/env/pendulum_v1.yaml, for env="),
    ],
)
def test_what_has_a_file_needs_no_other(arguments, said, capsys):
    assert doctor.main([*arguments, "steps=250"]) == 0
    assert said in capsys.readouterr().out.split("\n\n")[1]


def test_files_that_are_no_environments_are_passed_over_and_names_that_are_taken(
    tmp_path, monkeypatch
):
    copy = tmp_path / "configs"
    shutil.copytree(files.DIRECTORY, copy)
    for name, text in (("a", ""), ("b", "id: ["), ("c", "- id"), ("d", "num_envs: 1\n"),
                       ("pendulum_v1", "id: Pendulum-v1\nkwargs: {g: 1.0}\n")):  # fmt: skip
        (copy / "env" / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(files, "DIRECTORY", copy)
    assert group_name("Pendulum-v1", {}) == "pendulum"
    assert group_name("Pendulum-v1", {"g": 1.0}) == "pendulum_v1"
    assert group_name("Pendulum-v1", {"g": 2.0}) == "pendulum_v1_2"
    assert group_name("mine:New-v0", {}) == "new_v0"


def test_what_is_tuned_needs_no_advice(capsys):
    for env, advised in ((["env=pendulum"], False), (["env=pendulum", "env.kwargs.g=9.8"], True)):
        assert doctor.main([*env, "steps=250"]) == 0
        assert ("agent.reward_scale" in capsys.readouterr().out) == advised


def test_images_among_other_numbers_are_read_before_they_are_judged(capsys):
    envs = Envs("tests.helpers:Picture-v0", 1, "sync", {"discrete": True, "among": True}, seed=0)
    assert doctor.observations(envs, doctor.play(envs, 50, seed=0)) == []
    (line,) = capsys.readouterr().out.splitlines()
    least, most = re.search(r"values from (\S+) to (\S+), dev", line).groups()
    assert -1.0 < float(least) < -0.9
    assert most == "255"
