"""A failure has its parts by name, and its message has them in one line."""

import errno
import os

import pytest

from common.errors import (
    ConfigError,
    EnvironmentFault,
    LogpiError,
    Stopped,
    of_making,
    remedy,
)


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ("agent.lr: is 0; give more", ("agent.lr", "is 0", "give more")),
        ("env: A: raised B; C: D; fix it", ("env", "A: raised B; C: D", "fix it")),
        ("runs/a has none yet; begin it", ("", "runs/a has none yet", "begin it")),
        ("device: is not there", ("device", "is not there", "")),
        ("told elsewhere", ("", "told elsewhere", "")),
    ],
)
def test_a_message_is_a_key_a_reason_and_a_remedy(message, parts):
    error = LogpiError(message)
    assert (error.key, error.why, error.remedy) == parts
    assert str(error) == message
    assert error.problem == message.removesuffix(f"; {error.remedy}")


def test_a_message_is_one_line_of_which_the_remedy_stays_whole():
    remedy = "python train.py resume=" + "a" * 300
    error = ConfigError(f"run: {'long ' * 200}\n\x00tail; {remedy}")
    assert (error.key, error.remedy) == ("run", remedy)
    assert " ... " in error.why
    assert error.why.endswith("?tail")
    assert str(error) == f"{error.problem}; {remedy}"


def test_the_command_of_a_stopped_run_is_taken_as_it_is():
    stopped = Stopped("stopped: by SIGTERM; nothing is lost", 75).at("a;\tb", "")
    assert stopped.problem == "stopped: by SIGTERM, the run is saved"
    assert stopped.remedy.startswith("continue with python train.py ")


def test_an_environment_that_cannot_be_made_is_known_by_its_key():
    assert of_making(EnvironmentFault("env A: raised B; fix it"))
    assert of_making(ConfigError("env.kwargs: A: TypeError; correct the arguments"))
    assert not of_making(ConfigError("env.id: env.kwargs: is no id; correct it"))


def test_the_cut_of_a_long_message_leaves_its_remedy_whole():
    path = "/" + "x" * 300
    line = str(ConfigError(f"run: {'why ' * 200} no; give run={path}"))
    assert line.endswith(f"no; give run={path}")
    assert len(line) < 420
    assert len(str(ConfigError("x" * 10_000))) < 390


@pytest.mark.parametrize(
    ("number", "helps"),
    [
        (errno.ENOSPC, "free the disk"),
        (errno.EROFS, "make the folder writable"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
        (errno.EILSEQ, "choose another name"),
        (errno.EINVAL, "choose another name"),
        (errno.ELOOP, "remove the link"),
        (errno.ENOENT, "check that the folder exists"),
        (errno.EMFILE, "allow more open files, ulimit -n 4096"),
        (errno.EIO, "check the disk"),
    ],
)
def test_what_helps_is_told_by_what_the_system_says(number, helps):
    assert remedy(OSError(number, os.strerror(number))) == helps
