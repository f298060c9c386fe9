"""Errors that a user can fix: one line, one exit code, and commands as a shell reads them."""

import errno
import os
import re
import shlex
import subprocess
import sys
import traceback
from typing import Any

WINDOWS = os.name == "nt"  # its shells quote differently
Differences = tuple[tuple[str, Any, Any], ...]  # (key, its value there, the run's)
LONGEST = 380  # characters of a message, if its remedy is shorter
LONGEST_PATH = 5_000  # characters
REMEDIES = {  # for errors of the system
    "make the folder writable": (errno.EACCES, errno.EPERM, errno.EROFS),
    "free the disk": (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)),
    "allow larger files, ulimit -f unlimited": (errno.EFBIG,),
    "choose a shorter name": (errno.ENAMETOOLONG,),
    "choose another name": (errno.EILSEQ, errno.EINVAL),
    "remove the link": (errno.ELOOP,),
    "check that the folder exists": (errno.ENOENT, errno.ENOTDIR, getattr(errno, "ESTALE", 0)),
    "allow more open files, ulimit -n 4096": (errno.EMFILE, errno.ENFILE),
}


def remedy(error: OSError) -> str:
    """The remedy if a file or folder cannot be written."""
    found = (what for what, numbers in REMEDIES.items() if error.errno in numbers)
    return next(found, "check the disk")


def quoted(text: object) -> str:
    """The text as a quoted value for `configs.compose.parse`."""
    ends = re.sub(r'(\\*)("|$)', r"\1\1\2", str(text))  # backslashes count only before a quote
    return '"' + ends.replace('"', '\\"') + '"'


def readable(path: object) -> str:
    """The path as a value for `configs.compose.parse`, in quotes only if it needs them."""
    plain = re.fullmatch(r"[\w./:\\-]+" if WINDOWS else r"[\w./-]+", str(path), re.ASCII)
    bare = plain and str(path).lower() not in ("null", "true", "false")
    return str(path) if bare else quoted(path)


def key_value(key: str, path: object) -> str:
    """KEY=PATH of a command, quoted for a shell and `configs.compose.parse`."""
    return shown(f"{key}={readable('./auto' if str(path) == 'auto' else path)}")


def shown(word: object) -> str:
    """A word of a command, quoted for a shell; in octal if the output cannot encode it."""
    text, encoding = str(word), getattr(sys.stdout, "encoding", None) or "utf-8"
    if WINDOWS:
        return subprocess.list2cmdline([text])
    if text.isprintable() and text.encode(encoding, "ignore").decode(encoding) == text:
        return shlex.quote(text)
    octal = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b"\\'" else f"\\{byte:03o}"
        for byte in os.fsencode(text)
    )
    return f"$'{octal}'"


def in_words(error: BaseException) -> str:
    """Type and text of an exception, or type and function that raised it if it has no text."""
    kind, frames = type(error).__name__, traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].name}()" if frames else ""
    return f"{kind}: {error}" if str(error) else f"{kind}{where}"


def warn(*warnings: str) -> None:
    """Prints each on one line of the standard error."""
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


class LogpiError(Exception):
    """`key: why; remedy`, in one line; the key and the remedy may be missing.

    The key is one of the configuration, a file or an environment; `problem` is `key: why`.
    """

    code = 1  # the exit code of the process
    exact = False  # whether the message is neither made printable nor cut in the middle
    shared = False  # whether every process of the run raises it, so that one prints it

    def __init__(self, message: str, code: int | None = None) -> None:
        line = message if self.exact else shortened(message)
        super().__init__(line)
        self.problem, _, self.remedy = line.rpartition("; ") if "; " in line else (line, "", "")
        self.key, colon, self.why = self.problem.partition(": ")
        if not colon:
            self.key, self.why = "", self.problem
        self.code = self.code if code is None else code


def shortened(message: str) -> str:
    """A message in one line, cut in the middle, with its whole remedy, which may be a command."""
    line = " ".join(filter(None, map(str.strip, message.replace("\t", " ").splitlines())))
    line = "".join(character if character.isprintable() else "?" for character in line)
    problem, semicolon, remedy = line.rpartition("; ")
    if not semicolon or len(remedy) > LONGEST_PATH:
        problem, semicolon, remedy = line, "", ""
    room = max(LONGEST - len(semicolon + remedy), LONGEST // 4)
    if len(problem) > room:
        problem = f"{problem[: room // 2]} ... {problem[-room // 2 :]}"
    return f"{problem}{semicolon}{remedy}"


class ConfigError(LogpiError):
    """A key, a value, or a combination of them that cannot be run; nothing has been created."""

    code = 2
    shared = True
    run: str | None = None  # a run directory with keys that this code does not have


class EnvironmentFault(LogpiError):
    """The environment raised an exception, or returned invalid values."""

    code = 3


def of_making(error: LogpiError) -> bool:
    """Whether an environment could not be made, perhaps since there is one copy already."""
    return isinstance(error, EnvironmentFault) or error.key == "env.kwargs"


class StorageFault(LogpiError):
    """A run directory or checkpoint that cannot be read or written."""

    code = 4


class Damaged(StorageFault):
    """A damaged checkpoint, or one of another run; an older one may be valid."""

    def __init__(self, message: str, differs: Differences = (), other_format: bool = False) -> None:
        super().__init__(message)
        self.differs = differs  # keys, if it is of another run
        self.other_format = other_format  # whether this code does not read its format


class Divergence(LogpiError):
    """A loss, gradient or parameter is not finite."""

    code = 5
    shared = True


class Elsewhere(LogpiError):
    """Another process of the run prints the reason; this one prints nothing."""

    def __init__(self, code: int) -> None:
        super().__init__("reported by another process", code)


class Stopped(LogpiError):
    """The run was stopped by a signal; its progress is saved, or it had not started.

    The code is 75 if a scheduler may restart the run, 130 if the user interrupted it.
    """

    exact = shared = True  # its command must not be changed

    def at(self, run_dir: str, repeated: str, launcher: str = "python") -> "Stopped":
        """The same for a run that is saved, with the command that continues it.

        `repeated` is the id of an environment that the command has to name, or empty.
        """
        again = key_value("resume", run_dir)
        again += f" {shown(f'env.id={repeated}')}" if repeated else ""
        line = f"{self.problem}, the run is saved; continue with {launcher} train.py {again}"
        return Stopped(line, self.code)


class Halt(BaseException):
    """Stopped before there is progress; no Exception, which a library might catch."""

    def __init__(self, stopped: Stopped) -> None:
        super().__init__(str(stopped))
        self.stopped = stopped


KINDS = (Stopped, Damaged, ConfigError, EnvironmentFault, StorageFault, Divergence, LogpiError)


def as_data(error: LogpiError) -> dict[str, Any]:
    """An error as plain data, to be sent to the other processes of the run."""
    kind = next(number for number, kind in enumerate(KINDS) if isinstance(error, kind))
    return {"kind": kind, "code": error.code, "message": str(error)}


def failure(plain: dict[str, Any]) -> LogpiError:
    """The inverse of `as_data`; every process raises the result."""
    error = KINDS[plain["kind"]](plain["message"])
    error.code, error.shared = plain["code"], True
    return error
