"""Where a policy meets an environment or a run: it plays in the spaces it was made in.

And what is stored: runs of earlier revisions, checkpoints of other runs, memory that is short.
"""

import copy
import errno
import hashlib
import json
import os
import re
import shutil
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import evaluate
import policies
import train
from common import limits
from common.errors import ConfigError, Damaged, StorageFault, as_data
from configs.compose import train_config
from envs.spaces import LISTED, describe, require_same_spaces
from runtime.build import make_parts
from runtime.deploy.film import film
from runtime.deploy.trained import open_trained
from runtime.launch.door import enter
from runtime.launch.ranks import Ranks
from runtime.saver import Saver
from storage import checkpoint, provenance, segments
from tests.faults.harness import outcome
from tools import export

ID = "tests.test_meeting:Own-v0"
Box, Discrete = spaces.Box, spaces.Discrete
f32 = np.float32


def box(low, high, shape=None, dtype=f32):
    low, high = (np.array(b, dtype) if isinstance(b, list) else b for b in (low, high))
    return Box(low, high, shape, dtype)


KINDS = {  # name -> (observation space, action space)
    "box": (box(-1, 1, (3,)), box([-3.0, 0.0], [1.0, 10.0])),
    "parts": (
        spaces.Dict({"arm": box(-1, 1, (2,)), "word": Discrete(4, start=1)}),
        Discrete(5, start=2),
    ),
    "several": (spaces.MultiDiscrete([3, 4]), spaces.MultiDiscrete([3, 4])),
}
NOW = dict(KINDS)  # what the environments have today
SHOWN = {}  # where a camera looks on, these instead


class Own(gymnasium.Env):
    """An environment of one's own, whose file may be edited after a run was made in it."""

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 9}  # noqa: RUF012

    def __init__(self, kind="box", render_mode=None):
        self.render_mode = render_mode
        chosen = SHOWN.get(kind, NOW[kind]) if render_mode else NOW[kind]
        self.observation_space, self.action_space = copy.deepcopy(chosen)  # which draw, each alone

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.count = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.count += 1
        reward = float(np.sum(action))
        return self.observation_space.sample(), reward, False, self.count == 5, {}


gymnasium.register("Own-v0", entry_point=Own)
TINY = ["agent=a2c", "agent.hidden=[8]", "agent.n_steps=5", "eval.episodes=2", "threads=1",
        "agent.gamma=0.95", "agent.lr_schedule=constant"]  # fmt: skip
play = partial(enter, "evaluate", evaluate.run)
learn = partial(enter, "train", train.run)


