"""A trained policy, filmed: an mp4 in the run directory, and a moving image in TensorBoard."""

import os
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from common.errors import ConfigError, StorageFault, in_words
from envs.spaces import require_same_spaces
from runtime.evaluation import Acting, Evaluation, Evaluator, not_shown
from runtime.logger import Logger
from storage.files import own_folder
from storage.lock import locked
from storage.rundir import require_writable

PICTURE = "an array (height, width, 3) of uint8"


def film(
    agent: Acting,
    judge: Evaluator,
    step: int,
    out: Path,
    name: str,
    deterministic: bool,
    in_run: bool = False,
) -> tuple[Path, Evaluation]:
    """Films an episode in the environment of `judge`, to be called with `agent` and `step`.

    Where `out` is a run directory, `in_run` puts the film into its TensorBoard, too.

    Returns:
        The mp4, in the folder `video` of `out`; what came of the episode.

    Raises:
        ConfigError: the environment gives no pictures, what writes the file is not installed, or
            `out` cannot be written.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pictures need no screen
    if not shown():
        os.environ.setdefault("MUJOCO_GL", "egl")
    folder = out / "video"
    try:
        own_folder(folder)
    except OSError as error:
        what = "remove it or " if os.path.lexists(folder) else ""
        raise ConfigError(
            f"video: {folder} cannot be used, {error.strerror}; {what}give out=FOLDER"
        ) from error
    require_writable(folder, "video", "give out=FOLDER")
    evaluator = judge.filming()
    try:
        require_same_spaces(judge.envs.env_id, judge.envs.spaces, evaluator.envs.spaces)
        evaluator.envs.to_env = judge.envs.to_env  # a file's actions are the environment's own
        (env,) = evaluator.envs.backend.copies
        evaluator.envs.backend.copies[0] = recorder(env, folder, name)
        evaluation = evaluator(agent, step, deterministic)
    finally:
        evaluator.close()
    path = folder / f"{name}-episode-0.mp4"
    if in_run:
        show(path, step)
    return path, evaluation


def require_display() -> None:
    """Raises ConfigError if no window can be opened."""
    if not (shown() or os.environ.get("SDL_VIDEODRIVER")):
        raise ConfigError("render: there is no display here; video=true films instead")


def shown() -> bool:
    """Whether there is a screen; only Linux goes without one."""
    return sys.platform != "linux" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def recorder(env: Any, folder: Path, name: str) -> Any:
    """The environment with Gymnasium's camera on its first episode."""
    from gymnasium.error import DependencyNotInstalled
    from gymnasium.wrappers import RecordVideo

    try:
        return RecordVideo(Seen(env), str(folder), lambda episode: episode == 0, name_prefix=name)
    except DependencyNotInstalled:
        raise ConfigError('video: needs moviepy; pip install ".[video]"') from None
    except ValueError:
        raise not_shown(env.spec.id, "rgb_array") from None


class Seen(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Raises ConfigError if an environment returns no picture."""

    def render(self) -> Any:
        cause: Exception | None = None
        try:
            picture = self.env.render()
            why = wrong(picture)
        except gymnasium.error.DependencyNotInstalled as error:
            cause, why = error, f"a library is not installed, {error}; install it"
        except NotImplementedError as error:
            cause, why = error, f"it has no render; write one that gives {PICTURE}"
        except Exception as error:
            cause, why = error, f"its render raised {in_words(error)}; fix that"
        if why is None:
            return picture
        env_id = self.env.spec.id if self.env.spec else type(self.unwrapped).__name__
        raise ConfigError(
            f"video: {env_id} cannot be shown, {why}, or leave video=true out"
        ) from cause


def wrong(picture: Any) -> str | None:
    """The error for a value that is no picture and no list of pictures."""
    for frame in picture if isinstance(picture, list) else [picture]:
        given = type(frame).__name__
        if isinstance(frame, np.ndarray):
            if frame.dtype.kind in "iu" and frame.shape[2:] in ((3,), (4,)):
                continue
            given = f"an array {frame.shape} of {frame.dtype}"
        return f"its render gives {given}; let it give {PICTURE}"
    return None


def show(path: Path, step: int) -> None:
    """Puts a film, which lies in RUN_DIR/video, into TensorBoard, in the run itself.

    Not while it is in training: TensorBoard reads no further in older event files.
    """
    from moviepy import VideoFileClip

    with VideoFileClip(str(path)) as clip:
        frames, seconds = list(clip.iter_frames()), clip.duration
    run_dir = path.parents[1]
    with suppress(StorageFault), locked(run_dir), closing(Logger(run_dir)) as logger:
        logger.film("video/episode", frames, seconds, step)
