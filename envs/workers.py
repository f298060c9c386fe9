"""One process for each environment copy, with a deadline for every answer."""

import atexit
import contextlib
import multiprocessing
import multiprocessing.util  # before `end_all`, so that what it registers comes after that
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper

from common.errors import EnvironmentFault
from envs import checked, deadline, worker

ROOT = Path(__file__).resolve().parent.parent
CLOSING = 2.0  # seconds that a worker has to end by itself


class Workers:
    """Copies in one process each, stepped at the same time, with a deadline on every answer.

    `obs` (N, ...) is in memory that is shared with them. Raises EnvironmentFault where a worker is
    hung, or has ended; it is named, and all of them are killed.
    """

    limit = None

    def __init__(self, makes: Sequence[Callable[[], Any]], env_id: str, timeout: float) -> None:
        self.env_id, self.timeout, self.steps = env_id, timeout, 0
        self.processes: list[Any] = []
        self.pipes: list[Any] = []
        self.copies: list[Any] = []  # in this process
        making = max(timeout, deadline.MAKING)
        start_server()
        try:
            with deadline.within(2.0 * making, env_id, "while it was made"):
                env = makes[0]()
                self.observation_space, self.action_space = env.observation_space, env.action_space
                env.close()
                self.start(len(makes))
                spaces = self.observation_space, self.action_space
                each = {i: (CloudpickleWrapper(make), spaces) for i, make in enumerate(makes)}
                same = self.ask("make", each, making)
                if not all(same):
                    raise RuntimeError(
                        f"environment {same.index(False)} has other spaces than the first one made"
                    )
        except BaseException:  # a signal, too
            self.kill()
            raise

    def start(self, count: int) -> None:
        shape, dtype = self.observation_space.shape, self.observation_space.dtype
        context: Any = multiprocessing.get_context(start_method())
        memory = context.RawArray("b", count * int(np.prod(shape)) * dtype.itemsize)
        self.obs: np.ndarray = np.ndarray((count, *shape), dtype, memory)
        for index in range(count):
            ours, theirs = context.Pipe()
            self.pipes.append(ours)
            arguments = index, theirs, memory, shape, dtype
            process = context.Process(target=worker.work, args=arguments, daemon=True)
            self.processes.append(process)
            process.start()
            theirs.close()

    def ask(self, name: str, arguments: dict[int, Any], timeout: float | None = None) -> list[Any]:
        """Sends a command to workers, each with its own argument; their results, in order."""
        self.steps += name == "step"
        timeout = timeout or self.timeout
        index, answers = 0, []
        try:
            for index, argument in arguments.items():
                self.pipes[index].send((name, argument))
            until = time.monotonic() + timeout
            for index in arguments:
                if not self.pipes[index].poll(max(0.0, until - time.monotonic())):
                    what = f"has not answered for {timeout:g} s"
                    raise self.fault(index, what, "raise env.timeout above that")
                answers.append(self.pipes[index].recv())
        except (ConnectionError, EOFError) as error:
            self.processes[index].join(CLOSING)  # until its exit is noticed
            code = self.processes[index].exitcode
            raise self.fault(index, f"has ended with code {code}", "see what ended it") from error
        for _, raised in answers:
            if raised is not None:
                raise raised
        return [result for result, _ in answers]

    def fault(self, index: int, what: str, remedy: str) -> EnvironmentFault:
        self.kill()
        return EnvironmentFault(
            f"env {self.env_id}: the worker of environment {index} {what}, at its step "
            f"{self.steps}; {remedy}, or fix the environment"
        )

    def close(self) -> None:
        """Has every worker close its environment; kills those that do not."""
        for pipe in self.pipes:
            with contextlib.suppress(ConnectionError):  # it has ended
                pipe.send(None)
        until = time.monotonic() + CLOSING
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """Ends all workers now, stopped ones too."""
        begun = [process for process in self.processes if process.is_alive()]
        for process in begun:
            process.kill()
        for process in begun:
            process.join(CLOSING)
        for pipe in self.pipes:
            pipe.close()
        self.pipes.clear()


def start_method() -> str:
    known = multiprocessing.get_all_start_methods()
    return "forkserver" if "forkserver" in known else "spawn"


def start_server() -> None:
    """Starts the server that workers are forked from, unless it runs already.

    It finds what they need by PYTHONPATH, for not every Python passes on `sys.path`. Who the
    workers are for must be known before anything is imported: it is an environment variable.
    """
    if start_method() == "spawn":
        return
    from multiprocessing import forkserver, resource_tracker

    multiprocessing.set_forkserver_preload([worker.__name__, checked.__name__])
    main = threading.current_thread() is threading.main_thread()
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [path])])
    os.environ[worker.PARENT] = str(os.getpid() if main else 0)
    try:
        with signals_blocked():  # a process of its own, which SIGUSR1 to a whole group would end
            resource_tracker.ensure_running()  # and lets signals in again
        with signals_blocked():
            forkserver.ensure_running()
    finally:
        del os.environ[worker.PARENT], os.environ["PYTHONPATH"]
        os.environ.update({} if path is None else {"PYTHONPATH": path})


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Blocks, in processes started inside, the signals that only the parent handles."""
    quiet = [getattr(signal, name) for name in worker.QUIET]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, quiet)  # which they inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@atexit.register
def end_all() -> None:
    """Kills workers that nobody closed, as after a signal during start-up: Python would wait."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
