"""What the tools and sweeps advise, followed as it is written, lets the next run go on."""

import re
import shlex
import shutil
import time
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import train
from bench import bench, bench_learning
from common.errors import ConfigError
from configs import files as config_files
from configs.compose import train_config
from configs.sweep import read_sweep
from runtime.launch.door import enter
from runtime.launch.sweep import sweep
from storage import rundir
from tests.tracked import ROOT, files
from tools import compare, doctor, export, reproduce, tune
from tools.gallery import settings
from tools.shared import read_keys
from tools.tune import report
from tools.tuning.spaces import read_space

start = partial(enter, "train", train.run)
WELL = "env.id=tests.tools.test_remedies:Unwell-v0"
COUNTING = "env.id=tests.helpers:Counting-v0"
SMALL = ["agent.hidden=[4]", "eval.episodes=1", "audit.every=1000000", "threads=1"]
ON_POLICY = {
    "a2c": ["agent=a2c", "agent.n_steps=4", "env.num_envs=2", "total_steps=16", *SMALL],
    "ppo": ["agent=ppo", "agent.n_steps=8", "env.num_envs=2", "agent.batch_size=8",
            "total_steps=16", *SMALL],
}  # fmt: skip
OFF_POLICY = {
    "sac": ["agent=sac", "agent.batch_size=4", "agent.learning_starts=8", "total_steps=16",
            "agent.buffer_size=100", *SMALL],
}  # fmt: skip
ANY = ON_POLICY | OFF_POLICY


class Unwell(gymnasium.Env):
    """Well, but for what `has` names; with the name of a remedy, as that leaves it."""

    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    open = 0

    def __init__(self, has="", scale=1.0, far=0.0, pause=0.0, size=1.0):
        self.has, self.scale, self.far, self.pause, self.size = has, scale, far, pause, size
        wide = 2000 if has != "bounds" else 1
        self.observation_space = gymnasium.spaces.Box(-wide, wide, (3,), np.float32)
        if has == "double space":
            self.observation_space = gymnasium.spaces.Box(-wide, wide, (3,), np.float64)
        if has == "word":
            self.observation_space = gymnasium.spaces.Discrete(200)
        if has == "sole" and Unwell.open:
            raise OSError("Address already in use")
        Unwell.open += has == "sole"

    def close(self):
        Unwell.open -= self.has == "sole"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        self.place = 0
        return self.seen(), {}

    def seen(self):
        if self.has == "word":
            self.place = min(199, self.place + int(self.np_random.integers(3)))
            return self.place
        obs = self.far + self.size * self.np_random.uniform(-1, 1, 3)
        obs += 2 * (self.has in ("bounds", "wider bounds"))
        if self.has == "global":
            obs[0] = time.perf_counter() % 1
        return obs if self.has.startswith("double") else obs.astype(np.float32)

    def step(self, action):
        self.count += 1
        time.sleep(self.pause)
        end = self.count == 10 and self.has != "endless"
        timed = self.has == "limit"
        flag = np.int64(0) if self.has == "number" else False
        return self.seen(), self.scale, end if timed else flag, end and not timed, {}


gymnasium.register("Unwell-v0", entry_point=Unwell)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder; no second process looks at an environment, and none is slow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "elsewhere", lambda *_: None)
    monkeypatch.setattr(doctor, "SLOW", 10.0)  # whatever else runs on this machine
    return tmp_path


def examined(capsys, *arguments, steps=100, where=WELL):
    """(advice, warnings) of the doctor."""
    assert doctor.main([where, f"steps={steps}", *arguments]) == 0
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    rows = [line.split(maxsplit=1) for line in lines if not line.startswith(" ")]
    advice = "; ".join(text for name, text in rows if name == "advice")
    return advice, [text for name, text in rows if name == "warning"]


def keys(part):
    """(what of a piece of advice is for the command line, the agents that it is for)."""
    words, _, of = part.partition(" (")
    chosen = {name: ANY[name] for name in re.findall(r"a2c|ppo", of)} or ANY
    return words.split(), chosen


# the doctor's advice


