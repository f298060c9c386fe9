"""A run that is taken up again is, bit for bit, the run that was never stopped."""

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import evaluate
import train
from common.errors import ConfigError, Stopped, StorageFault
from common.tree import digest
from configs import automatic, files
from configs.compose import train_config
from configs.files import read_run, to_yaml
from configs.resume import differing, resumed
from runtime.launch.door import enter
from runtime.launch.signals import Stop
from runtime.saver import Saver
from storage import checkpoint
from storage.checkpoint import seal_of
from storage.files import seal
from storage.provenance import changes, setting
from storage.segments import read_segments
from tests import helpers
from tests.faults import harness
from tests.faults.harness import COMMON, outcome

EPISODES = "env.kwargs.max_episode_steps=50"
LENGTHS = {
    "a2c-cartpole": ["total_steps=800", "env.kwargs.max_episode_steps=20"],  # many reach it
    "a2c-pendulum": ["total_steps=400", EPISODES],
    "sac-pendulum": [EPISODES],
    "sac-mountaincar": [],
}
RUNS = {name: [*run, *LENGTHS[name]] for name, run in harness.RUNS.items()}
MORE = {
    "a2c-counting-async": [
        *(
            "env.id=tests.helpers:Counting-v0",
            "env.kwargs.length=7",
            "env.kwargs.show_episode=false",
        ),
        *("agent=a2c", "env.num_envs=2", "env.vectorization=async", "agent.n_steps=8"),
        *("agent.hidden=[8]", "agent.normalise_obs=true", "total_steps=400", "checkpoint.every=50"),
    ],
    "ppo-cartpole": [
        *("env=cartpole", "agent=ppo", "env.num_envs=2", "agent.n_steps=8", "agent.batch_size=8"),
        *("agent.epochs=2", "agent.hidden=[8]", "agent.normalise_obs=true", "total_steps=400"),
        *("agent.target_kl=0.01", "checkpoint.every=50"),
    ],
    "sac_discrete-cartpole": [
        *("env=cartpole", "agent=sac_discrete", "agent.hidden=[8]", "agent.batch_size=8"),
        *("agent.learning_starts=20", "total_steps=200", "checkpoint.every=50"),
    ],
}
PICTURE = ["env.id=tests.helpers:Picture-v0", "env.kwargs.discrete=true", "agent.hidden=[8]"]
MORE["a2c-picture"] = [
    *(*PICTURE, "agent=a2c", "env.num_envs=1", "agent.n_steps=8", "total_steps=160"),
    "checkpoint.every=40",
]
MORE["sac_discrete-picture"] = [
    *PICTURE,
    *("agent=sac_discrete", "agent.batch_size=8", "agent.learning_starts=20", "total_steps=100"),
    *("checkpoint.every=40", "env.kwargs.shape=[4,6]"),
    "env.wrappers=[{name:FrameStackObservation,stack_size:2}]",
]
MORE["sac-atoms"] = [*RUNS["sac-pendulum"], "agent.atoms=11"]
MORE["sac-held"] = [*RUNS["sac-pendulum"], "agent.learning_starts=100", "agent.explore_hold=40"]
COMPILED = {"sac-compiled": [*RUNS["sac-pendulum"], "accelerate=compile"]}
ALL = {**RUNS, **MORE, **COMPILED}


class StopAfter(Stop):
    """A signal comes at the given look for one."""

    def __init__(self, looks):
        super().__init__()
        self.left = looks

    def check(self):
        self.left -= 1
        if self.left == 0:
            raise Stopped("stopped: by a test; go on", 75)


def start(*arguments, stop=None):
    return enter("train", lambda config: train.run(config, stop), list(arguments))


