"""Films: whole episodes of the policy that was trained, as a file and in TensorBoard."""

import builtins
import dataclasses
import io
import json
import shutil
import sys
from ctypes.util import find_library
from functools import partial

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import evaluate
from common.errors import ConfigError
from configs.files import read_run
from runtime.evaluation import Evaluator
from runtime.launch.door import enter
from storage.lock import locked
from train import run as train

SHORT = ["total_steps=1280", "eval.episodes=1", "eval.every=1280", "agent.hidden=[8]"]
film = partial(enter, "evaluate", evaluate.run)


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run"
    assert enter("train", train, [*SHORT, f"run_dir={path}"]) == 0
    return path


def test_a_film_holds_the_episode_frame_by_frame(cartpole, capsys):
    from moviepy import VideoFileClip

    assert film([f"run={cartpole}", "video=true", "episodes=2", "seed=7"]) == 0
    (said,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("film"))
    (path,) = (cartpole / "video").glob("*.mp4")
    assert said.endswith(str(path))
    reward = float(said.split("return ")[1].split(":")[0])  # CartPole: 1 for each step
    with VideoFileClip(str(path)) as clip:
        frames = [*clip.iter_frames()]
    assert len(frames) == pytest.approx(reward + 1, abs=2)  # and what reset shows
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 100  # it moved
    assert not [*path.parent.glob("*tfevents*")]  # of which TensorBoard would make a run
    events = EventAccumulator(str(cartpole), size_guidance={"images": 0}).Reload()
    (image,) = events.Images("video/episode")
    assert events.Scalars("eval/return_mean")
    gif = Image.open(io.BytesIO(image.encoded_image_string))
    assert image.step == 1280
    assert len(frames) - 3 <= gif.n_frames <= len(frames)  # equal neighbours are one
    assert json.loads((cartpole / "evaluation.json").read_text())["episodes"] == 2


def test_a_film_of_a_run_in_training_is_a_file_alone_and_says_where_it_was_cut(cartpole, capsys):
    before = len(list(cartpole.glob("*tfevents*")))
    with locked(cartpole):  # by its training
        assert film([f"run={cartpole}", "video=true", "episodes=1", "max_length=3"]) == 0
    assert len(list(cartpole.glob("*tfevents*"))) == before
    assert "film of an episode with return 3.0, cut short: " in capsys.readouterr().out


def test_a_changed_world_is_marked_wherever_its_result_stands(cartpole, tmp_path, capsys):
    """The film, too; the run's own evaluation stays."""
    run = tmp_path / "run"
    shutil.copytree(cartpole, run, ignore=shutil.ignore_patterns("video", "evaluation*"))
    assert film([f"run={run}", "episodes=1", "seed=7"]) == 0
    own = (run / "evaluation.json").read_text()
    events = len(list(run.glob("*tfevents*")))
    changed = [f"run={run}", "env.kwargs.max_episode_steps=3", "episodes=2", "video=true"]
    capsys.readouterr()
    assert film(changed) == 0
    said = capsys.readouterr().out
    assert "on CartPole-v1, changed to env.kwargs.max_episode_steps=3, checkpoint of " in said
    assert "film of an episode with return 3.0: " in said
    assert (run / "evaluation.json").read_text() == own
    (path,) = run.glob("evaluation-*.json")
    found = json.loads(path.read_text())
    assert path.name == "evaluation-max_episode_steps-3.json"
    assert (found["changed"], found["return_max"]) == ({"max_episode_steps": 3}, 3.0)
    (filmed,) = (run / "video").glob("*.mp4")
    assert filmed.name == "step-000000001280-max_episode_steps-3-s12345-episode-0.mp4"
    assert len(list(run.glob("*tfevents*"))) == events  # TensorBoard shows the run's own world


@pytest.mark.slow
@pytest.mark.skipif(find_library("EGL") is None, reason="draws without a display")
def test_mujoco_is_filmed_without_a_display(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mujoco")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "run"
    short = ["env=hopper", "agent=ppo", "total_steps=64", "env.num_envs=2", "agent.n_steps=32"]
    assert enter("train", train, [*short, *SHORT[1:], f"run_dir={path}"]) == 0
    capsys.readouterr()
    assert film([f"run={path}", "video=true", "episodes=1"]) == 0
    assert len(list((path / "video").glob("*.mp4"))) == 1


def test_a_window_shows_whole_episodes(cartpole, monkeypatch, capsys):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert film([f"run={cartpole}", "render=human", "episodes=2"]) == 0
    assert "2 episodes, deterministic" in capsys.readouterr().out
    evaluator = Evaluator(read_run(cartpole).env, 5, 0, render="human")
    assert evaluator.envs.num_envs == 1
    evaluator.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always one")
def test_without_a_display_no_window_is_promised(cartpole, monkeypatch, capsys):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    assert film([f"run={cartpole}", "render=human", "episodes=2"]) == 2
    assert capsys.readouterr().err.startswith("error: render: there is no display here")


def test_what_cannot_be_filmed_is_told_before_anything_is_played(tmp_path, capsys):
    path = tmp_path / "run"
    where = ["env.id=tests.helpers:Counting-v0", "env.num_envs=1", "agent.n_steps=4",
             "env.kwargs.show_episode=false"]  # fmt: skip
    assert enter("train", train, [*SHORT[1:], *where, "total_steps=40", f"run_dir={path}"]) == 0
    assert film([f"run={path}", "env.id=tests.helpers:Counting-v0", "video=true"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: video: tests.helpers:Counting-v0 cannot be shown, ")
    assert not (path / "evaluation.json").exists()


def test_an_environment_that_is_not_there_is_not_one_that_cannot_be_shown(cartpole):
    gone = dataclasses.replace(read_run(cartpole).env, id="Nope-v0", vectorization="sync")
    with pytest.raises(ConfigError, match=r"^env\.id: Nope-v0"):
        Evaluator(gone, 1, 0, render="human")


def test_what_is_not_installed_is_named(cartpole, monkeypatch, capsys):
    real = builtins.__import__

    def absent(name, *arguments, **options):
        if name == "moviepy":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert film([f"run={cartpole}", "video=true"]) == 2
    assert capsys.readouterr().err == 'error: video: needs moviepy; pip install ".[video]"\n'