def own(kind):
    return [f"env.id={ID}", f"env.kwargs.kind={kind}"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """kind -> a finished run in it, with a file and its certificate, which nobody looks into."""
    folder, known = tmp_path_factory.mktemp("made"), {}

    def get(kind):
        if kind not in known:
            known[kind] = path = folder / kind
            steps = ["total_steps=40", "env.num_envs=2"]
            assert learn([*own(kind), *TINY, *steps, f"run_dir={path}"]) == 0
            pretend_to_export(path)
        return known[kind]

    return get


def pretend_to_export(run):
    (run / "policy.onnx").write_bytes(b"not looked at, for the spaces come first")
    certificate = {
        "sha256": hashlib.sha256((run / "policy.onnx").read_bytes()).hexdigest(),
        "checkpoint_step": 40,
        "spaces": checkpoint.load_newest(run)[1]["spaces"],
    }
    (run / "policy.onnx.json").write_text(json.dumps(certificate))


def load(run):
    """`policies.load` as if it were a door."""

    def work(config):
        policies.load(run, env_id=ID)
        return 0

    return enter("evaluate", work, [f"run={run}"])


DOORS = {
    "evaluate": lambda run, kind: play([f"run={run}", f"env.id={ID}", "episodes=1"]),
    "load": lambda run, kind: load(run),
    "export": lambda run, kind: export.main([f"run={run}", "episodes=1", f"env.id={ID}"]),
    "resume": lambda run, kind: learn([f"resume={run}", f"env.id={ID}", "total_steps=80"]),
    "auto": lambda run, kind: learn([*own(kind), *TINY, "env.num_envs=2", f"run_dir={run}",
                                     "resume=auto", "total_steps=80"]),
    "file": lambda run, kind: play([f"policy={run / 'policy.onnx'}", *own(kind), "episodes=1"]),
}  # fmt: skip
ARM = {"arm": box(-1, 1, (2,))}
CHANGES = {  # (kind, its spaces now, the space that differs, what it was, what it is)
    "wider actions": (
        "box", (KINDS["box"][0], box([-30.0, 0.0], [1.0, 10.0])), "action",
        "Box([-3.0, 0.0], [1.0, 10.0], (2,), float32)",
        "Box([-30.0, 0.0], [1.0, 10.0], (2,), float32)",
    ),
    "actions swapped": (
        "box", (KINDS["box"][0], box([0.0, -3.0], [10.0, 1.0])), "action",
        "Box([-3.0, 0.0]", "Box([0.0, -3.0], [10.0, 1.0]",
    ),
    "another default of observations": (
        "box", (box(-2, 2, (3,)), KINDS["box"][1]), "observation",
        "Box(-1.0, 1.0, (3,), float32)", "Box(-2.0, 2.0, (3,), float32)",
    ),
    "one observation more": (
        "box", (box(-1, 1, (4,)), KINDS["box"][1]), "observation",
        "Box(-1.0, 1.0, (3,), float32)", "Box(-1.0, 1.0, (4,), float32)",
    ),
    "one action more": (
        "box", (KINDS["box"][0], box([-3.0, 0.0, 0.0], [1.0, 10.0, 1.0])), "action",
        "(2,), float32)", "(3,), float32)",
    ),
    "start": (
        "parts", (KINDS["parts"][0], Discrete(5, start=3)), "action",
        "Discrete(5, start=2)", "Discrete(5, start=3)",
    ),
    "no start": (
        "parts", (KINDS["parts"][0], Discrete(5)), "action", "Discrete(5, start=2)", "Discrete(5)",
    ),
    "one choice more": (
        "parts", (KINDS["parts"][0], Discrete(6, start=2)), "action",
        "Discrete(5, start=2)", "Discrete(6, start=2)",
    ),
    "the start of a part": (
        "parts", (spaces.Dict({**ARM, "word": Discrete(4)}), KINDS["parts"][1]), "observation",
        "'word': Discrete(4, start=1))", "'word': Discrete(4))",
    ),
    "a part by another name": (
        "parts", (spaces.Dict({**ARM, "zord": Discrete(4, start=1)}), KINDS["parts"][1]),
        "observation", "'word': Discrete(4, start=1))", "'zord': Discrete(4, start=1))",
    ),
    "choices swapped": (
        "several", (KINDS["several"][0], spaces.MultiDiscrete([4, 3])), "action",
        "MultiDiscrete([3, 4])", "MultiDiscrete([4, 3])",
    ),
    "observations swapped": (
        "several", (spaces.MultiDiscrete([4, 3]), KINDS["several"][1]), "observation",
        "MultiDiscrete([3, 4])", "MultiDiscrete([4, 3])",
    ),
}  # fmt: skip


THROUGH = [  # every change through one door, and through every door one of each kind
    *((change, "evaluate") for change in CHANGES),
    *((change, door) for change in ("wider actions", "one observation more", "start")
      for door in DOORS if door != "evaluate"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "door"), THROUGH)
def test_a_policy_plays_in_the_spaces_it_was_made_in_and_in_no_other(
    change, door, made, monkeypatch, capsys
):
    kind, now, which, was, is_ = CHANGES[change]
    run = made(kind)
    before = {path: path.stat().st_mtime_ns for path in sorted(run.rglob("*")) if path.is_file()}
    monkeypatch.setitem(NOW, kind, now)
    capsys.readouterr()
    assert DOORS[door](run, kind) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: env {ID}: its {which} space is ")
    here, there = line.split(", and the policy was made in ")
    assert is_ in here
    assert was in there
    assert there.endswith("; give it the environment it was made in or train anew")
    after = {path: path.stat().st_mtime_ns for path in sorted(run.rglob("*")) if path.is_file()}
    assert after == before


@pytest.mark.parametrize("door", ["evaluate", "load", "resume", "auto"])
def test_in_its_own_spaces_it_plays_through_every_door(door, made, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(made("parts"), run)
    assert DOORS[door](run, "parts") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("door", "more"), [(film, {}), (None, {"render": "human"})])
def test_before_a_camera_too(door, more, made, monkeypatch):
    monkeypatch.setitem(SHOWN, "box", (KINDS["box"][0], box(-1, 1, (2,))))
    told = r"its action space is Box\(-1\.0, 1\.0, \(2,\), float32\), and the policy was made in"

    def show():
        trained = open_trained(str(made("box")), env_id=ID, **more)
        trained.evaluator.close()
        if door is not None:
            door(trained.agent, trained.evaluator, trained.step, trained.path, "film", True)

    with pytest.raises(ConfigError, match=told):
        show()


def test_both_spaces_are_recorded_in_every_checkpoint(made):
    expected = {
        "observation": "Dict('arm': Box(-1.0, 1.0, (2,), float32), 'word': Discrete(4, start=1))",
        "action": "Discrete(5, start=2)",
    }
    run = made("parts")
    for name in checkpoint.names(run):
        assert checkpoint.load(run / "checkpoints" / name)["spaces"] == expected


def test_what_was_made_before_spaces_were_recorded_goes_on(made, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    shutil.copytree(made("parts"), run)
    rewritten(run, lambda state: state.pop("spaces"))
    monkeypatch.setitem(NOW, "parts", (KINDS["parts"][0], Discrete(5, start=3)))
    for door in ("evaluate", "load", "resume"):
        assert DOORS[door](run, "parts") == 0
    assert checkpoint.load_newest(run)[1]["spaces"]["action"] == "Discrete(5, start=3)"


def rewritten(run, change):
    """The newest checkpoint of a run, saved anew after a change of its state."""
    newest = checkpoint.names(run)[-1]
    state = checkpoint.load(run / "checkpoints" / newest)
    records = checkpoint.open_manifest(run / "checkpoints" / newest)["segments"]
    change(state)
    checkpoint.save(run, int(newest[5:]), state, 9, records)


# the text of a space

LONG = np.linspace(0.0, 1.0, LISTED + 1, dtype=f32)
DIFFERENT = [
    box(-1, 1, (2,)), box(-1, 2, (2,)), box(-2, 1, (2,)), box([-1.0, -2.0], [1.0, 1.0]),
    box([-2.0, -1.0], [1.0, 1.0]), box(-1, 1, (3,)), box(-1, 1, (2, 1)), box(-1, 1, (1, 2)),
    box(-1, 1, (2,), np.float64), box(-1, np.nextafter(f32(1), f32(2)), (2,)),
    box(-np.inf, np.inf, (2,)), box(0, 255, (4, 4, 3), np.uint8), box(0, 254, (4, 4, 3), np.uint8),
    Box(-LONG, LONG, dtype=f32), Box(-LONG, np.nextafter(LONG, f32(2)), dtype=f32),
    Box(-LONG[::-1], LONG, dtype=f32), Box(-LONG[None], LONG[None], dtype=f32),
    Discrete(5), Discrete(6), Discrete(5, start=1), Discrete(5, start=-1),
    spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([3, 2]), spaces.MultiDiscrete([[2, 3]]),
    spaces.MultiDiscrete([2, 3], start=[0, 1]), spaces.MultiDiscrete([2, 3], start=[1, 0]),
    spaces.MultiDiscrete([2, 2]), spaces.MultiBinary(2), spaces.MultiBinary((2, 1)),
    spaces.MultiBinary(3), spaces.Tuple((Discrete(2), Discrete(3))),
    spaces.Tuple((Discrete(3), Discrete(2))), spaces.Tuple((Discrete(2),)), Discrete(2),
    spaces.Dict({"a": Discrete(2), "b": Discrete(3)}),
    spaces.Dict({"a": Discrete(3), "b": Discrete(2)}), spaces.Dict({"a": Discrete(2)}),
    spaces.Dict({"b": Discrete(2)}), spaces.Dict({"a": spaces.Dict({"b": Discrete(2)})}),
    spaces.Dict({"a: Discrete(2), b": Discrete(3)}), spaces.Dict(b=Discrete(2), a=Discrete(3)),
    Box(-LONG, LONG + 1, dtype=f32), Box(-LONG, LONG + 1 + f32(LONG == 1), dtype=f32),
    spaces.MultiDiscrete([2] * 18), spaces.MultiDiscrete([[2] * 9] * 2),
    spaces.Text(3, charset="ab"), spaces.Text(3, charset="ba"), spaces.Text(4, charset="ab"),
    spaces.OneOf((Discrete(2), Discrete(3))), spaces.OneOf((Box(-LONG, LONG, dtype=f32),)),
    spaces.OneOf((Box(-LONG, np.nextafter(LONG, f32(2)), dtype=f32),)),
]  # fmt: skip


def test_two_spaces_share_a_text_exactly_if_a_policy_means_the_same_in_them():
    texts = [describe(space) for space in DIFFERENT]
    assert len(set(texts)) == len(DIFFERENT)
    assert max(map(len, texts)) < 200
    again = copy.deepcopy(DIFFERENT)
    for number, space in enumerate(again):
        space.seed(number)
    assert [describe(space) for space in again] == texts
    assert describe(box([-0.0, 0.0], [1.0, 1.0])) == describe(box(0, 1, (2,)))


def test_the_vectorisations_of_an_environment_have_the_same_spaces():
    from envs.envs import Envs

    told = []
    for vectorization in ("native", "sync"):
        envs = Envs("CartPole-v1", 1, vectorization, {}, 0)
        told.append(envs.spaces)
        envs.close()
    assert told[0] == told[1]


def test_long_spaces_are_told_where_they_differ_in_one_short_line():
    parts = {f"joint{i:02}": box(-1, 1, (1,)) for i in range(40)}
    was = {"observation": describe(spaces.Dict(parts))}
    parts["joint25"] = box(-1, 7, (1,))
    with pytest.raises(ConfigError) as caught:
        require_same_spaces("Own-v0", was, {"observation": describe(spaces.Dict(parts))})
    line = str(caught.value)
    assert len(line) < 380
    assert "'joint25': Box(-1.0, 7.0, " in line.split(", and the policy")[0]
    assert "'joint25': Box(-1.0, 1.0, " in line.split(", and the policy")[1]


# a notebook


def test_a_notebook_s_observations_are_such_as_the_space_has(tmp_path):
    run = tmp_path / "run"
    arguments = ["env.id=tests.helpers:Picture-v0", "env.kwargs.discrete=true", "agent=a2c"]
    assert learn([*arguments, *TINY[1:], "total_steps=20", "env.num_envs=2", f"run_dir={run}"]) == 0
    policy = policies.load(run, env_id="tests.helpers:Picture-v0")
    shape = policy.obs_shape
    picture = np.full(shape, 200, np.uint8)
    right = policy(picture)
    assert policy(picture.astype(np.uint16)) == right
    for wrong in (picture / 255, picture.astype(int) + 100, -picture.astype(int), picture * np.nan):
        with pytest.raises(ValueError, match=r"observation has .*uint8"):
            policy(wrong)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e39])
