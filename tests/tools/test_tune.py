"""Searches: what is searched, what is refused, and studies that are killed, pruned and shared."""

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import yaml

import train
from common.errors import ConfigError
from configs import files
from configs.agents import AGENT_GROUPS
from configs.compose import train_config
from runtime.launch.door import enter
from runtime.launch.signals import PASSED_ON
from tools import tune
from tools.tuning import study as studies
from tools.tuning.spaces import Choice, Range, draw, ends, holding, present, read_space, usual
from tools.tuning.study import open_study

TUNE = Path(tune.__file__)
SHORT = ["env=cartpole", "agent=a2c", "total_steps=1280", "eval.episodes=1", "agent.n_steps=5"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4..1e-2:log", Range(1e-4, 1e-2, log=True)),
        ("0.9..1", Range(0.9, 1.0)),
        ("1..8", Range(1, 8, whole=True)),
        ("-2..2.5", Range(-2.0, 2.5)),
        ("a,b", Choice(("a", "b"))),
        ("[8],[8,8]", Choice(("[8]", "[8,8]"))),
        ("3e-4", None),
        ("[64,64]", None),
        ("auto", None),
    ],
)
def test_what_is_searched_is_read_off_the_command_line(text, expected):
    assert read_space("agent.x", text) == expected


@pytest.mark.parametrize("text", ["2..1", "0..1:log", "1..1"])
def test_an_empty_range_is_refused(text):
    with pytest.raises(ConfigError, match=r"agent\.x"):
        read_space("agent.x", text)


