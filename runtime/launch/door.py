"""The frame of every command: arguments in, an exit code and at most one line of error out."""

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from common.errors import ConfigError, Elsewhere, Halt, LogpiError, Stopped, StorageFault, warn
from configs.flags import CFG, HELP, take


def enter(name: str, run: Callable[[Any], int], arguments: list[str]) -> int:
    """Composes the configuration of `name` from the arguments and runs it; returns the exit code.

    --help prints the keys of `name` instead, --cfg job the configuration.
    """

    def work() -> int:
        from configs.files import own_files

        with own_files(arguments) as words:
            return follow(name, run, words)

    return guarded(work, arguments)


def follow(name: str, run: Callable[[Any], int], arguments: list[str]) -> int:
    """`enter`, inside `own_files`: help, completion, configuration, or the run."""
    from configs import completion, compose, help

    if help.wanted(arguments):
        print(help.text(name, arguments))
        return 0
    shell, arguments = take(arguments, "--completion")
    if shell is not None:
        print(completion.script(shell))
        return 0
    shown, arguments = take(arguments, *CFG)
    if shown not in (None, "job"):
        why = f"{shown} is not printed, Hydra's own configuration is not used"
        raise ConfigError(f"--cfg: {why}; give --cfg job")
    train = name == "train"
    asked = compose.asked(arguments) if train else compose.Asked(compose.evaluate_config(arguments))
    lines, warnings = asked.notes()
    warn(*warnings)
    if shown:
        print(asked.to_yaml(), end="")
        return 0
    print(*lines, sep="\n", end="\n" * bool(lines))
    return run(asked.config)


def tool(
    usage: str, work: Callable[[list[str]], int], arguments: list[str], bare: bool = False
) -> int:
    """Runs a tool, or prints its usage on --help or, unless `bare`, without arguments."""

    def used() -> int:
        if (arguments or bare) and not {*HELP}.intersection(arguments):
            return work(arguments)
        print(usage)
        if not arguments:
            raise ConfigError("arguments: none are given; give those that the usage above names")
        return 0

    return guarded(used, arguments)


def guarded(work: Callable[[], int], arguments: list[str]) -> int:
    """Runs `work` and returns its exit code, or that of its failure.

    Every failure that a user can fix is one line on stderr; `debug=true` shows the traceback, too.
    """
    debug = any(re.fullmatch(r"\+*debug=true", argument, re.I) for argument in arguments)
    share_cores()
    with speaking():
        try:
            return work()
        except LogpiError as error:
            return failed(error, debug)
        except Halt as halt:
            return failed(halt.stopped, debug)
        except KeyboardInterrupt:
            return failed(Stopped("interrupted: by the user; what is saved is valid", 130), debug)
        except Exception as error:
            return failed(unexpected(error), debug)


def share_cores() -> None:
    """Makes waiting threads of torch sleep on a busy machine, unless the user chose.

    They spin for milliseconds otherwise, in which a thread that waits for a core cannot run: where
    other processes have the cores, two threads were 17 times slower than one. On idle cores it is
    spinning that is faster, by 1.6.
    """
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}.intersection(os.environ)
    busy = hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)
    if busy and "torch" not in sys.modules and not chosen:  # read when torch is imported
        os.environ["GOMP_SPINCOUNT"] = "1000"


def failed(error: LogpiError, debug: bool) -> int:
    """Prints a failure; returns its exit code."""
    # an error of the command line is printed by the first process of each machine
    launched = "RANK" in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"
    if not ((isinstance(error, ConfigError) and launched) or isinstance(error, Elsewhere)):
        if debug and not isinstance(error, Stopped):
            traceback.print_exception(error)
        print(f"error: {with_revisions(error)}", file=sys.stderr)
    return error.code


def unexpected(error: Exception) -> LogpiError:
    """The LogpiError for any other exception."""
    what = f"{type(error).__name__} {error}".strip()
    line = LogpiError(f"unexpected: {what}; debug=true shows where")
    if isinstance(error, MemoryError) or "allocate memory" in str(error):  # torch has no kind
        remedy = "free some, or raise the limit that is set here"
        line = StorageFault(f"memory: there is not enough, {what}; {remedy}")
    line.__cause__ = error
    return line


def with_revisions(error: LogpiError) -> LogpiError:
    """The same error; where a run's config.yaml is wrong for this code, with who made it."""
    if not isinstance(error, ConfigError) or error.run is None:
        return error
    from storage.provenance import made_by, other_revision

    other = other_revision(made_by(Path(error.run)))
    return ConfigError(f"{error}, {other}") if other else error


class Patient:
    """An output stream that ignores a full disk or a closed reader.

    What cannot be written is lost without an error; letters outside its encoding are escaped.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            try:
                self.stream.write(text)
            except UnicodeEncodeError as error:
                escaped = text.encode(error.encoding, "backslashreplace")
                self.stream.write(escaped.decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()


@contextmanager
def speaking() -> Iterator[None]:
    """Context in which failures to print do not end a run or change its exit code."""

    def nowhere() -> int:
        return os.open(os.devnull, os.O_WRONLY)

    # a stream is None where it was closed before the program began
    streams: Any = [stream or os.fdopen(nowhere(), "w") for stream in (sys.stdout, sys.stderr)]
    with redirect_stdout(Patient(streams[0])), redirect_stderr(Patient(streams[1])):  # type: ignore[type-var]
        yield
    for stream in streams:
        try:
            stream.flush()
        except OSError:  # nor does what is left of it, at the exit
            os.dup2(nowhere(), stream.fileno())
