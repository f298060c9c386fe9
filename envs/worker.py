"""The process of one environment copy, and of the server that it is forked from.

The server imports this module first, then what workers need.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from types import TracebackType
from typing import Any

import numpy as np

PARENT = "LOGPI_PARENT"  # environment variable of the server, for `serve`
PR_SET_PDEATHSIG = 1  # of Linux's prctl
QUIET = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")  # to a whole group; only the parent acts


def work(index: int, pipe: Any, memory: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """Executes commands for one copy until it is closed or the parent process has ended.

    Commands are (name, argument), or None to close; each is answered by (result, error). The first
    has what makes the copy (`envs.checked.Checked`), and the spaces that it should have. Its
    observation, of this shape and type, is row `index` in `memory`, shared with the parent.
    """
    for name in QUIET:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=follow_parent, daemon=True).start()
    die_with_parent()
    # environments that draw from NumPy's global generator would draw the same in every worker: all
    # are forked from one process
    np.random.seed()  # noqa: NPY002
    try:
        _, (make, spaces) = pipe.recv()
    except EOFError:
        return
    env = make()
    size = int(np.prod(shape)) * dtype.itemsize
    row: np.ndarray = np.ndarray(shape, dtype, memory, offset=index * size)
    with contextlib.suppress(ConnectionError, EOFError), contextlib.closing(env):
        pipe.send((spaces == (env.observation_space, env.action_space), None))
        while (command := pipe.recv()) is not None:
            result = raised = None
            try:
                result = execute(env, row, *command)
            except (KeyboardInterrupt, Exception) as error:
                raised = error
            pipe.send((result, raised))


def execute(env: Any, row: np.ndarray, name: str, argument: Any) -> Any:
    """Executes one command, which writes an observation into `row`.

    Returns reward, terminated and truncated of "step", `Checked.lasting` of "reset".
    """
    if name == "step":
        row[...], reward, terminated, truncated, _ = env.step(argument)
        return reward, terminated, truncated
    row[...] = env.reset(seed=argument, options={})[0]
    return env.get_wrapper_attr("lasting")


def follow_parent() -> None:
    """Ends this process with its parent, even out of an endless step."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def die_with_parent() -> None:
    """Has the system kill this process when its parent process or thread ends.

    Whatever it is doing: it may be stopped, or in C code that lets no other thread run. Linux alone
    can do so.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


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
    """Prepares the server, which nothing of Python's own ends while it imports.

    `parent` is the process whose main thread starts it; 0: another thread does, which may end.
    """
    sys.excepthook = show
    if parent:
        die_with_parent()
        if os.getppid() != parent:  # it had gone before that
            os._exit(1)


if PARENT in os.environ:
    serve(int(os.environ.pop(PARENT)))