@pytest.mark.parametrize("agent", AGENT_GROUPS)
def test_every_value_of_the_usual_searches_composes(agent):
    base = [f"agent={agent}", "env=pendulum" if agent == "sac" else "env=cartpole"]
    space = usual(agent, AGENT_GROUPS[agent].on_policy)
    for changed in ends(space):
        train_config([*base, *changed])
    trial = optuna.trial.FixedTrial({
        key: what.values[0] if isinstance(what, Choice) else what.low
        for key, what in space.items()
    })  # fmt: skip
    train_config([*base, *draw(space, trial)])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["agent=a2c", "trials=0"], "trials"),
        (["agent=a2c", "agent.lr=1e-3,x"], "agent.lr"),
        (["agent=a2c", "agent.lr=1e-3..20"], "agent.lr"),
        (["agent=a2c", "agent.tau=0.1..0.2"], "agent.tau"),
        (["agent=a2c", "seed=1"], "seed"),
        (["agent=a2c", "agent.lr=1e-3..1e-2:log", "agent.lr=3"], "agent.lr: is given twice"),
        (["agent=a2c", "trails=3"], "trails: is not a key; did you mean trials?"),
        (["agent=nope"], "agent"),
        (["agent=ppo", "agent.n_steps=5,7"], "agent.batch_size"),
        (["env=cartpole", "agent=sac"], "agent: sac does not support discrete actions; use"),
    ],
)
def test_bad_input_is_one_line_before_anything_begins(
    arguments, word, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert tune.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {word}" if " " in word else f"error: {word}: ")
    assert not list(tmp_path.iterdir())


class Here:
    """In place of a process that trains: the same in this one, at once."""

    def __init__(self, command, **_):
        with contextlib.redirect_stdout(io.StringIO()):
            self.returncode = enter("train", train.run, command[2:])

    def poll(self):
        return self.returncode


def test_the_best_of_a_search_is_a_tuned_pair(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(studies, "POLL", 0.1)
    command = [*SHORT, "agent.lr=1e-4..1e-2:log", "agent.hidden=[8],[16]", "study=out"]
    assert tune.main([*command, "trials=1"]) == 0
    monkeypatch.setattr(studies, "subprocess", SimpleNamespace(Popen=Here))
    assert tune.main([*command, "trials=2"]) == 0  # goes on
    said = [x for x in capsys.readouterr().out.splitlines() if x.startswith("trial ")]
    assert [line.split(":")[0] for line in said] == [
        f"trial {n}{word}" for n in range(2) for word in (" begins", "")
    ]
    found = {
        n: json.loads((tmp_path / f"out/trial-000{n}/s0/result.json").read_text())["return_mean"]
        for n in range(2)
    }
    best = max(found, key=lambda n: found[n])
    text = (tmp_path / "out/cartpole-a2c.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    assert "on seed 1000." in text
    tuned = yaml.safe_load(text)
    run = yaml.safe_load((tmp_path / f"out/trial-000{best}/s0/config.yaml").read_text())
    assert tuned["total_steps"] == run["total_steps"]
    for key, value in tuned["agent"].items():
        assert value == run["agent"][key]
    copy = tmp_path / "configs"
    shutil.copytree(files.DIRECTORY, copy)
    shutil.copy(tmp_path / "out/cartpole-a2c.yaml", copy / "tuned")
    monkeypatch.setattr(files, "DIRECTORY", copy)
    alone = dataclasses.asdict(train_config(["env=cartpole", "agent=a2c"]))
    assert alone["agent"] == run["agent"]
    assert alone["env"] == run["env"]


def test_a_search_can_be_repeated_also_where_it_was_stopped_between(tmp_path, monkeypatch):
    """The thirteenth trial is no longer drawn evenly: it looks at the twelve before it."""

    def chosen(folder, *trials):
        for count in trials:
            command = [*SHORT, "agent.lr=1e-4..1e-2:log", "agent.hidden=[8],[16]"]
            assert tune.main([*command, f"trials={count}", f"study={folder}"]) == 0
        study = open_study(tmp_path / folder)
        return [trial.user_attrs["chosen"] for trial in study.get_trials()]

    def play(trial, command, folder, seeds):
        return -float(next(x for x in command if x.startswith("agent.lr=")).partition("=")[2])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(studies, "play", play)
    whole = chosen("whole", 13)
    assert chosen("parts", 7, 13) == whole
    assert len({tuple(one) for one in whole}) == 13


def test_the_same_settings_are_not_tried_twice(tmp_path, monkeypatch, capsys):
    """Of two choices, one is a bad one, which is stopped."""
    played = []

    def play(trial, command, folder, seeds):
        (chosen,) = [x for x in command if x.startswith("agent.hidden=")]
        played.append(chosen)
        if chosen.endswith("[8]"):
            raise optuna.TrialPruned("it lags behind")
        return 7.0

    looked: list[int] = []
    look = studies.repeated

    def counting(study, trial):
        looked.append(trial.number)
        assert len(looked) < 20, "the search does not end"
        return look(study, trial)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(studies, "play", play)
    monkeypatch.setattr(studies, "repeated", counting)
    assert tune.main([*SHORT, "agent.hidden=[8],[16]", "trials=6", "study=out"]) == 0
    assert sorted(played) == ["agent.hidden=[16]", "agent.hidden=[8]"]
    said = capsys.readouterr().out
    again = r"^trial \d: (return 7.00|stopped), as trial \d with the same settings$"
    assert len(re.findall(again, said, re.MULTILINE)) == 4
    states = [trial.state.name for trial in open_study(tmp_path / "out").get_trials()]
    assert sorted(states) == ["COMPLETE", *["FAIL"] * 4, "PRUNED"]
    assert said.count(" begins: ") == 2
    assert "best of 2: 7.00" in said
    assert tune.main([*SHORT, "agent.hidden=[8],[16]", "trials=6", "study=out"]) == 0
    assert len(open_study(tmp_path / "out").get_trials()) == 6


def test_trials_take_one_thread_where_no_more_are_given():
    assert "threads=1" in tune.read(["env=cartpole"]).fixed
    fixed = tune.read(["threads=2"]).fixed
    assert [argument for argument in fixed if argument.startswith("threads=")] == ["threads=2"]


def test_an_id_that_has_a_file_goes_by_its_name():
    assert tune.read(["env.id=Pendulum-v1"]).pair == "pendulum-a2c"
    assert tune.read(["env.id=Pendulum-v1", "env.kwargs.g=9"]).pair == "pendulum_v1-a2c"


def test_what_a_search_began_with_is_in_its_pair():
    """A pair that is to take another's place has what that one had, and was searched with."""
    text = "\n".join(tune.changed(["env=pendulum", "agent=ppo", "agent.lr=3e-4"]))
    found = yaml.safe_load(text)
    assert found["env"] == {"num_envs": 4}
    assert found["agent"] == {"gamma": 0.97, "lr_schedule": "linear",
                              "reward_scale": 0.1, "bounded_mean": True}  # fmt: skip


@pytest.mark.parametrize(
    ("env", "words"),
    [("env=cartpole", "written to out/cartpole-a2c.yaml; copy it to configs/tuned/cartpole-a2c"),
     ("env.id=CartPole-v1", "copy it to configs/tuned/cartpole-a2c"),
     ("env.id=FrozenLake-v1", "; save the environment as configs/env/frozenlake_v1.yaml, as")],
)  # fmt: skip
def test_where_the_pair_goes_is_told(env, words, tmp_path, monkeypatch, capsys):
    def attempt(study, trial, *_):
        study.tell(trial, 1.0)
        return "1.00", True

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(studies, "attempt", attempt)
    assert tune.main([env, *SHORT[1:], "agent.lr=1e-4..1e-2:log", "study=out", "trials=1"]) == 0
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"agent.lr": Range(1e-3, 1e-2, log=True)}, {"agent.lr": 3e-3}),
        ({"agent.lr": Range(1e-4, 1e-3)}, None),
        ({"agent.batch_size": Range(192, 512, whole=True)}, {"agent.batch_size": 192}),
        ({"agent.hidden": Choice(("[8]", "[64,64]"))}, {"agent.hidden": "[64,64]"}),
        ({"agent.hidden": Choice(("[8]", "[16]"))}, None),
        ({"agent.normalise_obs": Choice(("true", "false"))}, {"agent.normalise_obs": "false"}),
        ({"agent.target_entropy": Range(-2.0, 0.0)}, None),
        ({"agent.lr": Range(1e-3, 1e-2), "agent.tau": Range(0.5, 1.0)}, None),
        ({"env.kwargs.g": Range(9.0, 11.0)}, {"env.kwargs.g": 10.0}),
        ({"env.kwargs.m": Range(9.0, 11.0)}, None),
    ],
    ids=str,
)
def test_the_settings_as_they_are_are_found_in_a_space(space, expected):
    command = ["env=pendulum", "agent=sac", "env.kwargs.g=10.0"]
    assert present(train_config(command), space) == expected