def repeated(name):
    return [argument for argument in ALL[name] if argument.startswith("env.id=")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted runs: name -> (digest, scalars)."""
    folder, known = tmp_path_factory.mktemp("whole"), {}

    def get(name):
        if name not in known:
            assert start(*ALL[name], *COMMON, f"run_dir={folder / name}") == 0
            known[name] = outcome(folder / name)
        return known[name]

    return get


@pytest.fixture(scope="module")
def first_part(tmp_path_factory):
    """Runs that were stopped after so many looks: (name, looks) -> (directory, what was said)."""
    known = {}

    def get(name, looks):
        if (name, looks) not in known:
            folder, said = tmp_path_factory.mktemp("first"), io.StringIO()
            keep = "checkpoint.keep=99"  # the first one too
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
                patch.chdir(folder)
                given = [*ALL[name], *COMMON, keep, "run_dir=first"]
                assert start(*given, stop=StopAfter(looks)) == 75
            known[name, looks] = folder / "first", said.getvalue()
        return known[name, looks]

    return get


@pytest.fixture
def stopped(first_part, tmp_path, monkeypatch):
    """A run that was stopped after so many looks, moved to another place: its new directory."""
    monkeypatch.chdir(tmp_path)

    def get(name, looks):
        first, said = first_part(name, looks)
        sys.stderr.write(said)
        return Path(shutil.copytree(first, "moved"))

    return get


@pytest.mark.parametrize(
    "name",
    [
        *("sac-pendulum", "a2c-cartpole", "a2c-pendulum", "a2c-counting-async", "ppo-cartpole"),
        "sac_discrete-cartpole",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                *("sac-mountaincar", "a2c-picture", "sac_discrete-picture", "sac-atoms"),
                *("sac-held", *COMPILED),
            )
        ),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_digest_and_the_same_curves(name, whole, stopped):
    """Stopped three times, at looks 3, 61 and 95 or so."""
    run = stopped(name, 3)
    for looks in (60, 36):  # two of them before the first step
        assert start(f"resume={run}", *repeated(name), stop=StopAfter(looks)) == 75
    assert not (run / "result.json").exists()
    assert start(f"resume={run}", *repeated(name)) == 0
    assert outcome(run) == whole(name)
    assert json.loads((run / "result.json").read_text())["exact"] is True
    assert not list(run.glob("tmp-*"))
    assert not (run / "lock").exists()


def test_a_run_that_was_stopped_in_its_best_evaluation_saves_it_when_it_goes_on(whole, stopped):
    run = stopped("sac-pendulum", 225)
    newest = run / "checkpoints" / checkpoint.names(run)[-1]
    assert newest.name == "step-000000000200"
    assert json.loads((newest / "state.json").read_text())["return_mean"] is None
    assert start(f"resume={run}") == 0
    assert outcome(run) == whole("sac-pendulum")
    assert whole("sac-pendulum")[1]["best"] == [(200, checkpoint.best_key(newest))]
    (newest / checkpoint.LATER).write_text('{"return_mean": 0.0, "sha256": "", "step": 200}')
    assert checkpoint.best_key(newest) == float("-inf")


PIECES = {
    "sac-pendulum": [
        *("agent/modules/actor", "agent/modules/critic", "agent/modules/critic_target"),
        *("agent/modules/temperature", "agent/modules/normalizer", "agent/optimizer/updates"),
        *("agent/optimizer/moments/critic", "agent/optimizer/moments/actor"),
        *("agent/optimizer/moments/alpha", "agent/optimizer/counts/critic"),
        *("agent/optimizer/counts/actor", "agent/optimizer/counts/alpha"),
        *("agent/generators/act", "agent/generators/update", "buffer/generator", "buffer/added"),
        *("buffer/sampled", "envs/backend/episodes", "envs/backend/actions", "envs/backend/ages"),
        *("envs/returns", "envs/lengths", "chores/logger", "rows"),
    ],
    "sac-compiled": [
        *("agent/optimizer/corrections/critic", "agent/optimizer/corrections/alpha"),
        "agent/optimizer/corrections/actor",
    ],
    "sac-atoms": ["agent/modules/returns"],  # beside those of the first
    "sac-held": ["agent/explored", "agent/held"],
    "a2c-cartpole": [
        *("agent/modules/actor", "agent/modules/critic", "agent/optimizer/moments/actor"),
        *("agent/optimizer/moments/critic", "agent/optimizer/counts/actor"),
        *("agent/optimizer/counts/critic", "agent/optimizer/updates", "agent/generators/act"),
        *("buffer/fields", "envs/backend/state", "envs/backend/steps", "envs/backend/generator"),
        *("envs/returns", "envs/finished"),
    ],
    "ppo-cartpole": [
        *("agent/modules/actor", "agent/modules/critic", "agent/modules/normalizer"),
        *("agent/optimizer/moments/actor", "agent/optimizer/moments/critic"),
        *("agent/optimizer/counts/actor", "agent/optimizer/counts/critic"),
        *("agent/optimizer/updates", "agent/generators/act", "agent/generators/update"),
        *("buffer/fields", "envs/backend/state", "envs/backend/generator"),
        *("envs/returns", "envs/lengths"),
    ],
    "sac_discrete-cartpole": [
        *("agent/modules/actor", "agent/modules/critic", "agent/modules/critic_target"),
        *("agent/modules/temperature", "agent/optimizer/moments/critic"),
        *("agent/optimizer/moments/actor", "agent/optimizer/moments/alpha"),
        *("agent/optimizer/counts/critic", "agent/optimizer/counts/actor"),
        *("agent/optimizer/counts/alpha", "agent/optimizer/updates", "agent/generators/act"),
        *("buffer/generator", "buffer/added", "buffer/sampled", "envs/backend/state"),
        *("envs/backend/generator", "envs/returns", "envs/lengths", "rows"),
    ],
}
OTHERS = {  # what else a checkpoint holds, and why leaving it out shows elsewhere or not at all
    "what the run is, not where it is": ("step", "return_mean", "config", "setting", "exact",
                                         "wall_seconds", "ranks", "others", "segments", "spaces",
                                         "lasting"),
    "constants of the run": ("buffer/capacity", "buffer/count", "envs/backend/seed",
                             "agent/optimizer/horizon"),
    "made again at each update": ("agent/optimizer/lr",),
    "false, or nothing is saved": ("agent/optimizer/diverged",),
    "held against what comes back": ("envs/obs", "envs/backend/rewards",
                                     "envs/backend/before"),
    "the replay's last row, and the rollout's cursor": ("buffer/following", "buffer/filled"),
    "nothing is drawn in updates": ("agent/generators/update",),
    "empty at that step, or shown by another run": (
        "agent/modules/normalizer", "envs/finished", "envs/lengths", "envs/backend/steps"),
    "read by compiled updates alone": ("agent/optimizer/corrections",),
    "read where uniform actions are held": ("agent/explored", "agent/held"),
    "of the log alone, or of when it is written": ("chores", "envs/steps"),
}  # fmt: skip
LOOKS = {  # mid-episode, and mid-rollout
    "sac-pendulum": 310, "sac-compiled": 310, "sac-atoms": 310, "sac-held": 61,
    "a2c-cartpole": 156, "ppo-cartpole": 91, "sac_discrete-cartpole": 150,
}  # fmt: skip
FRESH_CHORES = {"logger": {"rows": [], "arrays": {}, "flushes": 0}}  # at step 0 there is none


def paths(state, depth=4, before=""):
    """`a/b/c/d` of everything in a state, not deeper than the pieces go."""
    if not isinstance(state, dict) or not state or depth == 0:
        return [before]
    found = []
    for name, value in state.items():
        found += paths(value, depth - 1, f"{before}/{name}" if before else name)
    return found


@pytest.mark.parametrize("name", [name for name in PIECES if name not in COMPILED])
def test_the_pieces_are_all_there_are(name, stopped):
    run = stopped(name, LOOKS[name])
    state = checkpoint.load(run / "checkpoints" / checkpoint.names(run)[-1])
    known = [*PIECES[name], *(path for group in OTHERS.values() for path in group)]
    known += PIECES["sac-pendulum"] if name in ("sac-atoms", "sac-held") else []
    unknown = [path for path in paths(state)
               if not any(f"{path}/".startswith(f"{one}/") for one in known)]  # fmt: skip
    assert unknown == []


@pytest.mark.parametrize(
    ("name", "piece"),
    [
        pytest.param(name, piece, marks=[pytest.mark.slow] * (name not in RUNS))
        for name, pieces in PIECES.items()
        for piece in pieces
    ],
)
def test_every_piece_of_the_state_is_needed(name, piece, whole, stopped, monkeypatch):
    """With one piece as it was at the start, the end is another, or the run cannot go on."""
    run = stopped(name, LOOKS[name])
    fresh = checkpoint.load(run / "checkpoints" / checkpoint.names(run)[0])
    restore_buffer = Saver.restore_buffer  # which comes first, with the state that is taken up

    def blank(folder, records):
        return ({**rows, "obs": rows["obs"] * 0} for rows in read_segments(folder, records))

    def without(self, state, records):
        if piece == "rows":
            monkeypatch.setattr("runtime.saver.read_segments", blank)
            return restore_buffer(self, state, records)
        *parents, last = piece.split("/")
        place, old = state, fresh
        for part in parents:
            place, old = place[part], old[part] or FRESH_CHORES
        assert digest({"it": place[last]}) != digest({"it": old[last]}), "it is the same at first"
        place[last] = old[last]
        return restore_buffer(self, state, records)

    monkeypatch.setattr(Saver, "restore_buffer", without)
    code = start(f"resume={run}", *repeated(name))
    if code == 0:
        assert outcome(run) != whole(name)
    else:
        assert code in (3, 4)


def test_the_harness_itself_changes_nothing(whole, stopped, monkeypatch):
    """The negative control of the test above: nothing left out, nothing differs."""
    run = stopped("sac-pendulum", LOOKS["sac-pendulum"])
    assert start(f"resume={run}") == 0
    assert outcome(run) == whole("sac-pendulum")


# what a resumed run may change, and what it may not


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            "agent.hidden=[32]",
            "agent.hidden: [32] is not the run's value, [16]",
        ),
        ("agent.lr=1e-4", "agent.lr: 0.0001 is not the run's value"),
        ("env.id=CartPole-v1", "env.id: 'CartPole-v1' is not the run's value"),
        ("agent.buffer_size=5000", "agent.buffer_size: 5000 is not the run's value"),
        (
            "env=cartpole",
            "env.id: 'CartPole-v1' is not the run's value, 'Pendulum-v1'",
        ),
        ("agent=a2c", "agent: 'a2c' is not the run's value, 'sac'"),
        ("run_dir=elsewhere", "run_dir: 'elsewhere' is not "),
        ("seed=3", "seed: 3 is not the run's value, 0"),
        (
            "total_steps=200",
            "total_steps: 200 is less than the run's 300; give more",
        ),
        ("agent.hiden=[32]", "agent.hiden: is not a key; did you mean agent.hidden?"),
    ],
)
def test_a_changed_structure_is_refused_with_both_values(given, words, stopped, capsys):
    run = stopped("sac-pendulum", 80)
    before = sorted(os.walk(run))
    capsys.readouterr()
    assert start(f"resume={run}", given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {words}"), line
    assert sorted(os.walk(run)) == before


def test_the_same_command_with_auto_must_ask_for_the_same_run(stopped, capsys):
    run = stopped("sac-pendulum", 80)
    same = [*RUNS["sac-pendulum"], *COMMON, f"run_dir={run}", "resume=auto"]
    capsys.readouterr()
    assert start(*same, "agent.gamma=0.5") == 2
    assert "agent.gamma: 0.5 is not the run's value, 0.99" in (capsys.readouterr().err)


def test_what_the_run_has_may_be_repeated(stopped):
    run = stopped("sac-pendulum", 80)
    same = ["env=pendulum", "agent=sac", "seed=0", "agent.hidden=[16]", f"run_dir={run}"]
    assert train_config([f"resume={run}", *same]) == train_config([f"resume={run}"])


def test_the_command_that_began_a_run_goes_on_with_a_longer_one(stopped, capsys):
    run = stopped("sac-pendulum", 80)
    first = [*RUNS["sac-pendulum"], *COMMON, f"run_dir={run}", "resume=auto"]
    assert start(f"resume={run}", "total_steps=320") == 0
    capsys.readouterr()
    assert start(*first) == 0
    assert "is finished" in capsys.readouterr().out


def test_a_finished_run_whose_checkpoints_are_damaged_is_not_called_good(tmp_path, capsys):
    run = tmp_path / "run"
    assert start(*RUNS["sac-pendulum"], *COMMON, f"run_dir={run}") == 0
    capsys.readouterr()
    kept = checkpoint.names(run)
    for number, name in enumerate(reversed(kept)):
        assert start(f"resume={run}") == 0
        said = capsys.readouterr()
        assert "is finished" in said.out
        assert said.err.count("warning: ") == number
        (run / "checkpoints" / name / "state.json").write_text("{}")
    assert start(f"resume={run}") == 4


def test_a_configuration_that_was_edited_is_refused(stopped, capsys):
    run = stopped("sac-pendulum", 80)
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("- 16", "- 32"))
    capsys.readouterr()
    assert start(f"resume={run}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "agent.hidden: [32] is not the run's value, [16]" in line


def test_another_processor_ends_exactness_with_one_warning(stopped, monkeypatch, capsys):
    run = stopped("a2c-pendulum", 80)
    capsys.readouterr()
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "NEON")
    assert start(f"resume={run}") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: from here on this run may differ")
    assert "instructions was " in line
    assert "is NEON" in line


def test_an_environment_that_does_not_come_back_ends_exactness_with_one_warning(stopped, capsys):
    MORE["a2c-strayed"] = [
        *("env.id=tests.helpers:Counting-v0", "env.kwargs.length=7", "agent=a2c"),
        *("env.num_envs=1", "agent.n_steps=8", "agent.hidden=[8]", "total_steps=200"),
    ]
    ALL.update(MORE)
    run = stopped("a2c-strayed", 60)
    capsys.readouterr()
    assert start(f"resume={run}", *repeated("a2c-strayed")) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "Counting-v0 did not come back to its last observation and starts a new" in line
    assert json.loads((run / "result.json").read_text())["exact"] is False


def test_an_environment_that_does_not_come_back_ends_exactness_where_nothing_is_evaluated(
    tmp_path, monkeypatch
):
    """There are no copies in which it would have been found before."""
    monkeypatch.chdir(tmp_path)
    own = ["env.id=tests.helpers:Counting-v0"]
    run = [*own, "env.kwargs.length=7", "env.num_envs=1", "eval.episodes=0", "agent=a2c",
           "agent.n_steps=8", "agent.hidden=[8]", "agent.lr_schedule=constant"]  # fmt: skip
    exact = []
    for command in ([*run, "total_steps=64", "run_dir=run"],
                    ["resume=run", *own, "total_steps=128"]):  # fmt: skip
        assert start(*command) == 0
        exact.append(json.loads(Path("run/result.json").read_text())["exact"])
    assert exact == [True, False]


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
@pytest.mark.parametrize(("hidden", "exact"), [("true", False), ("false", True)])
def test_hidden_state_is_found_out_where_an_episode_has_just_begun(
    hidden, exact, ends, tmp_path, monkeypatch, capsys
):
    """Nothing of the new episode is there to tell: the one before it does."""
    monkeypatch.chdir(tmp_path)
    own = ["env.id=tests.helpers:Counting-v0"]
    run = [*own, "env.kwargs.length=20", "env.kwargs.show_episode=false", "agent=a2c",
           f"env.kwargs.pay_episode={hidden}", f"env.kwargs.ends={ends}", "env.num_envs=2",
           "agent.n_steps=8", "agent.lr_schedule=constant", "agent.hidden=[8]"]  # fmt: skip
    assert start(*run, *COMMON, "total_steps=80", "run_dir=run") == 0
    capsys.readouterr()
    assert start("resume=run", *own, "total_steps=160") == 0
    assert json.loads(Path("run/result.json").read_text())["exact"] is exact
    assert ("did not come back" in capsys.readouterr().err) is not exact
    if exact:
        assert start(*run, *COMMON, "total_steps=160", "run_dir=whole") == 0
        assert outcome(Path("run"))[0] == outcome(Path("whole"))[0]


def test_arguments_with_keys_that_are_no_texts_come_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = ["env.id=tests.helpers:Counting-v0"]
    run = [*own, "env.kwargs.reward={0:1,1:2}", "env.num_envs=1", "total_steps=40"]
    monkeypatch.setattr(helpers.Counting, "step", lambda self, action: (
        self.observe(), self.fixed[0], True, False, {}))  # fmt: skip
    assert start(*run, *COMMON, "agent=a2c", "agent.n_steps=8", "run_dir=run") == 0
    assert start("resume=run", *own, "total_steps=80") == 0


def test_a_run_goes_on_where_its_updates_cannot_be_compiled(stopped, monkeypatch, capsys):
    """With one warning, and told to be not exact."""
    run = stopped("a2c-pendulum", 80)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("accelerate: none", "accelerate: compile"))
    monkeypatch.setattr(automatic, "compiler", lambda: None)
    assert train_config([f"resume={run}"]).accelerate == "none"
    monkeypatch.setattr(automatic, "compiler", lambda: "g++")
    assert train_config([f"resume={run}"]).accelerate == "compile"

    def broken(*_):
        raise ConfigError("accelerate: compile failed, no memory; use accelerate=none")

    monkeypatch.setattr("runtime.build.accelerate", broken)
    capsys.readouterr()
    assert start(f"resume={run}") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "warning: accelerate: compile failed, no memory"


def test_what_an_update_was_accelerated_by_is_a_part_of_the_setting():
    before, after = (
        setting(train_config([f"accelerate={mode}"]), torch.device("cpu"))
        for mode in ("compile", "none")
    )
    before["revision"] = "another, which alone ends nothing"
    assert changes(before, after) == ["accelerate was compile, is none"]


def test_other_code_of_the_environment_ends_exactness_with_one_warning(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = Path(helpers.__file__).read_text().replace("Counting-v0", "Other-v0")
    Path("others.py").write_text(text.replace("Picture-v0", "OtherPicture-v0"))
    run = ["env.id=others:Other-v0", "env.num_envs=1", "agent=a2c", "agent.n_steps=8"]
    assert start(*run, *COMMON, "total_steps=40", "run_dir=run") == 0
    capsys.readouterr()
    with open("others.py", "a") as file:
        file.write("# other\n")
    assert start("resume=run", run[0], "total_steps=80") == 0
    assert "the environment's code was " in capsys.readouterr().err
    assert json.loads(Path("run/result.json").read_text())["exact"] is False


def test_a_run_is_never_made_shorter(stopped, capsys):
    run = stopped("a2c-pendulum", 80)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("total_steps: 400", "total_steps: 300"))
    capsys.readouterr()
    assert start(f"resume={run}") == 2
    assert "total_steps: 300 is not the run's value, 400" in capsys.readouterr().err


def test_other_code_ends_exactness_with_one_warning(stopped, tmp_path, monkeypatch, capsys):
    run = stopped("a2c-pendulum", 80)
    capsys.readouterr()
    commits = iter(["f" * 40])  # asked once: that of the beginning counts, not that of the end
    monkeypatch.setattr("storage.provenance.revision", lambda: next(commits))
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "sac.py").write_text("other = True")
    monkeypatch.setattr("storage.provenance.ROOT", tmp_path)  # where no git is, too
    assert start(f"resume={run}") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r": code was [0-9a-f]{12}, is [0-9a-f]{12}$", line)
    result = json.loads((run / "result.json").read_text())
    assert (result["revision"], result["exact"]) == ("f" * 40, False)


def test_rows_that_are_no_tensors_are_refused_though_their_hash_is_right(stopped, capsys):
    run = stopped("sac-pendulum", LOOKS["sac-pendulum"])
    path = run / "checkpoints" / checkpoint.names(run)[-1]
    manifest = json.loads((path / "manifest.json").read_text())
    (record, *_), content = manifest["segments"], b"\xff" * 100
    (run / "replay" / record["name"]).write_bytes(content)
    record.update(seal(content))
    manifest["sha256"] = seal_of(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    assert start(f"resume={run}") == 4
    assert capsys.readouterr().err.startswith("error: checkpoint: does not fit, ")


def test_rows_of_a_save_that_failed_do_not_fill_the_disk_further(stopped, monkeypatch):
    def full(*arguments):
        raise StorageFault("checkpoint: no room; free the disk")

    run = stopped("sac-pendulum", 80)
    before = sorted(path.name for path in (run / "replay").iterdir())
    monkeypatch.setattr(checkpoint, "save", full)
    assert start(f"resume={run}") == 4
    assert sorted(path.name for path in (run / "replay").iterdir()) == before


def test_other_threads_end_exactness_with_one_warning(stopped, capsys):
    run = stopped("a2c-pendulum", 80)
    capsys.readouterr()
    assert start(f"resume={run}", "threads=2") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: from here on this run may differ")
    assert "threads was 1, is 2" in line
    assert json.loads((run / "result.json").read_text())["exact"] is False


def test_a_run_that_was_not_exact_stays_so(stopped, capsys):
    run = stopped("a2c-pendulum", 80)
    assert start(f"resume={run}", "threads=2") == 0
    capsys.readouterr()
    assert start(f"resume={run}", "threads=2", "total_steps=500") == 0
    assert "may differ" not in capsys.readouterr().err
    assert json.loads((run / "result.json").read_text())["exact"] is False


def test_more_steps_are_the_longer_run(stopped, whole, tmp_path):
    """A finished run goes on to more steps, as the run that was that long from the start."""
    name = "a2c-pendulum"
    fixed = [*RUNS[name], *COMMON, "agent.lr_schedule=constant", "eval.every=150", "audit.every=45"]
    assert start(*fixed, "total_steps=300", "run_dir=long") == 0
    assert start(*fixed, "total_steps=200", "run_dir=short") == 0
    result = Path("short/result.json").read_text()
    assert start("resume=short") == 0  # finished: nothing happens
    assert Path("short/result.json").read_text() == result
    assert start("resume=short", "total_steps=300") == 0
    assert outcome(Path("short"))[0] == outcome(Path("long"))[0]
    assert "total_steps: 300" in Path("short/config.yaml").read_text()


def test_steps_after_the_end_of_a_schedule_are_warned_of(tmp_path, capsys):
    command = ["env=cartpole", "agent.lr_schedule=linear", "agent.hidden=[8]", "eval.episodes=1",
               f"run_dir={tmp_path / 'run'}"]  # fmt: skip
    assert enter("train", train.run, [*command, "total_steps=1280"]) == 0
    capsys.readouterr()
    assert enter("train", train.run, [f"resume={tmp_path / 'run'}", "total_steps=2560"]) == 0
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("warning")]
    assert "has fallen to 0 at step 1,280" in line


def test_auto_begins_where_there_is_no_checkpoint_and_never_over_damaged_ones(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    same = [*RUNS["a2c-pendulum"], *COMMON, "run_dir=run", "resume=auto"]
    Path("run/tmp-1").mkdir(parents=True)
    assert start(*same, stop=StopAfter(50)) == 75
    assert [path.name for path in Path(".").iterdir()] == ["run"]
    for path in Path("run/checkpoints").glob("*/state.json"):
        path.write_text("{}")
    assert start(*same) == 4
    shutil.rmtree("run/checkpoints")
    assert start("resume=run") == 4  # asked to go on, it does not begin anew
    assert start(*same) == 0
    assert start("resume=auto", "env=pendulum") == 2  # where?
    assert start("resume=nowhere") == 2


def test_a_module_is_imported_only_where_the_command_line_names_it(stopped, tmp_path, capsys):
    name = "a2c-counting-async"
    run = stopped(name, 70)
    (tmp_path / "evil_module.py").write_text("open('imported', 'w')")
    path = run / "config.yaml"
    right = path.read_text()
    for id_ in ("evil_module:Evil-v0", "tests.helpers:Counting-v0"):
        path.write_text(right.replace("tests.helpers:Counting-v0", id_))
        capsys.readouterr()
        assert start(f"resume={run}") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"repeat env.id={id_}" in line
    assert not Path("imported").exists()
    assert start(f"resume={run}", *repeated(name)) == 0


def test_a_module_may_be_named_by_a_file_of_the_checkout(stopped, tmp_path, monkeypatch, capsys):
    name = "a2c-counting-async"
    run = stopped(name, 70)
    said = capsys.readouterr().err
    assert said.endswith("train.py resume=first env.id=tests.helpers:Counting-v0\n")
    copy = tmp_path / "configs"
    shutil.copytree(files.DIRECTORY, copy)
    monkeypatch.setattr(files, "DIRECTORY", copy)
    (copy / "env/counting.yaml").write_text(
        "id: tests.helpers:Counting-v0\nnum_envs: auto\nvectorization: auto\nkwargs: {}\n"
        "timeout: 60\n"
    )
    assert start(f"resume={run}", "env=cartpole") == 2
    assert "error: env.id: the run would import" in capsys.readouterr().err
    assert start(f"resume={run}", "env=counting") == 0
    play = partial(enter, "evaluate", evaluate.run)
    assert play([f"run={run}", "env=counting", "episodes=1"]) == 0
    assert play([f"run={run}", "episodes=1"]) == 2
    assert play([f"run={run}", "env=cartpole", "episodes=1"]) == 2
    assert "error: env.id: the run would import" in capsys.readouterr().err


def test_another_environment_than_the_run_s_is_not_evaluated(stopped, capsys):
    run = stopped("a2c-pendulum", 80)
    capsys.readouterr()
    assert enter("evaluate", evaluate.run, [f"run={run}", "env=cartpole"]) == 2
    assert capsys.readouterr().err.startswith("error: env: CartPole-v1 is not the run's, Pendulum-")


def test_upon_another_kind_of_device_updates_are_accelerated_as_suits_it():
    on_gpu = train_config(["device=cuda:0"])
    moved, _ = resumed(on_gpu, {"device": "cpu"}, "run")
    assert (on_gpu.accelerate, moved.accelerate) == ("cudagraph", "none")
    assert resumed(on_gpu, {"device": "cuda:1"}, "run")[0].accelerate == "cudagraph"
    back, _ = resumed(moved, {"device": "cuda"}, "run")
    assert back.accelerate == "cudagraph"
    assert not differing(dataclasses.asdict(on_gpu), moved)


def test_a_resumed_configuration_keeps_what_auto_had_chosen(stopped):
    run = stopped("sac-pendulum", 80)
    first = train_config([*RUNS["sac-pendulum"], *COMMON])
    again = train_config([f"resume={run}", "log.every=7", "checkpoint.keep=1"])
    assert again.log.every == 7
    assert again.agent == first.agent
    assert (again.threads, again.accelerate) == (first.threads, first.accelerate)
    with pytest.raises(ConfigError, match="is not a run directory"):
        train_config(["resume=missing"])


def test_a_run_from_before_a_key_was_there_goes_on_and_no_other_key_is_made_up(tmp_path):
    config = train_config(["env=pendulum", "agent=sac"])
    text = to_yaml(config)
    for key, there in (("actor_tau", True), ("tau", False)):
        (tmp_path / "config.yaml").write_text(re.sub(rf"\n  {key}: .*", "", text))
        if there:
            assert read_run(tmp_path) == config
        else:
            with pytest.raises(ConfigError, match=r"agent\.tau: is missing"):
                read_run(tmp_path)
    recorded = json.loads(json.dumps(dataclasses.asdict(config)))
    del recorded["agent"]["actor_tau"]
    assert differing(recorded, config) == ()
    other = dataclasses.replace(config, agent=dataclasses.replace(config.agent, actor_tau=0.5))
    assert differing(recorded, other) == (("agent.actor_tau", "1.0", "0.5"),)