@pytest.mark.parametrize(
    ("ill", "expected", "trained"),
    [
        (["env.kwargs.far=1000.0"], "agent.normalise_obs=true", "sac"),
        (["env.kwargs.size=1e-6"], "agent.normalise_obs=true", "ppo"),
        (["env.kwargs.scale=100.0"], "agent.reward_scale=auto", "ppo"),
        (["env.kwargs.scale=1e20"], "agent.reward_scale=auto", "sac"),
        (["env.kwargs.scale=1e-9"], "agent.reward_scale=auto", "ppo"),
        (["env.kwargs.pause=0.002"], "env.vectorization=async env.num_envs=8 (a2c and ppo)", None),
        (["env.kwargs.has=sole"], "env.num_envs=1 eval.episodes=0", "sac"),
        (
            ["env.kwargs.has=sole", "env.kwargs.pause=0.002"],
            "env.num_envs=1 eval.episodes=0",
            "a2c",
        ),
        (
            ["env.kwargs.size=1e-6", "env.kwargs.scale=1e-5"],
            "agent.normalise_obs=true; agent.reward_scale=auto",
            "a2c",
        ),
    ],
)
def test_what_the_doctor_advises_trains(ill, expected, trained, capsys, monkeypatch):
    monkeypatch.setattr(Unwell, "open", 0)
    if "env.kwargs.pause=0.002" in ill:
        monkeypatch.setattr(doctor, "SLOW", 1e-3)
    advice, _ = examined(capsys, *ill, steps=60)
    assert advice == expected
    added = {}
    for part in advice.split("; "):
        words, agents = keys(part)
        for agent in agents:
            train_config([WELL, f"agent={agent}", *ill, *words])  # as a user writes it
        added |= dict(word.split("=") for word in words)
    if trained:
        command = [key for key in ANY[trained] if key.partition("=")[0] not in added]
        assert start([WELL, *ill, *command, *(f"{k}={v}" for k, v in added.items())]) == 0
    assert Unwell.open == 0


def test_states_that_are_met_seldom_are_no_small_numbers(capsys):
    """Their deviations are below 0.05 because they are seldom, which statistics make 20 of."""
    assert examined(capsys, "env.kwargs.has=word", steps=400)[0] == ""


@pytest.mark.parametrize(
    ("ill", "remedy", "well"),
    [
        ("bounds", "leave the bounds of the space; correct the space", "wider bounds"),
        ("double", "their space is of float32: each is converted; correct one", "double space"),
        ("double", "their space is of float32: each is converted; correct one of the two", ""),
        ("number", "comes as int64, not as bool; give bool", ""),
        ("limit", "if that is a time limit, end them as truncated", ""),
        ("global", "exactly; draw from self.np_random", ""),
    ],
)
def test_what_is_changed_as_a_warning_says_is_not_warned_of(ill, remedy, well, capsys):
    (warning,) = examined(capsys, f"env.kwargs.has={ill}")[1]
    assert remedy in warning
    assert examined(capsys, f"env.kwargs.has={well}") == ("", [])


def test_episodes_without_an_end_get_one_as_the_warning_says(capsys):
    endless = ["env.kwargs.has=endless"]
    (warning,) = examined(capsys, *endless)[1]
    assert "register it with max_episode_steps=N, or give eval.max_length=N" in warning
    gymnasium.register("Bounded-v0", entry_point=Unwell, max_episode_steps=20)
    assert examined(capsys, *endless, where=WELL.replace("Unwell", "Bounded")) == ("", [])
    assert start([WELL, *endless, *ANY["a2c"], "eval.max_length=5", "run_dir=a"]) == 0
    assert "did not end in 5 steps, is cut" in capsys.readouterr().err


# refused by a tool: the message, and the same command as it says


def chosen(arguments):
    return read_keys(bench_learning.Options, arguments)


def benchmarks(arguments):
    return read_keys(bench.Options, arguments)