def test_a_notebook_s_numbers_are_finite(wrong, made):
    policy = policies.load(made("box"), env_id=ID)
    policy([9.0, 0.0, 0.0])  # beyond the bounds, which many environments leave
    with pytest.raises(ValueError, match=r"observation .* is not finite"):
        policy([0.0, wrong, 0.0])


# a checkpoint of another run

PLAIN = ["env=pendulum", *TINY, "env.num_envs=2", "eval.every=1000", "log.every=1000",
         "checkpoint.every=20", "checkpoint.keep=9"]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two of the same settings but for what is named: (its own, the other)."""
    folder = tmp_path_factory.mktemp("runs")
    for name, more in {
        "own": ["total_steps=60"],
        "seed": ["total_steps=80", "seed=1"],
        "settings": ["total_steps=80", "seed=1", "agent.hidden=[9]", "agent.gamma=0.5"],
        "gamma": ["total_steps=80", "agent.gamma=0.5"],
    }.items():
        assert learn([*PLAIN, *more, f"run_dir={folder / name}"]) == 0
    return folder


@pytest.fixture
def mixed(runs, tmp_path):
    """A run in which the newest and best checkpoint, of step 80, is another's."""

    def get(other):
        shutil.copytree(runs / "own", tmp_path / "run")
        state = checkpoint.load(runs / other / "checkpoints" / "step-000000000080")
        checkpoint.save(tmp_path / "run", 80, state | {"return_mean": 1e9}, 9)
        return tmp_path / "run"

    return get