@pytest.mark.parametrize("agent", AGENT_GROUPS)
def test_the_usual_ranges_hold_the_settings_as_they_are_of_every_pair(agent):
    tuned = (files.DIRECTORY / "tuned").glob(f"*-{agent}.yaml")
    pairs = [path.stem.rpartition("-") for path in tuned]
    of_all = [f"env.id={'CartPole-v1' if agent == 'sac_discrete' else 'Pendulum-v1'}"]
    for command in [of_all, *([f"env={env}"] for env, _, _ in pairs)]:
        config = train_config([f"agent={agent}", *command])
        general = usual(agent, config.agent.on_policy)
        space = holding(config, general)
        assert present(config, space) is not None
        for key, what in general.items():  # and nothing is taken out of them
            assert members({key: what}) <= members({key: space[key]})
        for one in ends(space):
            train_config([f"agent={agent}", *command, *one])


def members(space):
    """Values of choices, or the ten-thousandths, up to 2, in a range."""
    (what,) = space.values()
    if isinstance(what, Choice):
        return set(what.values)
    return {n for n in range(20_000) if what.low <= n / 10_000 <= what.high}


def test_a_range_is_widened_at_either_end_and_a_choice_by_one():
    config = train_config(["env=pendulum", "agent=sac"])
    given = {"agent.lr": Range(1e-4, 1e-3, log=True), "agent.tau": Range(0.02, 0.05),
             "agent.hidden": Choice(("[8]",)), "agent.gamma": Choice(("0.9", "0.99"))}  # fmt: skip
    assert holding(config, given) == {
        "agent.lr": Range(1e-4, 3e-3, log=True),
        "agent.tau": Range(0.01, 0.05),
        "agent.hidden": Choice(("[8]", "[64,64]")),
        "agent.gamma": Choice(("0.9", "0.99")),
    }


def test_a_search_begins_with_the_settings_as_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(studies, "play", lambda *_: 1.0)
    tuned = train_config(SHORT).agent
    for low, high, held in ((tuned.lr / 3, tuned.lr * 2, True), (tuned.lr * 2, 0.5, False)):
        folder = f"study=held-{held}"
        assert tune.main([*SHORT, f"agent.lr={low:.6f}..{high:.6f}:log", folder, "trials=1"]) == 0
        said = capsys.readouterr().out
        assert (f"trial 0 begins: agent.lr={tuned.lr:.4g};" in said) == held
        assert ("lie outside these ranges: no trial has them" in said) == (not held)
        assert ("compare it with the unchanged settings first" in said) == (not held)