FEW = "agent.gamma=0.9,0.99"  # searched, where all that is usual takes seconds to compose
GIVEN = {  # name: (reads, what provokes it, the remedy as written, the command as it says)
    "doctor's number": (
        *(doctor.main, [WELL, "steps=0"], "must be an integer, >= 1, got 0; give such a value"),
        [WELL, "steps=9"],
    ),
    "doctor's seed": (
        doctor.main,
        [WELL, "seed=-1"],
        "an integer, >= 0",
        [WELL, "seed=0", "steps=9"],
    ),
    "doctor's key": (doctor.main, [WELL, "step=9"], "did you mean steps?", [WELL, "steps=9"]),
    "doctor's id": (doctor.main, ["steps=9"], "give one Gymnasium id", [WELL, "steps=9"]),
    "two ids": (doctor.main, [WELL, "env=cartpole"], "give one Gymnasium id", [WELL, "steps=9"]),
    "twice": (
        *(tune.read, ["agent.lr=1e-3,1e-2", "agent.lr=1"], "twice; leave one of the two out"),
        ["agent.lr=1e-3,1e-2"],
    ),
    "report": (tune.read, [FEW, "report=1"], "must be true or false", [FEW, "report=false"]),
    "trials": (tune.read, [FEW, "trials=0"], "must be an integer, >= 1", [FEW, "trials=1"]),
    "own seed": (tune.read, [FEW, "seed=1"], "is set by each trial; leave it out", [FEW]),
    "own folder": (tune.read, [FEW, "run_dir=a"], "is set by each trial; leave it out", [FEW]),
    "judged": (tune.read, [FEW, "eval.episodes=0"], "to judge a trial by; leave it out", [FEW]),
    "misspelt": (tune.read, [FEW, "trails=3"], "did you mean trials?", [FEW, "trials=3"]),
    "no range": (
        *(tune.read, ["agent.lr=0..1:log"], "give LOW..HIGH, above 0 with :log"),
        ["agent.lr=0.1..1:log"],
    ),
    "empty range": (
        *(tune.read, ["agent.gamma=1..0.9"], "give LOW..HIGH"),
        ["agent.gamma=0.9..1"],
    ),
    "threshold": (compare.parse, ["a", "threshold=x"], "give such a value", ["a", "threshold=1"]),
    "no tag": (compare.parse, ["a", "tag="], "give a tag of docs/logging.md", ["a", "tag=x"]),
    "no runs": (compare.parse, ["tag=x"], "name run directories, or `runs`", ["tag=x", "runs"]),
    "no pair": (settings.parse, ["samples"], "--help lists the keys", ["samples=500"]),
    "no section": (
        *(settings.parse, ["section=tanh_norml"], "did you mean tanh_normal?"),
        ["section=tanh_normal"],
    ),
    "key of no section": (
        *(settings.parse, ["section=log_exp", "valus=[[1]]"], "did you mean values?"),
        ["section=log_exp", "values=[[1]]"],
    ),
    "a run": (
        *(
            settings.parse,
            ["run=a", "samples=500"],
            "checkpoint, verbose and env.id; leave",
        ),
        ["run=a", "seed=1", "out=b", "checkpoint=best", "env.id=c:D-v0"],
    ),
    "benchmark": (benchmarks, ["only=sac65"], "did you mean sac64?", ["only=sac64"]),
    "no option": (benchmarks, ["sac64"], "is not KEY=VALUE", ["only=sac64"]),
    "number of blocks": (benchmarks, ["blocks=0"], "must be an integer, >= 1", ["blocks=1"]),
    "seeds": (chosen, ["seeds=5-3"], "give FIRST-LAST, the smaller one first", ["seeds=3-5"]),
    "pattern": (chosen, ["seeds=x"], "give FIRST-LAST", ["seeds=0-4"]),
    "task": (chosen, ["only=pendulm-sac"], "did you mean pend", ["only=pendulum-sac"]),
    "no such list": (
        read_sweep,
        ["seed=choice()"],
        "cannot be read; correct it",
        ["seed=choice(0,1)"],
    ),
    "no such step": (read_sweep, ["seed=range(0,3,0)"], "list", ["seed=0,1,2"]),
    "pattern of names": (read_sweep, ["agent=glob(*)"], "list them", ["agent=a2c,ppo"]),
    "launcher's value": (
        *(read_sweep, ["hydra/launcher=joblib", "hydra.launcher.n_jobs=${x}"], "write the value"),
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    ),
}


@pytest.mark.parametrize("name", GIVEN)
def test_what_is_done_as_the_message_says_is_accepted(name, capsys):
    reads, provoked, remedy, followed = GIVEN[name]
    assert remedy in refused(reads, provoked, capsys)
    assert reads is not doctor.main or reads(followed) == 0
    if reads is not doctor.main:
        reads(followed)


def refused(reads, arguments, capsys):
    if reads is not doctor.main:
        with pytest.raises(ConfigError) as raised:
            reads(arguments)
        return str(raised.value)
    assert reads(arguments) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("key", ["mean", "values", "std", "probs"])
def test_a_key_of_single_sections_is_taken_with_each_that_is_named(key, capsys):
    said = refused(settings.parse, [f"{key}=x"], capsys)
    named = said.partition("add section=NAME, one of ")[2].split(", ")
    assert named
    for section in named:
        default = getattr(settings.SECTIONS[section](), key)
        text = str(default).replace(" ", "")
        assert settings.parse([f"section={section}", f"{key}={text}"])[1].keys() == {section}


# with runs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "run"
    assert start([COUNTING, *ANY["a2c"], "env.kwargs.ends=truncated", f"run_dir={path}"]) == 0
    return path


