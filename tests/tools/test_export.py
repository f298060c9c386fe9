"""A file acts as the policy that it was made of, in the environment's own units."""

import builtins
import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces

import evaluate
from data import Spec
from envs.spaces import ActionMap
from runtime.console import number
from runtime.deploy.exported import Deployed, FromFile, as_they_are, write
from runtime.launch.door import enter
from storage import checkpoint
from tests.helpers import agent
from tools import export
from train import run as train

SHORT = ["total_steps=1280", "eval.episodes=1", "eval.every=1280", "agent.hidden=[8]"]
play = partial(enter, "evaluate", evaluate.run)
WIDE = spaces.Box(np.array([-3.0, 0.0]), np.array([1.0, 10.0]), dtype=np.float32)
PICTURE = Spec(6, 3, True, images=((0, (2, 3, 1)),), pixels=True)
AMONG = Spec(10, 3, True, images=((3, (2, 3, 1)),), bytes=((3, 9),))
SEVERAL = spaces.MultiDiscrete([4, 2], start=[5, 0])
HALVES = spaces.Box(-1.0, 4.0, (2, 2), np.float16)
SHAPES = {"a2c narrow": (), "ppo exact": ()}  # of an observation that is no vector
KINDS = {
    "sac": (agent, Spec(3, 2, discrete=False), {"normalise_obs": True}, WIDE),
    "a2c gaussian": (agent, Spec(3, 2, discrete=False), {"policy": "gaussian"}, WIDE),
    "sac full": (agent, Spec(3, 2, discrete=False), {"policy": "tanh_full_gaussian",
                                                     "actor_tau": 0.1}, WIDE),
    "ppo several": (agent, Spec(3, 4, True, (4, 2)), {}, SEVERAL),
    "a2c binary": (agent, Spec(3, 2, True, (2,) * 6), {}, spaces.MultiBinary((2, 3))),
    "sac_discrete": (agent, Spec(3, 4, discrete=True), {}, spaces.Discrete(4, start=-1)),
    "a2c narrow": (agent, Spec(1, 4, discrete=False), {}, HALVES),
    "ppo exact": (agent, Spec(1, 1, discrete=False), {}, spaces.Box(-0.1, 0.1, (), np.float64)),
    "a2c picture": (agent, PICTURE, {}, spaces.Discrete(3)),
    "ppo picture among others": (agent, AMONG, {}, spaces.Discrete(3)),
}  # fmt: skip


CASES = [(kind, suffix) for kind in KINDS for suffix in (".pt2", ".onnx")]
FAST = [("sac", ".onnx"), ("sac_discrete", ".onnx"), ("sac full", ".pt2"), ("a2c picture", ".pt2"),
        ("a2c narrow", ".onnx")]  # fmt: skip


def allowed(space):
    return 5e-3 if space.dtype == np.float16 else 2e-5


def opened(path, shape, to_env):
    """The policy of a file, for environments without a mask."""
    spec = SimpleNamespace(mask=0)
    envs = SimpleNamespace(obs_shape=shape, to_env=to_env, read=np.asarray, spec=spec)
    return FromFile(path, envs)


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow) for case in CASES],
)
def test_a_file_acts_as_its_agent_does(kind, suffix, tmp_path):
    make, spec, settings, space = KINDS[kind]
    made = make(kind.split()[0], spec, **settings)
    generator = torch.Generator().manual_seed(0)
    actors = [made.actor, made.deterministic_actor]  # far from the symmetric start
    for actor in dict.fromkeys(actors):
        for parameter in actor.parameters():
            parameter.data.normal_(generator=generator)
    obs = torch.randn(50, spec.obs_dim, generator=generator) * 3.0
    obs = (obs.abs() * 50).byte() if spec.pixels else obs
    made.learn_statistics(obs)
    to_env = ActionMap(space)
    shape = SHAPES.get(kind, spec.images[0][1] if spec.pixels else (spec.obs_dim,))
    write(Deployed(made, to_env, shape), tmp_path / f"policy{suffix}")
    file = opened(tmp_path / f"policy{suffix}", shape, to_env)
    wanted = to_env(made.act(obs, deterministic=True)[0].numpy())
    found = file.act(obs)[0].numpy()
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=allowed(space))
    assert len(np.unique(wanted, axis=0)) > 1
    for count in (1, 7):
        np.testing.assert_allclose(file.act(obs[:count])[0].numpy(), wanted[:count],
                                   atol=allowed(space))  # fmt: skip
    assert all(space.contains(np.asarray(one, space.dtype)) for one in found)
    if suffix == ".onnx":
        assert format_of(tmp_path / f"policy{suffix}") == (9, 20)


