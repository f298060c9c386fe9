"""The process of one environment copy, and the first steps of the server that it is forked from.

The server imports this module first, then what workers need. Until both are done, nothing of
Python's own ends the server or a new worker together with its parent; a timer does.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np

PARENT = "LOGPI_PARENT"  # environment variable: the process that the workers are for
BOUND = "LOGPI_BOUND"  # environment variable: whether its main thread starts them
EVERY = 0.1  # seconds between two looks for the parent
PR_SET_PDEATHSIG = 1  # of Linux's prctl
QUIET = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")  # to a whole group; only the parent acts

server: int | None = None  # the process that a new worker is forked from, until it is at work


def work(
    make: Callable[[], Any], index: int, pipe: Any, memory: Any, shape: tuple[int, ...], dtype: Any
) -> None:
    """Serves one copy until it is closed, or its parent has gone.

    Commands are (name, argument), or None to close; each is answered by (result, error).

    Args:
        make: makes the copy (`envs.checked.Checked`).
        index: its row in `memory`.
        pipe: to the parent.
        memory: the observations of all copies, shared with the parent.
        shape, dtype: of one observation.
    """
    global server
    ignore_signals()
    follow_parent()
    die_with_parent()
    stop_watching()
    server = None
    # environments that draw from NumPy's global generator would draw the same in every worker: all
    # are forked from one process
    np.random.seed()  # noqa: NPY002
    env = make()
    size = int(np.prod(shape)) * dtype.itemsize
    row: np.ndarray = np.ndarray(shape, dtype, memory, offset=index * size)
    with contextlib.suppress(ConnectionError, EOFError), contextlib.closing(env):
        while (command := pipe.recv()) is not None:
            result = raised = None
            try:
                result = execute(env, row, *command)
            except (KeyboardInterrupt, Exception) as error:
                raised = error
            pipe.send((result, raised))


def execute(env: Any, row: np.ndarray, name: str, argument: Any) -> Any:
    """Executes one command; an observation is written into `row`."""
    if name == "step":
        row[...], reward, terminated, truncated, _ = env.step(argument)
        return reward, terminated, truncated
    if name == "reset":
        row[...] = env.reset(seed=argument, options={})[0]
        return None
    if name == "has_spaces":
        return argument == (env.observation_space, env.action_space)
    assert name == "lasting", name
    return env.lasting


def ignore_signals() -> None:
    """Leaves signals to the parent."""
    for name in QUIET:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def follow_parent() -> None:
    """Ends this process with its parent, even out of an endless step."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def die_with_parent() -> None:
    """Lets the system kill this process with its parent, whatever it is doing: it may be stopped,
    or in C code that lets no other thread run. Linux alone can do so."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def watch(parent: int) -> None:
    """From now on this process ends soon after its parent has."""

    def look(*_: object) -> None:
        if os.getppid() != parent:
            os._exit(1)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)


def stop_watching() -> None:
    """Where something else ends this process with its parent."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints what a worker dies of, unless its parent ended while it was started: what the worker
    is made of is gone then."""
    last = trace
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = "" if last is None else last.tb_frame.f_globals.get("__name__", "")
    if not (isinstance(error, (OSError, EOFError)) and where.startswith("multiprocessing.")):
        sys.__excepthook__(kind, error, trace)


def serve(parent: int) -> None:
    """Prepares the server: it is watched until the first worker, and each worker from its birth."""
    global server
    server = os.getpid()
    watch(parent)
    if os.environ.pop(BOUND, None):
        die_with_parent()
    sys.excepthook = show

    def before() -> None:
        if server is not None:
            stop_watching()

    def after() -> None:
        if server is not None:  # not what an environment forks
            watch(server)

    os.register_at_fork(before=before, after_in_child=after)


if PARENT in os.environ:
    serve(int(os.environ.pop(PARENT)))