def test_a_search_of_the_usual_ranges_goes_on_after_its_pair_was_replaced(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(studies, "play", lambda *_: 1.0)
    command = [*SHORT, "study=out"]
    assert tune.main([*command, "trials=1"]) == 0
    assert "no trial had" not in capsys.readouterr().out
    space = tune.spaces.holding
    monkeypatch.setattr(tune.spaces, "holding", lambda config, usual: {  # as of another pair
        **space(config, usual), "agent.lr": Range(1e-4, 0.5, log=True)})  # fmt: skip
    assert tune.main([*command, "trials=2"]) == 0
    assert "trial 1" in capsys.readouterr().out
    monkeypatch.setattr(tune.spaces, "present", lambda *_: {"agent.lr": 0.3})
    assert tune.main([*command, "trials=2"]) == 0
    assert "which no trial had" in capsys.readouterr().out


def test_a_study_of_other_settings_is_not_gone_on_with(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(studies, "search", lambda *arguments: None)
    command = [*SHORT, "agent.lr=1e-4..1e-2:log", "study=out", "report=false"]
    assert tune.main(command) == 0
    assert tune.main([*command[::-1], "trials=7"]) == 0
    for other in (["env.num_envs=4"], ["agent.hidden=[8],[16]"], ["seeds=2"]):
        assert tune.main([*command, *other]) == 2
        line = capsys.readouterr().err
        assert line.startswith("error: study: out has other settings; ")
    assert tune.main([one.replace("1e-2", "2e-2") for one in command]) == 2
    assert "agent.lr=0.0001..0.01:log, or name another by study=FOLDER" in capsys.readouterr().err


def test_a_search_that_only_fails_ends(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(studies, "attempt", lambda *arguments: ("failed, by a test", False))
    assert tune.main([*SHORT, "agent.lr=1e-4..1e-2:log", "study=out", "trials=50"]) == 2
    assert capsys.readouterr().err.startswith("error: trials: 6 failed; ")


def test_what_is_searched_needs_not_fit_at_its_default(tmp_path, monkeypatch):
    """A rollout of 256 x 16 steps would be longer than the run."""

    def attempt(study, trial, *_):
        study.tell(trial, 1.0)
        return "1.00", True

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(studies, "attempt", attempt)
    few = ["env=acrobot", "agent=ppo", "total_steps=1024", "agent.n_steps=32,64"]
    assert tune.main([*few, "study=out", "trials=1"]) == 0


def in_memory(**options):
    return optuna.create_study(direction="maximize", **options)


def test_what_lags_behind_is_stopped(tmp_path, monkeypatch):
    """Five trials with rising curves, then one whose curve stays below them all."""
    study = in_memory(pruner=optuna.pruners.MedianPruner(n_startup_trials=5))
    for _ in range(5):
        trial = study.ask()
        for step in (100, 200):
            trial.report(float(step), step)
        study.tell(trial, 200.0)
    monkeypatch.setattr(studies, "read_scalars", lambda run, tag: [(100, 50.0)])
    (tmp_path / "events.out.tfevents.1").write_text("")
    bad, told = study.ask(), set()
    assert studies.lags(bad, tmp_path, told)
    assert told == {100}
    monkeypatch.setattr(studies, "read_scalars", lambda run, tag: [(100, 150.0)])
    assert not studies.lags(study.ask(), tmp_path, set())


LEARNER = """
import json, sys, time
from pathlib import Path
from types import SimpleNamespace
from torch.utils.tensorboard import SummaryWriter
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
run = Path(given["run_dir"].strip('"'))
number = int(run.parent.name.partition("-")[2])
writer = SummaryWriter(str(run))
for step in (100, 200):
    writer.add_scalar("eval/return_mean", -number * step, step)
writer.flush()
if number == 5:
    time.sleep(1000)
(run / "result.json").write_text(json.dumps({"return_mean": -number}))
"""


@pytest.mark.slow
def test_a_search_stops_a_run_that_lags_behind(tmp_path, monkeypatch, capsys):
    """Each trial is worse than those before; the sixth would never end."""
    monkeypatch.chdir(tmp_path)
    Path("learner.py").write_text(LEARNER)
    monkeypatch.setattr(studies, "TRAIN", tmp_path / "learner.py")
    monkeypatch.setattr(studies, "POLL", 0.1)
    assert tune.main([*SHORT, "agent.lr=1e-4..1e-2:log", "study=out", "trials=6"]) == 0
    assert "trial 5: stopped, it lags behind" in capsys.readouterr().out


def test_a_run_that_diverges_is_one_that_the_study_learns_from(tmp_path, monkeypatch):
    text = f"import os; raise SystemExit(5 if '{PASSED_ON}' in os.environ else 1)"
    (tmp_path / "learner.py").write_text(text)
    monkeypatch.setattr(studies, "TRAIN", tmp_path / "learner.py")
    monkeypatch.setattr(studies, "POLL", 0.05)
    study = in_memory()
    assert studies.attempt(study, study.ask(), [], tmp_path, 1) == (
        "stopped, training diverged",
        True,
    )
    assert study.trials[0].state == optuna.trial.TrialState.PRUNED


def test_a_run_that_fails_is_told_with_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "POLL", 0.05)
    with pytest.raises(RuntimeError, match="ends before the first update"):
        studies.play(in_memory().ask(), [*SHORT, "env.num_envs=1280"], tmp_path, 1)


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False, True])
def test_a_study_that_was_killed_goes_on_and_its_trial_too(alone, tmp_path):
    """Also where the run of its trial lives on: it is waited for."""
    long = ["env=pendulum", "agent=sac", "agent.hidden=[8]", "agent.batch_size=8",
            "total_steps=2000", "eval.episodes=1", "eval.every=2000"]  # fmt: skip
    command = [sys.executable, str(TUNE), *long, "agent.lr=1e-4..1e-2:log", "trials=2", "study=out"]
    first = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    run = tmp_path / "out/trial-0000/s0"
    until = time.monotonic() + 60
    while not (run / "checkpoints/step-000000000200").exists() and time.monotonic() < until:
        time.sleep(0.1)
    (os.kill if alone else os.killpg)(first.pid, signal.SIGKILL)
    first.wait()
    assert not (run / "result.json").exists()
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert (run / "result.json").exists()
    if not alone:
        assert "from step" in (tmp_path / "out/trial-0000/s0.log").read_text()
    assert "failed" not in second.stdout
    assert "best of 2" in second.stdout  # the killed one was made again
    assert len(list(tmp_path.glob("out/trial-*/s0/result.json"))) == 2