def format_of(path):
    """(version of the file's format, opset): onnxruntime 1.17 plays up to 9 and 20."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path)
    return model.ir_version, *(opset.version for opset in model.opset_import)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_acts_as_its_agent_does(kind):
    """Before it is a file; far enough from the start that an unsquashed action is clipped."""
    make, spec, settings, space = KINDS[kind]
    made = make(kind.split()[0], spec, **settings)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.deterministic_actor.parameters():
        parameter.data.normal_(generator=generator)
    obs = torch.randn(50, spec.obs_dim, generator=generator) * 3.0
    obs = (obs.abs() * 50).byte() if spec.pixels else obs
    to_env = ActionMap(space)
    shape = SHAPES.get(kind, spec.images[0][1] if spec.pixels else (spec.obs_dim,))
    found = Deployed(made, to_env, shape)(obs.reshape(-1, *shape)).detach().numpy()
    wanted = to_env(made.act(obs, deterministic=True)[0].numpy())
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=allowed(space))
    assert len(np.unique(wanted, axis=0)) > 1
    if isinstance(space, spaces.Box):
        assert all(map(space.contains, found))  # to the last bit of its bounds, in its kind


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run"
    where = ["env=pendulum", "agent.normalise_obs=true", "env.num_envs=4", "agent.n_steps=8"]
    assert enter("train", train, [*SHORT, *where, f"run_dir={path}"]) == 0
    return path


@pytest.mark.parametrize("kind", ["a2c narrow", "sac_discrete"])
def test_what_a_file_gives_reaches_the_environment_in_its_kind_of_numbers(kind):
    _, spec, _, space = KINDS[kind]
    if isinstance(space, spaces.Discrete):
        space = spaces.Discrete(4, start=-1, dtype=np.int32)
    to_env, number = ActionMap(space), np.zeros((2, *spec.noise_shape), np.float32)
    assert to_env(number.argmax(-1) if spec.discrete else number).dtype == space.dtype
    given = np.ones((2, *space.shape), np.int64 if spec.discrete else np.float32)
    passed = as_they_are(to_env)(given)
    assert passed.dtype == space.dtype
    assert np.array_equal(passed, given)


@pytest.mark.parametrize(("form", "suffix"), [("onnx", ".onnx"), ("torch", ".pt2")])
def test_the_certificate_is_what_the_file_does(form, suffix, pendulum, capsys):
    given = [f"run={pendulum}", f"format={form}", "episodes=3", "seed=5"]
    if form == "torch":
        assert export.main([*given, "opset=18"]) == 2
        assert "opset: format=torch has none; leave it out" in capsys.readouterr().err
    else:
        given.append("opset=18")
    assert export.main(given) == 0
    certificate = json.loads((pendulum / f"policy{suffix}.json").read_text())
    assert certificate["observations"] == 10_000
    assert certificate["spaces"] == {
        "observation": "Box([-1.0, -1.0, -8.0], [1.0, 1.0, 8.0], (3,), float32)",
        "action": "Box(-2.0, 2.0, (1,), float32)",
    }
    assert certificate["max_difference"] < 1e-5
    assert certificate["actions_that_differ"] == 0
    assert certificate["return_sem_of_run"] > 0.0
    errors = [certificate[f"return_sem_of_{what}"] for what in ("run", "file")]
    assert errors[0] == pytest.approx(errors[1], abs=0.5)
    assert "certificate: " in capsys.readouterr().out
    assert play([f"run={pendulum}", "episodes=3", "seed=5"]) == 0
    of_run = json.loads((pendulum / "evaluation.json").read_text())["return_mean"]
    assert of_run == certificate["return_mean_of_run"]
    assert of_run == pytest.approx(certificate["return_mean_of_file"], abs=0.5)
    if form == "torch":
        return
    file = pendulum / f"policy{suffix}"
    assert format_of(file) == (8, 18)
    assert certificate["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert play([f"policy={file}", "env=pendulum", "episodes=3", "seed=5"]) == 0
    played = json.loads((pendulum / f"policy{suffix}.evaluation.json").read_text())
    assert played["return_mean"] == certificate["return_mean_of_file"]
    step = certificate["checkpoint_step"]
    assert f"{file}, exported at step {step:,}, on Pendulum-v1" in capsys.readouterr().out


def test_a_checkpoint_that_is_passed_over_is_named(pendulum, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(pendulum, run)
    older, newest = checkpoint.names(run)[-2:]
    (run / "checkpoints" / newest / "state.json").write_text("{}")
    assert export.main([f"run={run}", "format=torch", "episodes=1"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: checkpoint {run}/checkpoints/{newest} is damaged ")
    assert line.endswith(f"using {older}")
    certificate = json.loads((run / "policy.pt2.json").read_text())
    assert certificate["checkpoint_step"] == int(older[5:])


def deployed(space, obs_dim):
    """What is written of a policy for that action space."""
    if isinstance(space, spaces.Box):
        spec = Spec(obs_dim, space.shape[0], False)
    elif isinstance(space, spaces.Discrete):
        spec = Spec(obs_dim, int(space.n), True)
    else:
        spec = Spec(obs_dim, int(space.nvec.max()), True, tuple(space.nvec.tolist()))
    return Deployed(agent("a2c", spec), ActionMap(space), (obs_dim,))


def exported(space, obs_dim, folder):
    """It as a file without a certificate."""
    write(deployed(space, obs_dim), folder / "policy.onnx")
    return folder / "policy.onnx"


def played(module):
    """In place of a file: the module itself, as a function of arrays."""
    return lambda obs: module(torch.from_numpy(obs)).detach().numpy()


@pytest.mark.parametrize(
    ("space", "obs_dim", "env", "words"),
    [
        (spaces.Box(-1, 1, (2,)), 3, "pendulum", "float32 of shape (2,), are not of"),
        (spaces.Discrete(2), 3, "pendulum", "int64 of shape (), are not of"),
        (spaces.MultiDiscrete([3]), 3, "pendulum", "int64 of shape (1,), are not of"),
        (spaces.Box(-1, 1, (1,)), 4, "cartpole", "float32 of shape (1,), are not of"),
        (spaces.Box(3, 4, (1,)), 3, "pendulum", "] is not of this environment's Box(-2.0, 2.0"),
        (spaces.Discrete(2, start=-1), 4, "cartpole", "-1 is not of this environment's Discrete(2"),
        (spaces.Discrete(2, start=1), 4, "cartpole", "2 is not of this environment's Discrete(2"),
    ],
)
def test_a_file_for_other_actions_is_refused(
    space, obs_dim, env, words, tmp_path, monkeypatch, capsys
):
    """By what it gives."""
    made, file = deployed(space, obs_dim), tmp_path / "policy.onnx"
    monkeypatch.setattr("runtime.deploy.exported.open_onnx", lambda path: played(made))
    file.touch()
    assert play([f"policy={file}", f"env={env}", "episodes=3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: policy: its action")
    assert words in line


def test_the_environment_of_the_certificate_is_the_remedy(pendulum, capsys):
    if not (pendulum / "policy.onnx").exists():
        assert export.main([f"run={pendulum}", "episodes=1"]) == 0
    capsys.readouterr()
    assert play([f"policy={pendulum / 'policy.onnx'}", "env=cartpole", "episodes=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; give it the environment it was made in, Pendulum-v1, or train anew")
    assert play([f"policy={pendulum / 'policy.onnx'}", "env.id=Pendulum-v1", "episodes=1"]) == 0


def test_a_file_for_other_observations_is_refused_without_a_certificate_too(tmp_path, capsys):
    file = exported(spaces.Discrete(2), 3, tmp_path)
    assert play([f"policy={file}", "env=cartpole", "episodes=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: policy: it takes other observations than this environment's (4)")


def test_a_certificate_is_of_its_file_and_its_environment(pendulum, tmp_path, capsys):
    file = tmp_path / "policy.onnx"
    assert export.main([f"run={pendulum}", "episodes=1", f"out={file}"]) == 0
    capsys.readouterr()
    assert play([f"policy={file}", "env=pendulum", "episodes=1"]) == 0
    said = capsys.readouterr()
    assert (said.err, "exported at step" in said.out) == ("", True)
    assert "return" in said.out
    assert "standard error" not in said.out  # of one episode
    of = "warning: policy: was exported for"
    assert play([f"policy={file}", "env=pendulum", "env.kwargs.g=9.0", "episodes=1"]) == 0
    assert capsys.readouterr().err == f"{of} env.id=Pendulum-v1; give that alone to play it there\n"
    written = json.loads(Path(f"{file}.json").read_text())
    sha = written["sha256"]
    Path(f"{file}.json").write_text(json.dumps(written | {"env_id": "Other-v0"}))
    assert play([f"policy={file}", "env=pendulum", "episodes=1"]) == 0
    assert capsys.readouterr().err == f"{of} env.id=Other-v0; give that alone to play it there\n"
    before = {name: value for name, value in written.items() if name != "spaces"}
    Path(f"{file}.json").write_text(json.dumps(before))  # from before they were recorded
    assert play([f"policy={file}", "env=pendulum", "episodes=1"]) == 0
    assert "exported at step" in capsys.readouterr().out
    Path(f"{file}.json").write_text(json.dumps(written | {"sha256": "0"}))  # of another file
    assert play([f"policy={file}", "env=pendulum", "episodes=1"]) == 0
    said = capsys.readouterr()
    assert "exported at step" not in said.out
    unknown = "warning: policy: whether it was made in the spaces of Pendulum-v1 is not known, "
    assert said.err.startswith(unknown)
    written = Path(f"{file}.json")
    moved = [path.rename(tmp_path / f"own{path.name.removeprefix('policy')}")
             for path in (file, written)]  # fmt: skip
    moved[1].write_text(json.dumps(json.loads(moved[1].read_text()) | {"sha256": sha}))
    assert play([f"policy={moved[0]}", "env=pendulum", "episodes=1"]) == 0
    assert capsys.readouterr().err == ""  # both moved together


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_file_that_could_run_code_is_not_opened(tmp_path, capsys):
    """Planted where torch unpickles whatever it finds; its own loader falls for it."""
    made, owned = agent("sac", Spec(3, 1, discrete=False)), tmp_path / "owned"
    good, evil = tmp_path / "good.pt2", tmp_path / "evil.pt2"
    write(Deployed(made, ActionMap(spaces.Box(-1, 1, (1,))), (3,)), good)
    planted = io.BytesIO()
    torch.save(Hostile(owned), planted)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(evil, "w") as target:
        for name in source.namelist():
            pickled = name.endswith("sample_inputs/model.pt")
            target.writestr(name, planted.getvalue() if pickled else source.read(name))
    assert play([f"policy={evil}", "env=pendulum"]) == 2
    assert "may hold code" in capsys.readouterr().err
    assert not owned.exists()
    with contextlib.suppress(Exception):
        torch.export.load(evil)
    assert owned.exists()


def test_a_component_is_held_to_its_own_width():
    """Of 0.001 as far as 0.01 is much; of 1000, nothing."""
    space = spaces.Box(np.array([0.0, 0.0]), np.array([0.001, 1000.0]), dtype=np.float64)

    class Still:
        device, spec = torch.device("cpu"), Spec(3, 2, discrete=False)

        def act(self, obs, deterministic=True, generator=None):
            return torch.zeros(len(obs), 2), None

    class Off(Still):
        def __init__(self, *by):
            self.by = by

        def act(self, obs, deterministic=True, generator=None):
            middle = torch.tensor([0.0005, 500.0], dtype=torch.float64)
            return (middle + torch.tensor(self.by)).expand(len(obs), 2), None

    recorder, to_env = export.Recorder(Still()), ActionMap(space)
    recorder.act(torch.rand(4, 3))
    for by, differ in (((0.0, 0.01), 0), ((1e-5, 0.0), 10_000), ((0.0, 1.0), 10_000)):
        assert export.differences(recorder, Off(*by), to_env)[2] == differ


def test_what_is_kept_of_the_observations_is_any_of_them(monkeypatch):
    class Still:
        device = torch.device("cpu")

        def act(self, obs, deterministic=True, generator=None):
            return obs, obs

    monkeypatch.setattr(export, "OBSERVATIONS", 1000)
    recorder = export.Recorder(Still())
    for first in range(0, 10_000, 4):
        recorder.act(torch.arange(first, first + 4.0).unsqueeze(1))
    kept = torch.cat(recorder.met)
    assert len(kept) == len(set(kept.tolist())) == 500
    assert abs(kept.mean() - 4999.5) < 4 * 10_000 / (12 * 500) ** 0.5  # standard errors
    assert (recorder.low, recorder.high) == (0.0, 9999.0)


@pytest.mark.parametrize("forgotten", ["normaliser", "scale"])
def test_a_file_that_forgets_something_gets_no_certificate(
    forgotten, pendulum, tmp_path, monkeypatch, capsys
):
    made = Deployed.__init__

    def forgetful(self, *arguments):
        made(self, *arguments)
        if forgotten == "normaliser":
            self.normalizer = torch.nn.Identity()
        else:
            self.scale.fill_(1.0)

    monkeypatch.setattr(Deployed, "__init__", forgetful)
    out = tmp_path / "policy.pt2"
    assert export.main([f"run={pendulum}", "format=torch", "episodes=1", f"out={out}"]) == 1
    assert "the file acts unlike the run on" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_is_filmed_as_it_plays(pendulum, tmp_path, capsys):
    from moviepy import VideoFileClip

    if not (pendulum / "policy.onnx").exists():
        assert export.main([f"run={pendulum}", "episodes=1"]) == 0
    more = ["episodes=1", "max_length=5", "video=true", "seed=7", f"out={tmp_path}"]
    assert play([f"policy={pendulum}/policy.onnx", "env=pendulum", *more]) == 0
    reward = json.loads((tmp_path / "policy.onnx.evaluation.json").read_text())["return_mean"]
    path = tmp_path / "video/policy.onnx-s7-episode-0.mp4"
    assert capsys.readouterr().out.endswith(f"{number(reward)}, cut short: {path}\n")
    with VideoFileClip(str(path)) as clip:
        assert len([*clip.iter_frames()]) == pytest.approx(6, abs=2)


@pytest.mark.parametrize(
    ("call", "arguments", "words"),
    [
        (export.main, ["run=nowhere"], "run"),
        (export.main, ["format=tflite"], "format"),
        (export.main, ["run={run}", "x=1"], "x: is not a key"),
        (export.main, ["run={run}", "seed=-1"], "seed: must be an integer, >= 0, got -1"),
        (export.main, ["run={run}", "seed=abc"], "seed: must be an integer, >= 0, got 'abc'"),
        (export.main, ["run={run}", "out=a.onnx", "format=torch"], "out"),
        (export.main, ["run={run}", "out={bad}.onnx/p.onnx"], "cannot be made"),
        (play, ["policy=nowhere.onnx", "env=pendulum"], "policy: nowhere.onnx is not there"),
        (play, ["policy=README.md", "env=pendulum"], "is no .onnx"),
        (play, ["policy={bad}.onnx", "env=pendulum"], "cannot be read as ONNX"),
        (play, ["policy={bad}.pt2", "env=pendulum"], "may hold code"),
        (
            play,
            ["policy={run}/policy.onnx", "env=cartpole"],
            "its observation space is Box(",
        ),
        (play, ["policy={run}/policy.onnx"], "env: is missing"),
        (play, ["policy={run}/policy.onnx", "run={run}", "env=pendulum"], "run: cannot be played"),
        (
            play,
            ["policy={run}/policy.onnx", "env=pendulum", "checkpoint=best"],
            "checkpoint: can be chosen for a run",
        ),
        (play, ["run={run}", "env.wrappers=[ClipReward]"], "env.wrappers: are the run's"),
    ],
)
def test_bad_input_is_one_line(call, arguments, words, pendulum, tmp_path, capsys):
    if not (pendulum / "policy.onnx").exists():
        assert export.main([f"run={pendulum}", "episodes=1"]) == 0
    bad = tmp_path / "bad"
    for suffix in (".onnx", ".pt2"):
        bad.with_suffix(suffix).write_bytes(b"PK\x03\x04 no file of ours")
    capsys.readouterr()
    assert call([argument.format(run=pendulum, bad=bad) for argument in arguments]) in (2, 4)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_what_is_not_installed_is_named(pendulum, monkeypatch, capsys):
    real = builtins.__import__

    def absent(name, *arguments, **options):
        if name.startswith("onnx"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert export.main([f"run={pendulum}", "episodes=1"]) == 2
    assert 'pip install ".[export]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "real"),
    [("torch", False), *(pytest.param(f, True, marks=pytest.mark.slow) for f in ("torch", "onnx"))],
)
def test_a_file_takes_the_numbers_of_what_is_kept_as_bytes(form, real, tmp_path, monkeypatch):
    """A certificate from an environment with an image among other numbers, and its episodes."""
    monkeypatch.setattr(export, "OBSERVATIONS", 200)
    recorders, compare = [], export.differences

    def noted(recorder, *rest):
        recorders.append(recorder)
        return compare(recorder, *rest)

    monkeypatch.setattr(export, "differences", noted)
    if not real:  # the module itself in place of the file
        written = {}

        def keep(module, path, *opset):
            path.write_bytes(b"")
            written[path] = module

        def opened(path):
            return played(written[path])

        monkeypatch.setattr("runtime.deploy.exported.write", keep)
        monkeypatch.setattr("runtime.deploy.exported.open_torch", opened)
    run, where = tmp_path / "run", "env.id=tests.helpers:Picture-v0"
    among = [where, "env.kwargs.discrete=true", "env.kwargs.among=true", "episodes=20"]
    short = ["agent=a2c", "total_steps=40", "env.num_envs=2", "agent.n_steps=5", "eval.episodes=1"]
    assert enter("train", train, [*among[:3], *short, f"run_dir={run}"]) == 0
    assert json.loads((run / "result.json").read_text())["exact"]
    assert export.main([f"run={run}", where, f"format={form}", "episodes=20"]) == 0
    name = {"torch": "policy.pt2", "onnx": "policy.onnx"}[form]
    certificate = json.loads((run / f"{name}.json").read_text())
    assert (certificate["obs_shape"], certificate["observations"]) == ([26], 200)
    ends = [end for recorder in recorders for end in (recorder.low, recorder.high)]
    assert [end.shape for end in ends] == [(26,)] * 2  # between which random ones are drawn
    assert [end[2:].max() for end in ends] == [0.0, 255.0]
    assert all(end[:2].abs().max() <= 1.0 for end in ends)
    assert (certificate["max_difference"], certificate["actions_that_differ"]) == (0.0, 0)
    assert certificate["return_mean_of_file"] == certificate["return_mean_of_run"]
    if form == "onnx":
        assert play([*among, f"policy={run / name}"]) == 0
        found = json.loads((run / f"{name}.evaluation.json").read_text())
        assert found["return_mean"] == certificate["return_mean_of_file"]


@pytest.mark.skipif(os.name != "posix", reason="its names of files")
def test_a_file_whose_name_is_no_text_is_played(tmp_path):
    file = exported(spaces.Discrete(2), 4, tmp_path)
    other = file.with_name(os.fsdecode(b"\xff.onnx"))
    try:
        file.rename(other)
    except OSError:
        pytest.skip("no such names here")
    acting = opened(other, (4,), ActionMap(spaces.Discrete(2)))
    assert acting.act(torch.zeros(3, 4))[0].shape == (3,)


def test_of_a_file_that_cannot_be_written_no_half_stays(pendulum, tmp_path, monkeypatch, capsys):
    def full(module, path, opset):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("runtime.deploy.exported.write", full)
    out = tmp_path / "new" / "policy.onnx"
    assert export.main([f"run={pendulum}", f"out={out}"]) == 4
    assert capsys.readouterr().err.rstrip().endswith("; free the disk")
    assert list(out.parent.iterdir()) == []
