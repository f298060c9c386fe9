"""Each message ends with what to do: done as it says, the next run goes on.

Those of configs/ are followed in tests/configs/test_remedies.py, of spaces in
tests/envs/test_border.py and tests/test_meeting.py, of paths in tests/test_paths.py, of memory
in tests/runtime/test_memory.py.
"""

import contextlib
import dataclasses
import re
import shlex
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import evaluate
import train
from common.errors import LogpiError
from configs.compose import train_config
from configs.files import read_run
from envs.envs import Envs
from runtime import session
from runtime.accelerate import acceleration
from runtime.build import make_parts
from runtime.deploy import exported
from runtime.evaluation import Evaluator
from runtime.launch.door import enter
from runtime.launch.ranks import Ranks, require_devices
from runtime.launch.signals import Stop
from runtime.saver import Saver, require_as_long
from runtime.schedule import TemperatureWatch
from storage import checkpoint, provenance, rundir
from tests.helpers import evaluator_of

SAC = ["agent=sac", "agent.buffer_size=2000"]
DISCRETE = ["agent=sac_discrete", "agent.buffer_size=2000"]
TINY = ["agent.hidden=[8]", "accelerate=none", "eval.episodes=1", "total_steps=9000"]


class Mine(gymnasium.Env):
    """An environment of a user's, with mistakes that are mended by setting its attributes."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    action_space = spaces.Box(-1.0, 1.0, (1,))
    there: Any = ()  # copies, if only one is possible
    alone = False
    lazy = False  # whether it needs a library
    asleep = 0.0  # seconds of a reset
    own: Any = ""  # what it keeps from one episode to the next
    episodes = 0
    reward = 1.0
    picture: Any = np.zeros((16, 16, 3), np.uint8)

    def __init__(self, size=2, scale=1.0, length=5, render_mode=None):
        if self.alone and self.there:
            raise OSError("Address already in use")
        assert size < 9, "at most 8"
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.render_mode, self.scale, self.length = render_mode, scale, length
        self.drawn = np.random.random() if self.own == "made" else 0.0  # noqa: NPY002
        if self.alone:
            self.there.append(self)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.lazy:
            raise ModuleNotFoundError("No module named 'physics'")
        time.sleep(self.asleep)
        self.count, self.episodes = 0, self.episodes + 1
        return self.obs(), {}

    def obs(self):
        chance = np.random.random() if self.own == "global" else 0.0  # noqa: NPY002
        chance += self.drawn + self.episodes * (self.own == "episodes")
        shape = self.observation_space.shape
        return (self.np_random.normal(size=shape) * self.scale + chance).astype(np.float32)

    def step(self, action):
        self.count += 1
        return self.obs(), self.reward, False, self.count >= self.length, {}

    def render(self):
        return self.picture() if callable(self.picture) else self.picture

    def close(self):
        if self in self.there:
            self.there.remove(self)


class Plain(Mine):
    """Without a `render_mode`."""

    def __init__(self):
        super().__init__()


class Needs(Mine):
    def __init__(self, size):
        super().__init__(size)


for made in (Mine, Plain, Needs):
    gymnasium.register(f"{made.__name__}-v0", entry_point=made)
gymnasium.register("Unmade-v0", entry_point="somewhere.physics:Lost")


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Mine, "there", [])


def begun(arguments: list[str], size: int = 1) -> None:
    """All that a run does before its first step."""
    config = train_config([*TINY, *arguments])
    make_parts(config, Ranks(0, size, 0, 1)).close()


def refused(work: Any, *arguments: Any) -> str:
    with pytest.raises(LogpiError) as raised:
        work(*arguments)
    return str(raised.value)


def cont(*arguments: str) -> list[str]:
    return ["env.id=Pendulum-v1", *arguments]


def disc(*arguments: str) -> list[str]:
    return ["env.id=CartPole-v1", "env.vectorization=sync", *arguments]


PICTURE = "env.id=tests.helpers:Picture-v0"
MULTI = ["env.id=tests.helpers:Counting-v0", "env.kwargs.choices=[2,3]"]
SEEN = [PICTURE, "env.kwargs.discrete=true"]
REFUSED: dict[str, tuple[list[str], str, list[str]]] = {
    # name: (what provokes it, the remedy as written, what is given then, {} the number in it)
    "agent": (disc(*SAC), "or agent=sac_discrete", disc("agent=a2c")),
    "agent, second": (disc(*SAC), "agent=ppo", disc("agent=ppo")),
    "agent, third": (disc(*SAC), "agent=sac_discrete", disc(*DISCRETE)),
    "continuous": (cont(*DISCRETE), "or agent=sac", cont(*SAC)),
    "multi": ([*MULTI, *SAC], "use agent=a2c or agent=ppo", [*MULTI, "agent=ppo"]),
    "multi, discrete": ([*MULTI, *DISCRETE], "use agent=a2c or agent=ppo", MULTI),
    "policy": (
        *(cont("agent.policy=categorical"), "use gaussian or tanh_gaussian or full_gaussian or"),
        cont("agent.policy=full_gaussian"),
    ),
    "policy of sac": (
        *(cont(*SAC, "agent.policy=gaussian"), "use tanh_gaussian or tanh_full_gaussian"),
        cont(*SAC, "agent.policy=tanh_full_gaussian"),
    ),
    "policy of choices": (
        *(disc("agent.policy=gaussian"), "use categorical"),
        disc("agent.policy=categorical"),
    ),
    "policy of several choices": (
        *([*MULTI, "agent.policy=categorical"], "use multi_categorical"),
        [*MULTI, "agent.policy=multi_categorical"],
    ),
    "bytes": (
        *([*SEEN, "agent.normalise_obs=true"], "normalise_obs: bytes of an image are scaled to"),
        [*SEEN, "agent.normalise_obs=false"],
    ),
    "length 1": (
        *([*SEEN, "agent.unit_obs=true"], "images to length 1; set it to false"),
        [*SEEN, "agent.unit_obs=false"],
    ),
    "entropy": (
        *(cont(*SAC, "agent.target_entropy=1"), "reaches at most ([-.e0-9]+); give less than that"),
        cont(*SAC, "agent.target_entropy={}"),
    ),
    "entropy of narrow bounds": (
        cont(*SAC, "agent.log_std_max=-2.5", "agent.log_std_init=-4"),
        "reaches at most ([-.e0-9]+); give less than that",
        cont(*SAC, "agent.log_std_max=-2.5", "agent.log_std_init=-4", "agent.target_entropy={}"),
    ),
    "entropy of choices": (
        *(disc(*DISCRETE, "agent.target_entropy=1"), "log 2 = 0.6931; give at most ([.0-9]+) and "),
        disc(*DISCRETE, "agent.target_entropy={}"),
    ),
    "entropy below 0": (
        disc(*DISCRETE, "agent.target_entropy=-1"),
        "log 2 = 0.6931; give at most ([.0-9]+) and not less than 0$",
        disc(*DISCRETE, "agent.target_entropy={}"),
    ),
    "gpu": (cont("device=cuda:7"), "device: cuda:7 is not available; use device=cpu", cont()),
    "no device": (cont("device=gpu"), "cpu, cuda, cuda:N; give one", cont("device=cpu")),
    "argument": (
        ["env.id=Mine-v0", "env.kwargs.size=9"],
        "AssertionError: at most 8.*; correct the arguments, or fix the environment",
        ["env.id=Mine-v0", "env.kwargs.size=8"],
    ),
    "argument of Gymnasium's": (
        ["env.id=FrozenLake-v1", "env.kwargs.map_name=9x9"],
        "env.kwargs: FrozenLake-v1: KeyError: '9x9'; correct the arguments",
        ["env.id=FrozenLake-v1", "env.kwargs.map_name=8x8"],
    ),
    "argument without a name": (
        ["env.id=Mine-v0", "env.kwargs.sized=3"],
        "unexpected keyword argument 'sized'.*; correct the arguments",
        ["env.id=Mine-v0", "env.kwargs.size=3"],
    ),
    "argument that is missing": (
        *(["env.id=Needs-v0"], "'size'.*; give what it needs, env.kwargs.NAME=VALUE, or fix"),
        ["env.id=Needs-v0", "env.kwargs.size=3"],
    ),
    "version": (["env.id=CartPole-v7"], "`v1` .*; correct the id, or name the", disc()),
    "misspelt": (
        ["env.id=CartPol-v1"],
        "exist; correct the id, perhaps to CartPole-v1, or",
        disc(),
    ),
    "registered by a package": (
        *(["env.id=ALE/Pong-v5"], "nothing registers ALE/; install .*, and give ale_py:ALE/Pong"),
        disc(),
    ),
    "registered elsewhere": (
        *(["env.id=Elsewhere-v0"], "name the module that registers it, MODULE:Elsewhere-v0"),
        ["env.id=elsewhere:Elsewhere-v0"],
    ),
    "registered nowhere": (
        *(["env.id=elsewhere:Other-v0"], "correct the id, or name the module that registers it"),
        ["env.id=elsewhere:Elsewhere-v0"],
    ),
    "file": (
        ["env.id=elsewhere.py:Elsewhere-v0"],
        r"correct the id \(MODULE:NAME, no folder, no .py\), install that module, or put it beside",
        ["env.id=elsewhere:Elsewhere-v0"],
    ),
    "path": (
        *(
            ["env.id=./some/elsewhere.py:Elsewhere-v0"],
            "correct the id .MODULE:NAME, no folder, no .py",
        ),
        ["env.id=elsewhere:Elsewhere-v0"],
    ),
    "no package": (
        *(["env.id=elsewhere.more:Elsewhere-v0"], "'elsewhere' is not a package; correct the id"),
        ["env.id=elsewhere:Elsewhere-v0"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_done_as_the_message_says_can_begin(name, tmp_path, monkeypatch, capsys):
    (tmp_path / "elsewhere.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Elsewhere-v0', 'gymnasium.envs.classic_control:PendulumEnv')\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "elsewhere", raising=False)
    monkeypatch.delitem(gymnasium.registry, "Elsewhere-v0", raising=False)
    provoked, remedy, followed = REFUSED[name]
    found = re.search(remedy, refused(begun, provoked))
    assert found, refused(begun, provoked)
    begun([argument.format(*found.groups()) for argument in followed])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("provoked", "remedy", "followed"),
    [
        (disc(*DISCRETE, "agent.target_entropy=0.69"), "give at most ([.0-9]+)$",
         "agent.target_entropy={}"),
        (cont(*SAC, "agent.atoms=51", "agent.alpha=1"), "agent.alpha: 1 .*; give at most ([.0-9]+)",
         "agent.alpha={}"),
        (cont(*SAC, "agent.atoms=51", "agent.gamma=0.9995"), "give at most ([.0-9]+)$",
         "agent.alpha_init={}"),
        (cont(*SAC, "agent.atoms=51", "agent.gamma=1"), "; lower agent.gamma, which is 1",
         "agent.gamma=0.9"),
    ],
)  # fmt: skip
def test_what_is_advised_is_not_warned_of_in_turn(provoked, remedy, followed, capsys):
    small = ["agent.alpha_init=0.4"] if "gamma" in followed else []
    begun([*provoked, *small])
    (line,) = capsys.readouterr().err.splitlines()
    found = re.search(remedy, line)
    assert found, line
    changed = followed.partition("=")[0]
    kept = [argument for argument in [*provoked, *small] if not argument.startswith(f"{changed}=")]
    begun([*kept, followed.format(*found.groups())])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "of",
    [
        ["agent=a2c", "agent.n_steps=7", "env.num_envs=3"],
        ["agent=ppo", "agent.batch_size=6", "agent.n_steps=6", "env.num_envs=3"],
        [*SAC, "agent.learning_starts=100", "agent.batch_size=16"],
        [*SAC, "agent.learning_starts=101", "agent.batch_size=16", "agent.updates_per_step=0.07"],
        [
            *SAC,
            "agent.learning_starts=9",
            "agent.batch_size=8",
            f"agent.updates_per_step={1 / 161}",
        ],
    ],
)
def test_so_many_steps_as_are_advised_make_an_update(of, size, monkeypatch):
    monkeypatch.setattr("runtime.build.make_buffer", lambda *_: pytest.fail("it has an update"))
    few = cont(*of, f"total_steps={size}")
    said = refused(begun, few, size)
    total = int(re.search(r"raise it to (\d+) or more", said)[1])
    with pytest.raises(pytest.fail.Exception, match="it has an update"):
        begun([*few, f"total_steps={total}"], size)
    assert "or more" in refused(begun, [*few, f"total_steps={total - size}"], size)  # one each


def test_a_library_of_the_environment_s_is_installed(tmp_path, monkeypatch):
    said = refused(begun, ["env.id=tests.test_remedies:Unmade-v0"])
    assert said.endswith("install that module, or put it beside train.py or on PYTHONPATH")
    (tmp_path / "somewhere").mkdir()
    (tmp_path / "somewhere" / "physics.py").write_text("from tests.test_remedies import Mine\n"
                                                       "Lost = Mine\n")  # fmt: skip
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    begun(["env.id=tests.test_remedies:Unmade-v0"])
    for name in ("somewhere", "somewhere.physics"):
        monkeypatch.delitem(sys.modules, name)


def test_a_module_that_is_not_there_is_put_where_the_message_says(tmp_path, monkeypatch):
    said = refused(begun, ["env.id=nowhere_yet:Mine-v0"])
    assert said.endswith("install that module, or put it beside train.py or on PYTHONPATH")
    (tmp_path / "nowhere_yet.py").write_text("import tests.test_remedies")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    begun(["env.id=nowhere_yet:Mine-v0"])
    monkeypatch.delitem(sys.modules, "nowhere_yet")


def test_a_library_that_is_met_late_is_installed(monkeypatch):
    monkeypatch.setattr(Mine, "lazy", True)
    said = refused(begun, ["env.id=Mine-v0"])
    assert said.endswith("No module named 'physics' in environment 0 at step 0; install that lib"
                         "rary")  # fmt: skip
    monkeypatch.setattr(Mine, "lazy", False)
    begun(["env.id=Mine-v0"])


@pytest.mark.parametrize(
    ("error", "extra", "library"),
    [("pip install `gymnasium[box2d]`", "box2d", "gymnasium[box2d]"),
     ("MuJoCo is not installed", "mujoco", "gymnasium[mujoco]")],
)  # fmt: skip
def test_what_is_to_be_installed_is_an_extra_of_this_project(error, extra, library, monkeypatch):
    def absent(*_, **__):
        raise gymnasium.error.DependencyNotInstalled(error)

    monkeypatch.setattr("gymnasium.make", absent)
    one_by_one = cont("env.vectorization=sync")
    assert refused(begun, one_by_one).endswith(f'; pip install ".[{extra}]"')
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    line = re.search(rf"^{extra} = (.*)$", project, re.M)
    assert line, project
    assert library in line[1]


@pytest.mark.parametrize(
    ("reward", "words"),
    [(1e39, "reward 1e+39 is too large for float32"), (np.inf, "reward inf is not finite")],
)
def test_a_reward_is_named_for_what_it_is(reward, words, monkeypatch):
    """And one that was scaled down, as that of the environment is to be, is taken."""
    for paid, good in ((reward, False), (1e37, True)):
        monkeypatch.setattr(Mine, "reward", paid)
        envs = Envs("Mine-v0", 1, "sync", {}, 0)
        step = partial(envs.step, torch.zeros(1, 1), torch.zeros(1, 1))
        assert good or words in refused(step)
        assert not good or step().reward.item() == pytest.approx(1e37)
        envs.close()


def test_one_copy_is_had_as_the_message_says(monkeypatch):
    monkeypatch.setattr(Mine, "alone", True)
    one = ["env.id=Mine-v0", "env.num_envs=2"]
    said = refused(begun, one)
    assert "; only one is possible: give env.num_envs=1, and eval.episodes=0 where" in said
    said = refused(begun, [*one, "env.num_envs=1"])
    assert said.endswith("give eval.episodes=0 where there can be no other")
    begun([*one, "env.num_envs=1", "eval.episodes=0"])


SLOW = ["env.id=Mine-v0", "agent=sac", "env.vectorization=async", "env.timeout=0.1"]


def test_an_evaluation_that_takes_long_has_the_time_that_it_is_given(monkeypatch):
    config = dataclasses.replace(train_config(SLOW))
    evaluator = Evaluator(config.env, 1, 0)
    monkeypatch.setattr(Mine, "asleep", 0.3)
    agent = SimpleNamespace(
        device=torch.device("cpu"), act=lambda obs, *_: (torch.zeros(len(obs), 1),) * 2
    )
    said = refused(evaluator, agent, 0)
    assert "0.1 s in an evaluation at step 0 of training; raise env.timeout above that, for" in said
    evaluator.deadline = train_config([*SLOW, "env.timeout=60"]).env.timeout
    assert evaluator(agent, 0).lengths == [5]
    evaluator.close()


@pytest.mark.skipif(sys.platform == "win32", reason="forkserver")
def test_a_worker_that_takes_long_has_the_time_that_it_is_given():
    where = partial(Envs, "tests.test_remedies:Sleepy-v0", 1, "async", {}, 0)
    said = refused(where, 0.2)
    assert "has not answered for 0.2 s, at its step 0; raise env.timeout above that, or" in said
    where(60.0).close()


class Sleepy(Mine):
    asleep = 1.0


gymnasium.register("Sleepy-v0", entry_point=Sleepy)


def test_an_update_that_cannot_be_compiled_is_not(monkeypatch):
    def fails(*_):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(acceleration.Compiled, "__call__", fails)
    monkeypatch.setattr("configs.automatic.compiler", lambda: "g++")
    provoked = cont("accelerate=compile")
    assert "failed, no compiler; use accelerate=none, debug=true shows" in refused(begun, provoked)
    begun(cont("accelerate=none"))


DOORS = {"train": train.run, "evaluate": evaluate.run}


@pytest.fixture
def door(capsys):
    def through(name: str, *arguments: str) -> str:
        """What a command leaves on stderr; ends in the exit code where it fails."""
        code = enter(name, DOORS[name], list(arguments))
        said = capsys.readouterr().err
        assert bool(code) == ("error: " in said or "interrupted: " in said)
        return said

    return through


RUN = ["env.id=Mine-v0", "env.num_envs=1", "agent.n_steps=4", "agent.lr_schedule=constant", *TINY,
       "total_steps=8"]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "run"
    assert enter("train", train.run, [*RUN, f"run_dir={path}"]) == 0
    return path


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    return "run"


def test_a_run_that_is_finished_gets_more_steps(run, door, capsys):
    again = [*RUN, "run_dir=run", "resume=auto"]
    assert enter("train", train.run, again) == 0
    told, _, command = capsys.readouterr().out.partition(": ")
    assert told == "run run is finished; for more steps"
    assert door("train", *shlex.split(command)[2:]) == ""
    assert rundir.read_result(Path(run))["steps"] == 16


@pytest.mark.parametrize(
    ("keys", "last", "why", "others"),
    [
        (["eval.stop_at=0"], 4, "eval.stop_at=0 was reached", "eval.stop_at=null"),
        (["eval.stop_at=0", "eval.stop_after=2"], 8, "2 times in a row", "eval.stop_after=9"),
        (["eval.patience=1"], 8, "no new best return in eval.patience=1", "eval.patience=9"),
    ],
)
def test_a_run_that_ended_early_goes_on_as_it_says(keys, last, why, others, door, capsys):
    early = [*RUN, "total_steps=16", "eval.every=4", "run_dir=early"]
    assert enter("train", train.run, [*early, *keys]) == 0
    printed = capsys.readouterr().out.partition("; to continue:\n  ")[2].splitlines()[0]
    result = rundir.read_result(Path("early"))
    assert result["steps"] == last
    assert why in result["stopped"]
    shutil.copytree("early", "other")
    door("train", "resume=other", others)
    assert rundir.read_result(Path("other"))["steps"] == 16
    capsys.readouterr()
    for more in ([], ["total_steps=20"]):
        assert enter("train", train.run, ["resume=early", *more]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"run early is finished; {result['stopped']}; to continue: python ")
    assert rundir.read_result(Path("early")) == result
    for command, length in ((printed, 16), (said.partition(": ")[2], 20)):
        door("train", *shlex.split(command)[2:])
        assert rundir.read_result(Path("early"))["steps"] == length


def test_a_goal_that_is_reached_at_the_last_step_ends_nothing_early(capsys):
    given = [*RUN, "total_steps=4", "eval.every=4", "run_dir=last", "eval.stop_at=0"]
    assert enter("train", train.run, given) == 0
    assert "stopped early" not in capsys.readouterr().out
    assert rundir.read_result(Path("last"))["steps"] == 4


def test_a_finished_run_whose_rate_has_fallen_to_0_is_trained_longer_anew(door, capsys):
    linear = [*RUN, "agent.lr_schedule=linear", "resume=auto"]
    assert door("train", *linear, "run_dir=first") == ""
    assert enter("train", train.run, [*linear, "run_dir=first"]) == 0
    assert (
        "; its learning rate has fallen to 0 (agent.lr_schedule=linear); for more steps begin"
        in capsys.readouterr().out
    )
    assert door("train", *linear, "run_dir=second", "total_steps=12") == ""


def test_a_directory_that_is_taken_is_gone_on_with(run, door):
    said = door("train", *RUN, "run_dir=run")
    assert said.endswith("is written to run-2; resume=auto continues the one that is there\n")
    Path("folder").mkdir()
    assert door("train", *RUN, "run_dir=folder").endswith("is written to folder-2\n")
    assert door("train", *RUN, "run_dir=run", "resume=auto", "total_steps=12") == ""
    assert rundir.read_result(Path(run))["steps"] == 12


def test_a_run_without_a_checkpoint_begins_by_the_command_that_is_printed(door, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", *RUN, "run_dir=first try"])
    assert door("train", *RUN, "run_dir=first try") == ""
    path = Path("first try").rename("a run")
    shutil.rmtree(path / "checkpoints")
    (path / "result.json").unlink()
    for name, key in (("train", "resume=a run"), ("evaluate", "run=a run")):
        _, found, command = door(name, key).partition("has no checkpoint yet; begin it: ")
        assert found
    assert door("train", *shlex.split(command)[2:]) == ""
    assert rundir.read_result(path)["steps"] == 8
    shutil.rmtree(path / "checkpoints")
    (path / "commands.txt").unlink()
    assert door("evaluate", "run=a run").endswith(
        "; give its command again, with 'run_dir=\"a run\"' resume=auto\n"
    )


def test_a_run_that_is_stopped_before_its_first_checkpoint_is_saved(door, monkeypatch):
    def interrupted(*given):
        stop.note(signal.SIGINT, None)
        return announce(*given)

    stop, announce = Stop(), session.announce
    with monkeypatch.context() as patched:
        patched.setattr(session, "announce", interrupted)
        patched.setitem(DOORS, "train", partial(train.run, stop=stop))
        said = door("train", *RUN, "run_dir=run")
    assert said.startswith("error: interrupted: by SIGINT, the run is saved; continue with python")
    assert door("train", *shlex.split(said)[-1:]) == ""
    assert rundir.read_result(Path("run"))["steps"] == 8


@pytest.mark.parametrize("which", ["latest", "best"])
def test_a_checkpoint_that_is_not_there_is_another(which, run, door):
    one = ["run=run", "episodes=1"]
    assert door("evaluate", *one, "checkpoint=step-000000000003").endswith("use latest or best\n")
    assert door("evaluate", *one, f"checkpoint={which}") == ""


def test_a_longer_timeout_is_taken_by_every_door(run, door):
    assert door("train", "resume=run", "env.timeout=90", "total_steps=12") == ""
    assert read_run(Path(run)).env.timeout == 90
    file = Path("run/config.yaml")
    file.write_text(file.read_text().replace("timeout: 90", "timeout: 99"))
    assert door("evaluate", "run=run", "episodes=1") == ""
    assert door("train", *RUN, "run_dir=run", "resume=auto", "env.timeout=95",
                "total_steps=16") == ""  # fmt: skip


def test_an_episode_that_is_cut_is_cut_later(run, door):
    short = ["env.kwargs.length=9", "run_dir=other"]
    cut = "eval.max_length=N (train.py) or max_length=N (evaluate.py) cuts later, or sooner\n"
    assert door("train", *RUN, *short, "eval.max_length=7").endswith(cut)
    assert door("evaluate", "run=other", "episodes=1").endswith(cut)
    assert door("evaluate", "run=other", "episodes=1", "max_length=9") == ""
    assert door("train", "resume=other", "eval.max_length=9", "total_steps=12") == ""


def test_a_format_of_another_revision_is_read_by_that(run, monkeypatch):
    monkeypatch.setattr(provenance, "revision", lambda: "b" * 40)
    monkeypatch.setattr(provenance, "made_by", lambda path: "a" * 40)
    with monkeypatch.context() as later:
        later.setattr("storage.checkpoint.FORMAT", 3)
        said = refused(checkpoint.load_newest, Path(run))
    assert "its format is 2, and 3 is read here" in said
    assert said.endswith("; git checkout aaaaaaaaaaaa reads it")
    checkpoint.load_newest(Path(run))  # as it did


def test_as_many_processes_go_on_as_made_a_run():
    for were, command in ((1, "python train.py"),
                          (4, "torchrun --standalone --nproc-per-node=4 train.py, or as"),
                          ):  # fmt: skip
        said = refused(Saver.require_ranks, SimpleNamespace(ranks=Ranks(0, 2, 0, 2)), were)
        assert f"; start {command}" in said
        Saver.require_ranks(SimpleNamespace(ranks=Ranks(0, were)), were)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "count", "gpus", "nccl", "remedy", "followed"),
    [
        ("cuda", 2, 2, False, "use device=cpu", ("cpu", 2)),
        ("cuda:1", 2, 2, True, "use device=cuda, which gives each its own", ("cuda", 2)),
        ("cuda", 4, 2, True, "this machine has 2; start as many, or", ("cuda", 2)),
        ("cuda", 4, 2, True, "or use device=cpu", ("cpu", 4)),
    ],
)
def test_processes_have_a_device_each(device, count, gpus, nccl, remedy, followed, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: nccl)
    assert remedy in refused(require_devices, device, count)
    require_devices(*followed)


def test_a_schedule_is_that_of_the_longer_run():
    linear = cont("agent.lr_schedule=linear")
    first, longer = (train_config([*linear, f"total_steps={n}"]) for n in (10_000, 20_000))
    (warning,) = require_as_long(dataclasses.asdict(first), longer)
    assert warning.endswith("; train longer from the start instead")
    assert require_as_long(dataclasses.asdict(longer), longer) == []


def test_a_target_that_is_lowered_is_reached(capsys):
    first = {"policy/alpha": 0.1, "policy/target_entropy": -1.0, "policy/entropy": -2.0}
    for target, words in ((-1.0, "lower agent.target_entropy\n"), (-3.0, "")):
        watch = TemperatureWatch()
        watch.look(first | {"policy/target_entropy": target})
        watch.look(first | {"policy/target_entropy": target, "policy/alpha": 99.0})
        assert capsys.readouterr().err.endswith(words)
        assert watch.warned == bool(words)


OFF = [*SAC, "agent.learning_starts=20", "agent.batch_size=16", *TINY, "total_steps=24"]


@pytest.mark.parametrize(
    ("provoked", "remedy", "followed"),
    [
        (["env.kwargs.scale=1e20"], "start again with agent.normalise_obs=true",
         "agent.normalise_obs=true"),
        (["agent.lr=10", "agent.hidden=[32,32,32]", "agent.updates_per_step=10"],
         "start again with a lower agent.lr than 10",
         "agent.lr=1e-3"),
    ],
)  # fmt: skip
def test_what_diverged_does_not_again(provoked, remedy, followed, door):
    args = ["env.id=Mine-v0", *OFF, *provoked, "run_dir=diverged"]
    said = door("train", *args)
    assert "error: training diverged" in said
    assert remedy in said
    assert door("train", *args, followed, "run_dir=again") == ""


@pytest.mark.parametrize(
    ("own", "remedy", "wrong"),
    [
        ("global", "draw from self.np_random", None),
        ("made", "draw it in reset, from self.np_random", None),
        ("episodes", "make reset(seed=...) restart everything, generators too", None),
        ("", "use agent.normalise_obs=true in place of NormalizeObservation",
         gymnasium.wrappers.NormalizeObservation),
        ("", "use agent.reward_scale=auto in place of NormalizeReward",
         gymnasium.wrappers.NormalizeReward),
    ],
)  # fmt: skip
def test_an_environment_that_was_mended_repeats_its_episodes(own, remedy, wrong, monkeypatch):
    entry = (lambda **kwargs: wrong(Mine(**kwargs))) if wrong else Mine
    monkeypatch.setitem(gymnasium.registry, "Mine-v0",
                        gymnasium.envs.registration.EnvSpec("Mine-v0", entry))  # fmt: skip

    def looked() -> str | None:
        evaluator = evaluator_of("Mine-v0", "sync", {}, 2, 0)
        with contextlib.closing(evaluator):
            return evaluator.examine()

    monkeypatch.setattr(Mine, "own", own)
    assert str(looked()).endswith(f"; {remedy}")
    monkeypatch.setattr(Mine, "own", "")
    monkeypatch.setitem(gymnasium.registry, "Mine-v0",
                        gymnasium.envs.registration.EnvSpec("Mine-v0", Mine))  # fmt: skip
    assert looked() is None
    begun(["env.id=Mine-v0", "agent.normalise_obs=true", "agent.reward_scale=auto"])


def failing(error: Exception) -> Any:
    def render(*_):
        raise error

    return render


ARRAY = "let it give an array (height, width, 3) of uint8, or leave video=true out"
PICTURES: dict[str, tuple[Any, str]] = {
    "none": (None, f"cannot be shown, its render gives NoneType; {ARRAY}"),
    "grey": (np.zeros((9, 9), np.uint8), f"gives an array (9, 9) of uint8; {ARRAY}"),
    "floats": (np.zeros((9, 9, 3)), f"gives an array (9, 9, 3) of float64; {ARRAY}"),
    "not written": (failing(NotImplementedError()), "it has no render; write one that gives an "
                    "array (height, width, 3) of uint8, or leave video=true out"),
    "no library": (failing(gymnasium.error.DependencyNotInstalled("pygame")),
                   "a library is not installed, pygame; install it, or leave video=true out"),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_what_cannot_be_filmed_is_played_without_a_film(name, run, door, monkeypatch):
    wrong, remedy = PICTURES[name]
    shown: list[Any] = []
    monkeypatch.setattr("runtime.deploy.film.show", lambda path, step: shown.append(path.exists()))
    monkeypatch.setattr(Mine, "picture", staticmethod(wrong) if callable(wrong) else wrong)
    assert door("evaluate", "run=run", "video=true", "episodes=1").endswith(f"{remedy}\n")
    assert door("evaluate", "run=run", "episodes=1") == ""
    if name == "none":
        monkeypatch.setattr(Mine, "picture", np.zeros((16, 16, 3), np.uint8))
        assert door("evaluate", "run=run", "video=true", "episodes=1") == ""
        assert shown == [True]


def test_what_cannot_be_shown_in_a_window_is_played_without_one(run, door, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("runtime.deploy.film.show", lambda path, step: None)
    window = ["run=run", "render=human", "episodes=1"]
    if sys.platform == "linux":
        assert door("evaluate", *window).endswith("no display here; video=true films instead\n")
        assert door("evaluate", *window[::2], "video=true") == ""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with monkeypatch.context() as broken:
        broken.setattr(Mine, "picture", None)
        said = door("evaluate", *window)
        assert "cannot be shown, " in said
        assert said.endswith(
            "; let it take Gymnasium's render_mode=human, or leave render=human out\n"
        )
    assert door("evaluate", *window[::2]) == ""
    assert door("evaluate", *window) == ""


@pytest.mark.parametrize(
    ("more", "key"), [(["video=true"], "video=true"), (["render=human"], "render=human")]
)
def test_an_environment_without_a_render_mode_gets_one(more, key, tmp_path, door, monkeypatch):
    plain = ["env.id=Plain-v0" if word == "env.id=Mine-v0" else word for word in RUN]
    assert door("train", *plain, "run_dir=plain") == ""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr("runtime.deploy.film.show", lambda path, step: None)
    said = door("evaluate", "run=plain", "episodes=1", *more)
    mode = "rgb_array" if "video" in key else "human"
    assert said.endswith(f"; let it take Gymnasium's render_mode={mode}, or leave {key} out\n")
    assert door("evaluate", "run=plain", "episodes=1") == ""
    monkeypatch.setattr(Plain, "__init__", Mine.__init__)
    assert door("evaluate", "run=plain", "episodes=1", *more) == ""


def test_a_file_plays_in_what_it_was_exported_from(door, monkeypatch, tmp_path):
    def session(path):
        def act(obs):
            assert obs.shape[1:] == (2,)
            return np.zeros((len(obs), 1), np.float32)

        return act

    real = exported.open_onnx
    monkeypatch.setattr(exported, "open_onnx", session)
    play = ["policy=x.onnx", "env.id=Mine-v0", "episodes=1"]
    assert door("evaluate", *play).endswith("is not there; give what tools/export.py wrote\n")
    Path("x.onnx").write_bytes(b"not this")
    Path("x.pt2").write_bytes(b"")
    assert "whether it was made in the spaces of Mine-v0 is not known" in door("evaluate", *play)
    pt2 = door("evaluate", "policy=x.pt2", *play[1:])
    assert pt2.endswith("give what tools/export.py writes with format=onnx\n")
    for wrong in ("env.id=Pendulum-v1", "env.id=MountainCar-v0"):
        assert door("evaluate", *play, wrong).endswith("give the one it was trained in\n")
    certificate = {"sha256": "", "checkpoint_step": 0, "env_id": "Mine-v0"}
    monkeypatch.setattr(exported, "read_certificate", lambda path: certificate)
    certificate["env_kwargs"] = {"scale": 2.0, "length": 7}
    said = door("evaluate", *play)
    given = said.removeprefix("warning: policy: was exported for ").partition(";")[0].split()
    assert given == ["env.id=Mine-v0", "env.kwargs.scale=2.0", "env.kwargs.length=7"]
    assert door("evaluate", *play, *given) == ""
    certificate["env_kwargs"] = {}
    assert "env.id=Mine-v0; give that alone" in door("evaluate", *play, *given)
    assert door("evaluate", *play) == ""
    certificate["env_id"] = "Pendulum-v1"
    assert "exported for env.id=Pendulum-v1; give that alone" in door("evaluate", *play)
    monkeypatch.setattr(exported, "open_onnx", real)
    if pytest.importorskip("onnxruntime"):
        assert door("evaluate", *play).endswith("cannot be read as ONNX; export it again\n")