def told(capsys, door, arguments, code=2):
    assert door(arguments) == code
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    ("added", "remedy", "followed"),
    [
        (
            ["format=tflite"],
            "must be onnx or torch, got 'tflite'; give such a value",
            ["format=torch"],
        ),
        (["episodes=0"], "must be an integer, >= 1, got 0; give such a value", []),
        (["seed=-1"], "must be an integer, >= 0, got -1; give such a value", ["seed=1"]),
        (["out=5", "format=torch"], "does not end in .pt2; name it so", ["out=5.pt2"]),
        (["out=p.onnx", "format=torch"], "does not end in .pt2; name it so", ["out=p.pt2"]),
        (["oot=p.pt2"], "did you mean out?", ["out=p.pt2"]),
        (["checkpoint=best"], "", ["checkpoint=latest"]),
    ],
)
def test_a_policy_is_written_as_the_message_says(added, remedy, followed, made, capsys):
    given = [f"run={made}", COUNTING, "out=q.pt2", "format=torch", "episodes=1"]
    if remedy:
        assert remedy in told(capsys, export.main, [*given, *added])
    assert export.main([*given, *followed]) == 0


def test_a_run_without_a_log_is_compared_after_it_was_trained_longer(made, capsys):
    shutil.copytree(made, "runs/run")
    for file in Path("runs/run").glob("events*"):
        file.unlink()
    assert told(capsys, reproduce.main, ["run=runs/run", COUNTING]).endswith("; train longer")
    assert start(["resume=runs/run", COUNTING, "total_steps=32"]) == 0
    assert reproduce.rows(Path("runs/run"))


def test_arguments_of_any_form_are_written_again_or_the_command_is_to_be_repeated(monkeypatch):
    copy = Path("configs").absolute()
    shutil.copytree(config_files.DIRECTORY, copy)
    monkeypatch.setattr(config_files, "DIRECTORY", copy)
    for kwargs, fits in (("{x y: 1}", True), ("{1: 2}", True), ("{b: {c: [1, {d: e}]}}", True),
                         ('{"1": 2}', False), ('{"x:y": 1}', False)):  # fmt: skip
        (copy / "env" / "mine.yaml").write_text(f"id: a:B-v0\nkwargs: {{a: {kwargs}}}\n")
        config = train_config(["env=mine", "agent=a2c", "run_dir=x"])
        if fits:
            assert train_config(reproduce.overrides(config)) == config
            continue
        with pytest.raises(ConfigError, match="repeat the command that made it, with another run"):
            reproduce.overrides(config)
        assert train_config(["env=mine", "agent=a2c", "run_dir=y"]).env == config.env


def test_runs_that_are_set_apart_are_compared_where_they_are_named(made, capsys):
    shutil.copytree(made, "runs/reproduced/run")
    shutil.copytree(made, "searches/a b/trial-0000/s0")
    Path("searches/a b/study.journal").touch()
    for given, apart in (("runs", "runs/reproduced"), ("searches", "searches/a b")):
        said = told(capsys, compare.main, [given])
        (named,) = shlex.split(said.partition("such as ")[2])
        assert named == apart
        assert compare.main([named, "out=told"]) == 0
    assert told(capsys, compare.main, ["told"]).endswith(
        "name run directories, or folders that contain some"
    )
    said = told(capsys, compare.main, [str(made), "tag=eval/return"])
    assert said.endswith("see the tags in docs/logging.md")
    tags = (ROOT / "docs" / "logging.md").read_text()
    for tag in ("eval/return_mean", "rollout/return"):
        assert f"`{tag}`" in tags
        assert compare.main([str(made), f"tag={tag}"]) == 0


# searches and sweeps


@pytest.mark.parametrize(
    "searched",
    [
        "agent.lr=1e-4..1e-2:log",
        "agent.n_steps=5..8",
        "agent.gamma=0.9..1.0",
        "agent.hidden=[8],[16,16]",
    ],
)
def test_a_study_goes_on_with_the_settings_that_the_message_names(searched, monkeypatch, capsys):
    pytest.importorskip("optuna")
    monkeypatch.setattr("tools.tuning.study.search", lambda *_: None)
    first = [WELL, "agent=a2c", "env.kwargs.has='a b'", searched, "study=out", "report=false"]
    assert tune.main(first) == 0
    other = [WELL, "agent=a2c", "agent.ent_coef=0.0,0.1", "study=out", "report=false"]
    said = told(capsys, tune.main, other)
    repeated = said.partition("repeat those, ")[2].partition(", or name another by ")[0]
    assert tune.main([*shlex.split(repeated), "study=out", "report=false"]) == 0
    assert tune.main([*other[:-2], "study=another", "report=false"]) == 0