OTHERS = {
    "seed": "seed was 1, is 0",
    "settings": "seed was 1, is 0, agent.hidden was [9], is [8], agent.gamma was 0.5, is 0.95",
    "gamma": "agent.gamma was 0.5, is 0.95",
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_checkpoint_of_another_run_is_passed_over(other, mixed, runs, tmp_path, capsys):
    run = mixed(other)
    foreign = run / "checkpoints" / "step-000000000080"
    told = (f"checkpoint {foreign} is of another run ({OTHERS[other]}): state.json; "
            "using step-000000000060")  # fmt: skip
    capsys.readouterr()
    for which in ("latest", "best"):
        assert play([f"run={run}", "episodes=1", f"checkpoint={which}"]) == 0
        assert f"warning: {told}" in capsys.readouterr().err.splitlines()
        assert json.loads((run / "evaluation.json").read_text())["checkpoint_step"] <= 60
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        policies.load(run)
    assert [str(warning.message) for warning in caught] == [told]
    assert play([f"run={run}", "episodes=1", f"checkpoint={foreign.name}"]) == 4
    capsys.readouterr()
    longer = ["total_steps=120", "checkpoint.keep=1", "checkpoint.every=60"]
    assert learn([f"resume={run}"]) == 0  # it is finished
    assert capsys.readouterr().err.splitlines() == [f"warning: {told}"]
    assert learn([f"resume={run}", *longer]) == 0
    assert capsys.readouterr().err.splitlines() == [f"warning: {told}"]
    shutil.copytree(runs / "own", tmp_path / "alone")
    assert learn([f"resume={tmp_path / 'alone'}", *longer]) == 0
    assert outcome(run)[0] == outcome(tmp_path / "alone")[0]
    kept = checkpoint.names(tmp_path / "alone")
    assert checkpoint.names(run) == sorted([*kept, foreign.name])  # it pushes none of them out


@pytest.mark.parametrize("other", ["seed", "settings"])
def test_where_only_those_of_another_run_are_left_it_is_a_storage_fault(other, mixed, capsys):
    run = mixed(other)
    own_ones = checkpoint.names(run)[:-1]
    for name in own_ones:
        (run / "checkpoints" / name).rename(run / name)
    for door in (
        lambda: play([f"run={run}", "episodes=1"]),
        lambda: load_plain(run),
        lambda: export.main([f"run={run}", "episodes=1"]),
        lambda: learn([f"resume={run}", "total_steps=120"]),
    ):
        capsys.readouterr()
        assert door() == 4
        (line,) = capsys.readouterr().err.splitlines()
        assert f"is of another run ({OTHERS[other]}): state.json; this run has none left" in line
    (run / own_ones[-1]).rename(run / "checkpoints" / own_ones[-1])  # restored
    assert learn([f"resume={run}", "total_steps=70"]) == 0


def load_plain(run):
    def work(config):
        policies.load(run)
        return 0

    return enter("evaluate", work, [f"run={run}"])


def test_a_configuration_edited_is_still_told_as_that(runs, tmp_path, capsys):
    """With the same seed, environment and agent it is config.yaml that differs."""
    run = tmp_path / "run"
    shutil.copytree(runs / "own", run)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("gamma: 0.95", "gamma: 0.5"))
    for name in checkpoint.names(run)[:-1]:
        shutil.rmtree(run / "checkpoints" / name)
    capsys.readouterr()
    assert learn([f"resume={run}", "total_steps=70"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == ("error: agent.gamma: 0.5 is not the run's value, 0.95; restore "
                    "config.yaml")  # fmt: skip
    assert play([f"run={run}", "episodes=1"]) == 4
    (run / "config.yaml").write_text(text)
    assert learn([f"resume={run}", "total_steps=70"]) == 0


# memory, handles and rights that are short


def newest_of(runs, tmp_path):
    shutil.copytree(runs / "own", tmp_path / "run")
    return tmp_path / "run"


def test_a_good_file_is_not_called_damaged_where_memory_is_short(
    runs, tmp_path, monkeypatch, capsys
):
    """And no older one is taken in its place; with the memory freed it is read."""
    run = newest_of(runs, tmp_path)
    size = (run / "checkpoints/step-000000000060/state.safetensors").stat().st_size
    capsys.readouterr()
    with monkeypatch.context() as short:
        short.setattr(limits, "limits", lambda device: iter([("the control group", size)]))
        assert play([f"run={run}", "episodes=1"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    needed, free = f"{2 * size / 2**20:,.1f} MiB", f"{size / 2**20:,.1f} MiB"
    assert line.endswith(f"step-000000000060/state.safetensors: to read it takes {needed} of "
                         f"memory and the control group leaves {free}; free memory for "
                         "it")  # fmt: skip
    assert play([f"run={run}", "episodes=1"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), r"to read it takes .* MiB of memory.*; free memory for it"),
        (OSError(12, "Cannot allocate memory"), "cannot be read, Cannot allocate memory; try"),
        (OSError(24, "Too many open files"), "cannot be read, Too many open files; try again"),
        (OSError(13, "Permission denied"), "cannot be read, Permission denied; make it readable"),
    ],
)
@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "manifest.json"])
def test_nor_where_anything_else_is(error, words, file, runs, tmp_path, monkeypatch, capsys):
    if file == "manifest.json" and isinstance(error, MemoryError):
        pytest.skip("a kilobyte")
    run = newest_of(runs, tmp_path)
    read = Path.read_bytes

    def failing(path):
        if path.name == file and "step-000000000060" in str(path):
            raise error
        return read(path)

    capsys.readouterr()
    with monkeypatch.context() as short:
        short.setattr(Path, "read_bytes", failing)
        assert play([f"run={run}", "episodes=1"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"step-000000000060/{re.escape(file)}: {words}", line)
    assert play([f"run={run}", "episodes=1"]) == 0


def test_a_file_that_the_disk_cannot_read_is_damaged(runs, tmp_path, monkeypatch, capsys):
    run = newest_of(runs, tmp_path)
    read = Path.read_bytes

    def failing(path):
        if path.name == "state.json" and "step-000000000060" in str(path):
            raise OSError(5, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    capsys.readouterr()
    assert play([f"run={run}", "episodes=1"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("is damaged (Input/output error): state.json; using step-000000000040")


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")],
)
def test_memory_that_runs_out_while_a_state_is_taken_up_is_told(
    error, runs, tmp_path, monkeypatch, capsys
):
    def failing(self, state):
        raise error

    run = newest_of(runs, tmp_path)
    with monkeypatch.context() as short:
        short.setattr("agents.base.BaseAgent.load_weights", failing)
        for door in (partial(play, [f"run={run}"]), partial(learn, [f"resume={run}", MORE])):
            capsys.readouterr()
            assert door() == 4
            assert "checkpoint: there is not enough memory to load it" in capsys.readouterr().err
    assert learn([f"resume={run}", MORE]) == 0


MORE = "total_steps=80"


# what does not fit


@pytest.fixture
def elsewhere(monkeypatch):
    monkeypatch.setattr(provenance, "revision", lambda: "f" * 40)


def test_weights_of_another_shape_are_told_whole(runs, tmp_path, monkeypatch, capsys):
    run = newest_of(runs, tmp_path)

    def wider(state):
        weight = state["agent"]["modules"]["actor"]
        weight["mean.weight"] = torch.ones(1, 9)

    rewritten(run, wider)
    for revision in (state_of(run)["setting"]["revision"], "f" * 40):
        monkeypatch.setattr(provenance, "revision", lambda revision=revision: revision)
        for door in (partial(play, [f"run={run}"]), partial(learn, [f"resume={run}", MORE])):
            capsys.readouterr()
            assert door() == 4
            (line,) = capsys.readouterr().err.splitlines()
            assert "size mismatch for mean.weight: copying a param with shape" in line
            assert (
                "[1, 9]) from checkpoint, the shape in current model is torch.Size([1, 8])" in line
            )
            assert ("made by revision" in line) is (revision == "f" * 40)


def state_of(run):
    return checkpoint.load_newest(run)[1]


def test_a_key_that_another_revision_did_not_have_is_told_with_both(
    runs, tmp_path, elsewhere, capsys
):
    run = newest_of(runs, tmp_path)
    revision = state_of(run)["setting"]["revision"]
    if not re.fullmatch("[0-9a-f]{40}", revision):
        pytest.skip("outside git")
    both = (f"made by revision {revision[:12]}, read by revision {'f' * 12}; git checkout "
            f"{revision[:12]} reads it")  # fmt: skip
    rewritten(run, lambda state: state["agent"].pop("explored"))
    capsys.readouterr()
    assert learn([f"resume={run}", MORE]) == 4
    assert capsys.readouterr().err == (
        f"error: checkpoint: does not fit, KeyError 'explored'; {both}\n"
    )
    rewritten(run, lambda state: state["config"]["agent"].pop("gamma"))
    for door in (partial(play, [f"run={run}"]), partial(learn, [f"resume={run}", MORE])):
        assert door() == 4
        assert capsys.readouterr().err == (
            f"error: checkpoint: does not fit, agent.gamma: is missing; {both}\n"
        )
    text = (run / "config.yaml").read_text()
    for spoiled, words in (
        (text.replace("  gamma: 0.95\n", ""), "agent.gamma: is missing; give it a value"),
        (
            text.replace("  gamma:", "  discount: 1\n  gamma:"),
            "agent.discount: is not a key; did you mean agent.gamma?",
        ),
    ):
        (run / "config.yaml").write_text(spoiled)
        for result in (True, False):  # which names the revision, too
            (run / "result.json").exists() and not result and (run / "result.json").unlink()
            expected = f"run: {run / 'config.yaml'}, {words} in that file, {both}"
            for door in (partial(play, [f"run={run}"]), partial(learn, [f"resume={run}", MORE])):
                capsys.readouterr()
                assert door() == 2
                assert capsys.readouterr().err == f"error: {expected}\n"
            with pytest.raises(ConfigError) as caught:
                policies.load(run)
            assert str(caught.value) == expected


# runs of earlier revisions

RELEASED = sorted((Path(__file__).parent / "released").glob("*/*"))


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_run_of_an_earlier_revision_goes_on_or_tells_which_one_reads_it(
    released, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(released, run)
    steps = json.loads((run / "result.json").read_text())["steps"]
    for door in (
        partial(play, [f"run={run}", "episodes=1"]),
        partial(load_plain, run),
        partial(learn, [f"resume={run}", f"total_steps={steps + 20}"]),
    ):
        capsys.readouterr()
        code, said = door(), capsys.readouterr().err
        told = rf"^error: .*made by revision {released.parent.name}\w*, read by revision \w+; git "
        assert code == 0 or re.search(told, said), said
        assert code or all(line.startswith("warning: ") for line in said.splitlines())
    if code == 0:
        assert json.loads((run / "result.json").read_text())["steps"] == steps + 20


def test_a_resumed_run_has_of_new_keys_what_the_code_did_before():
    """Not what today's tuned pair of the same task has."""
    (released,) = [path for path in RELEASED if path.name == "a2c-cartpole"]
    agent = train_config([f"resume={released}"]).agent
    assert (agent.adam_eps, agent.reward_scale) == (1e-5, 0.05)


# the files of a replay

REPLAY = ["env=pendulum", "agent=sac", "agent.hidden=[8]", "agent.batch_size=8", "threads=1",
          "agent.learning_starts=60", "agent.buffer_size=500", "eval.episodes=1",
          "eval.every=1000", "log.every=1000", "checkpoint.every=20", "env.num_envs=1"]  # fmt: skip


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    run = tmp_path_factory.mktemp("replayed") / "run"
    assert learn([*REPLAY, "total_steps=60", f"run_dir={run}"]) == 0
    return run


def test_each_file_of_a_replay_is_read_once(replayed, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(replayed, run)
    files = sorted(path.name for path in (run / "replay").iterdir())
    assert [name.split("-")[:2] for name in files] == [
        [f"{start:012d}", f"{start + 20:012d}"] for start in (0, 20, 40)
    ]
    opened, real = [], Path.open

    def counted(path, mode="r", *arguments, **options):
        if path.parent.name == "replay" and "r" in mode:
            opened.append(path.name)
        return real(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", counted)
    assert learn([f"resume={run}", "total_steps=61"]) == 0
    assert sorted(opened) == files
    opened.clear()
    open_trained(str(run)).evaluator.close()  # every reader verifies every file
    assert sorted(opened)[:3] == files
    assert len(opened) == 4


@pytest.mark.parametrize("spoil", ["flip", "cut"])
def test_damage_found_while_rows_are_read_is_found_before_the_run_goes_on(
    spoil, replayed, tmp_path, capsys
):
    """The newest file of three is damaged: the checkpoint before it, which needs two, is used."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    for path in (run, whole):
        shutil.copytree(replayed, path)
    newest = sorted((run / "replay").iterdir())[-1]
    content = newest.read_bytes()
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    newest.write_bytes(flipped if spoil == "flip" else content[:-1])
    why = "sha256 does not match"
    if spoil == "cut":
        why = f"it has {len(content) - 1:,} bytes, not {len(content):,}"
    for path in (run, whole):
        capsys.readouterr()
        assert learn([f"resume={path}", "total_steps=90"]) == 0
        told = (f"warning: checkpoint {run / 'checkpoints/step-000000000060'} is damaged "
                f"({why}): {newest.name}; using step-000000000040")  # fmt: skip
        assert capsys.readouterr().err.splitlines() == [told] * (path == run)
    assert outcome(run)[0] == outcome(whole)[0]
    assert json.loads((run / "result.json").read_text())["exact"] is True


def test_a_rank_reads_its_own_files_alone(replayed, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(replayed, run)
    config = open_trained(str(run)).config
    parts = make_parts(config)
    saver = Saver(run, config, parts, 0.0, Ranks(1, 2))
    state = checkpoint.load(run / "checkpoints" / checkpoint.names(run)[-1])
    files = [{**record, "rank": n % 2} for n, record in enumerate(state["segments"] * 2)]
    state |= {"ranks": 2, "others": [{"buffer": state["buffer"]}]}
    read = []

    def reader(folder, records):
        read.extend(records)
        return segments.read_segments(folder, state["segments"])

    monkeypatch.setattr("runtime.saver.read_segments", reader)
    saver.restore_buffer(state, files)
    parts.close()
    assert read == saver.segments == files[1::2]
    assert len(parts.replay) == 60


class Met(Ranks):
    """One of several ranks that are threads of this process."""

    def __init__(self, rank, size, barrier, sent):
        super().__init__(rank, size)
        self.barrier, self.sent = barrier, sent

    def collect(self, content):
        self.sent[self.rank] = content
        self.barrier.wait()
        found = list(self.sent)
        self.barrier.wait()
        return found

    def most(self, number):
        return max(map(int, self.collect(str(number).encode())))


def test_each_rank_goes_on_from_its_own_state(tmp_path):
    """Its environments, what it has stored, and the numbers it draws: three ranks, no update."""
    config = train_config([*REPLAY, "agent.learning_starts=450", "total_steps=480"])
    barrier, sent = threading.Barrier(3, timeout=60), [b""] * 3

    def life(rank):
        ranks = Met(rank, 3, barrier, sent)
        first, second = (make_parts(config, ranks) for _ in range(2))
        for _ in range(5):
            transition = first.envs.step(*first.agent.explore(first.envs.obs))
            first.buffer.add(transition)
        saver = Saver(tmp_path, config, first, time.perf_counter(), ranks)
        saver.save(15, None, None)
        again = Saver(tmp_path, config, second, time.perf_counter(), ranks)
        assert again.restore() == []
        rows = [parts.replay.at(torch.arange(5)).read() for parts in (first, second)]
        assert all(torch.equal(*pair) for pair in zip(rows[0][:6], rows[1][:6], strict=True))
        assert torch.equal(first.envs.obs, second.envs.obs)
        drawn = [parts.agent.explore(parts.envs.obs)[0] for parts in (first, second)]
        assert torch.equal(*drawn)
        first.close()
        second.close()
        return drawn[0].tolist(), rows[0].obs.tolist()

    with ThreadPoolExecutor(3) as pool:
        lives = list(pool.map(life, range(3)))
    assert len({str(life) for life in lives}) == 3


class Two(Ranks):
    """Rank 0 of two; what the other one sends is given."""

    def __init__(self, other):
        super().__init__(0, 2)
        self.other = other

    def collect(self, content):
        return [content, json.dumps(self.other).encode()]


def test_all_ranks_pass_over_what_one_of_them_finds_damaged():
    damaged = as_data(Damaged("it is damaged; restore it"))
    fault = Two(damaged).agreed(None)
    assert isinstance(fault, Damaged)
    assert str(fault) == "rank 1: it is damaged; restore it"
    assert not isinstance(Two(as_data(StorageFault("it is lost"))).agreed(None), Damaged)
    assert Two({}).agreed(None) is None
    mine = Two(damaged).agreed(StorageFault("disk: gone; buy another"))
    assert (type(mine), str(mine)) == (StorageFault, "disk: gone; buy another")
    with pytest.raises(Damaged, match="rank 1: it is damaged"):
        Two(damaged).together(lambda: 3)
    assert Two({}).together(lambda: 3) == 3


def test_a_fault_of_another_rank_moves_on_to_the_checkpoint_before(replayed):
    faults = iter([Damaged("rank 1: spoiled; restore it"), None])
    step, _, passed = checkpoint.load_newest(
        replayed, take=lambda *_: None, agreed=lambda own: own or next(faults)
    )
    assert step == 40
    assert passed == ["rank 1: spoiled; using step-000000000040"]


def test_checkpoints_that_cannot_be_looked_at_are_not_called_missing(
    runs, tmp_path, monkeypatch, capsys
):
    """resume=auto would begin anew where they lie."""
    path = tmp_path / "run"
    shutil.copytree(runs / "own", path)
    listed = os.listdir

    def forbidden(folder="."):
        if Path(folder).name == "checkpoints":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(os, "listdir", forbidden)
    with pytest.raises(StorageFault, match="Permission denied; make it readable"):
        checkpoint.names(path)


def test_a_checkpoint_under_another_s_name_is_told_as_that(runs, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(runs / "own", path)
    newest = path / "checkpoints" / checkpoint.names(path)[-1]
    step = int(newest.name[5:])
    newest.rename(newest.with_name("step-000000000900"))
    with pytest.raises(Damaged, match=f"it is that of step {step}"):
        checkpoint.load(path / "checkpoints" / "step-000000000900")