@pytest.mark.slow
def test_a_signal_ends_the_workers_and_saves_their_runs(tmp_path):
    long = ["env=pendulum", "agent=sac", "agent.hidden=[8]", "agent.batch_size=8",
            "total_steps=20000", "eval.episodes=1", "eval.every=20000"]  # fmt: skip
    command = [
        sys.executable,
        str(TUNE),
        *long,
        "agent.lr=1e-4..1e-2:log",
        "workers=2",
        "study=out",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    runs = [tmp_path / f"out/trial-000{number}/s0" for number in range(2)]
    until = time.monotonic() + 90
    while time.monotonic() < until and not all(
        (run / "checkpoints/step-000000000000").exists() for run in runs
    ):
        time.sleep(0.1)
    time.sleep(2.0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 75
    with pytest.raises(ProcessLookupError):  # nobody is left of its group
        os.killpg(process.pid, 0)
    for run in runs:
        assert "error: stopped: by SIGTERM, the run is saved" in run.with_suffix(".log").read_text()


def test_an_id_with_a_slash_names_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tune.read(["env.id=module:Name/Cart-v0", "agent=a2c"]).pair == "cart_v0-a2c"


@pytest.mark.slow
def test_two_workers_share_a_study(tmp_path):
    command = [sys.executable, str(TUNE), *SHORT, "agent.lr=1e-4..1e-2:log", "trials=4",
               "workers=2", "study=out"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers = sorted(map(int, re.findall(r"^trial (\d+): ", done.stdout, re.MULTILINE)))
    assert numbers == [0, 1, 2, 3]
    assert done.stdout.count("\nbest of 4:") == 1  # by one of the two


@pytest.mark.parametrize("group", ["env='pendulum'", '+env="pendulum"', "env=pendulum"])
def test_a_name_is_the_same_however_it_is_written(group):
    plan = tune.read([group, "+agent.lr=0.5", "+threads=2"])
    assert plan.pair == "pendulum-a2c"
    assert "threads=1" not in plan.fixed
    assert "agent.lr" not in plan.space
    assert tune.read([group, "env.id=Acrobot-v1"]).pair == "acrobot-a2c"