@pytest.mark.parametrize(
    "text", ["1e-4..1e-2:log", "0.5..1e-300", "1..12", "-3..-1", "1.0..2", "1e-5..1e20", "a,[b,c]"]
)
def test_a_range_is_written_as_it_is_read(text):
    if text == "0.5..1e-300":
        text = "1e-300..0.5"
    found = read_space("agent.lr", text)
    assert read_space("agent.lr", str(found)) == found


def test_a_search_of_which_no_trial_ended_goes_on_with_more(capsys):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    study.tell(study.ask(), state=optuna.trial.TrialState.PRUNED)
    given = "cartpole-a2c", ["agent=a2c", "env=cartpole"], 1, Path("out")
    with pytest.raises(ConfigError, match="give more trials=N, or search another range in another"):
        report(study, *given)
    Path("out").mkdir()
    trial = study.ask()
    trial.set_user_attr("chosen", ["agent.lr=0.01"])
    study.tell(trial, 1.0)
    report(study, *given)
    assert "lr: 0.01" in Path("out/cartpole-a2c.yaml").read_text()


def test_a_search_whose_trials_fail_goes_on_once_that_is_mended_or_elsewhere(monkeypatch, capsys):
    optuna = pytest.importorskip("optuna")
    state, failing = optuna.trial.TrialState, [True]

    def attempt(study, trial, command, folder, seeds):
        if failing[0]:
            study.tell(trial, state=state.FAIL)
            return "failed, by a test", False
        study.tell(trial, 1.0)
        return "1.0", True

    monkeypatch.setattr("tools.tuning.study.attempt", attempt)
    command = [WELL, "agent=a2c", "agent.lr=1e-4..1e-2:log", "trials=2", "study=out"]
    said = told(capsys, tune.main, command)
    assert said.endswith("fix their errors, or search another range in another study=FOLDER")
    failing[0] = False
    assert tune.main(command) == 0
    assert tune.main([*command[:2], "agent.lr=1e-5..1e-4:log", "trials=2", "study=another"]) == 0


EXTRA = r'pip install (?:-c constraints\.txt )?"\.\[(\w+)\]"'


def test_what_is_to_be_installed_is_an_extra_of_this_project():
    text = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    known = re.findall(r"^(\w+) = \[", text.partition("\n[")[0], re.MULTILINE)
    sources = [path.read_text() for path in files("**/*.py") if ROOT / "tests" not in path.parents]
    named = {name for text in sources for name in re.findall(EXTRA, text)}
    assert {"tune", "bench", "sweep"} <= named <= set(known)


@pytest.mark.parametrize("named", [[], ["run_dir=out"], ["hydra.sweep.dir=out"], ["run_dir='a b'"]])
@pytest.mark.parametrize("code", [75, 137])
def test_a_sweep_goes_on_by_the_command_that_it_prints(named, code, monkeypatch, capsys):
    began = []

    def call(job, due):
        began.append(train_config(job).run_dir)
        return code if len(began) == 1 else 0

    monkeypatch.setattr("runtime.launch.sweep.call", call)
    command = ["-m", "seed=1,2", *named]
    assert sweep(command) == code
    (again,) = set(re.findall(r"the same command with (.*) continues", capsys.readouterr().out))
    first, began[1:] = began[0], []
    Path(first).mkdir(parents=True)
    assert sweep([*command, *shlex.split(again)]) == 0
    assert began[1:] == [first, first[:-1] + "1"]


def test_a_launcher_that_cannot_begin_is_left_out_or_mended(monkeypatch, capsys):
    def refuses(*_):
        raise RuntimeError("no such partition")

    monkeypatch.setattr("runtime.launch.sweep.launch", refuses)
    monkeypatch.setattr("runtime.launch.sweep.call", lambda job, due: 0)
    command = ["-m", "seed=1,2", "run_dir=out"]
    said = told(capsys, sweep, [*command, "hydra/launcher=joblib"])
    assert said.endswith("no such partition; fix that, or leave the launcher out")
    assert sweep(command) == 0


def test_a_picture_that_cannot_be_written_can_be_after_what_the_message_says(capsys):
    """Of whatever draws: a folder stands where the picture goes."""
    Path("a.png").mkdir()
    with pytest.raises(Exception, match=r"a\.png: cannot be written, .*; "):
        rundir.write_bytes(Path("a.png"), b"pixels")
    Path("a.png").rmdir()
    rundir.write_bytes(Path("a.png"), b"pixels")
