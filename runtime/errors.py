"""Failures that a user can mend, each one line and one exit code."""

import os
import re
import shlex
import subprocess
from typing import Any

WINDOWS = os.name == "nt"  # whose shells quote otherwise
LONGEST = 380  # characters of a message


class LogpiError(Exception):
    """`what: why; what to do`, in one line.

    Attributes:
        code: the exit code of the process.
        shared: whether every process of the run raises it, and so one is enough to tell.
    """

    code = 1
    shared = False

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        line = "".join(character if character.isprintable() else "?" for character in line)
        if len(line) > LONGEST:
            line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
        super().__init__(line)


class ConfigError(LogpiError):
    """A key, a value, or a combination of them that cannot be run; nothing has been created."""

    code = 2


class EnvironmentFault(LogpiError):
    """The environment raised, or gave what no environment should."""

    code = 3


class StorageFault(LogpiError):
    """A run directory or checkpoint that cannot be read or written."""

    code = 4


class Divergence(LogpiError):
    """A loss, gradient or parameter is not finite."""

    code = 5


class Elsewhere(LogpiError):
    """Another process of the run has told the user why it ends; this one says nothing."""

    def __init__(self, code: int) -> None:
        super().__init__("told by another process")
        self.code = code


class Stopped(LogpiError):
    """A signal asked the run to end; what it did is saved, or it had done nothing yet.

    Args:
        code: 75 where the run may be started again by itself, 130 where the user interrupted it.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    def at(self, run_dir: str, env_id: str, launcher: str = "python") -> "Stopped":
        """The same, once the run is saved.

        Args:
            run_dir, env_id: of the run.
            launcher: what the command begins with that goes on with it.
        """
        from configs.compose import quoted

        what = str(self).partition(";")[0]
        plain = re.fullmatch(r"[\w./:\\-]+" if WINDOWS else r"[\w./-]+", run_dir, re.ASCII)
        again = f"resume={run_dir if plain else quoted(run_dir)}"
        again = subprocess.list2cmdline([again]) if WINDOWS else shlex.quote(again)
        again += f" env.id={env_id}" if ":" in env_id else ""
        return Stopped(f"{what}, the run is saved; {launcher} train.py {again} goes on", self.code)


class Halt(BaseException):
    """Stopped, raised out of whatever is going on where nothing can be lost.

    Like KeyboardInterrupt it is no Exception: what a library catches must not swallow it.
    """

    def __init__(self, stopped: Stopped) -> None:
        super().__init__(str(stopped))
        self.stopped = stopped


KINDS = {kind.code: kind for kind in
         (LogpiError, ConfigError, EnvironmentFault, StorageFault, Divergence)}  # fmt: skip


def told(error: LogpiError) -> dict[str, Any]:
    """A failure as one rank tells it to the others."""
    return {"code": error.code, "message": str(error), "stopped": isinstance(error, Stopped)}


def failure(said: dict[str, Any]) -> LogpiError:
    """What was `told`, as each rank raises it."""
    code, message = said["code"], said["message"]
    error = Stopped(message, code) if said["stopped"] else KINDS[code](message)
    error.shared = True
    return error
