"""One process for each environment copy, none of which can keep the run waiting."""

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
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import _async_worker

from common.errors import EnvironmentFault
from envs import deadline, forked
from envs.border import QUIET, serve_quietly

ROOT = Path(__file__).resolve().parent.parent
CLOSING = 2.0  # seconds that a worker has to end by itself


def work(*arguments: Any) -> None:
    """Gymnasium's worker, which says nothing when its parent has gone."""
    serve_quietly()
    forked.bind()
    forked.rest()
    # environments that draw from NumPy's global generator would draw the same in every worker: all
    # are forked from one process
    np.random.seed()  # noqa: NPY002
    with contextlib.suppress(BrokenPipeError, ConnectionError, EOFError):
        _async_worker(*arguments)


@atexit.register
def end_all() -> None:
    """Kills the workers that nobody closed, as where a signal came while they were begun.

    Python would wait for them, after a signal that they do not hear.
    """
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Processes begun while this lasts do not hear what only the parent acts upon, from birth."""
    quiet = [getattr(signal, name) for name in QUIET]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, quiet)  # which they inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def preloaded() -> Iterator[None]:
    """Whatever workers are forked from while this lasts has loaded `envs.forked`.

    It finds the module by PYTHONPATH; not every Python hands it the path of this process.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        yield
        return
    from multiprocessing import forkserver, resource_tracker

    multiprocessing.set_forkserver_preload([forked.__name__])
    before = os.environ.copy()
    path = os.pathsep.join([str(ROOT), *filter(None, [before.get("PYTHONPATH")])])
    main = threading.current_thread() is threading.main_thread()
    bound = {forked.BOUND: "1"} if main else {}  # to this process: to its thread, that is
    os.environ |= {"PYTHONPATH": path, forked.PARENT: str(os.getpid()), **bound}
    try:
        with deaf():  # a process of its own, which SIGUSR1 to a whole group would end
            resource_tracker.ensure_running()  # and lets signals in again
        with deaf():
            forkserver.ensure_running()
        yield
    finally:
        for name in ("PYTHONPATH", forked.PARENT, forked.BOUND):
            os.environ.pop(name, None)
        os.environ.update(before)


class Copies(AsyncVectorEnv):
    """Gymnasium's, which waits for the first word of its workers without end; `greet` does not."""

    def __init__(self, greet: Callable[["Copies"], None], *arguments: Any, **options: Any) -> None:
        self.greet = greet
        try:
            super().__init__(*arguments, **options)
        except BaseException:  # a signal, too
            self.kill()
            raise

    def _check_spaces(self) -> None:
        self.greet(self)
        super()._check_spaces()  # type: ignore[no-untyped-call]

    def kill(self) -> None:
        """Ends all workers now, stopped ones too."""
        begun = [process for process in getattr(self, "processes", []) if process.is_alive()]
        for process in begun:
            process.kill()
        for process in begun:
            process.join(CLOSING)
        for pipe in getattr(self, "parent_pipes", []):
            if pipe is not None:
                pipe.close()
        self.closed = True

    def __del__(self) -> None:
        """Gymnasium's would wait for an answer to what was asked last."""
        if not self.closed:
            self.kill()


class Workers:
    """Gymnasium's `AsyncVectorEnv`, with a deadline on every answer.

    Args:
        makes: one for each copy.
        env_id: for messages.
        timeout: seconds that all copies together have to answer.

    Raises:
        EnvironmentFault: a worker is hung, or has ended; it is named, and all of them are killed.
    """

    def __init__(self, makes: Sequence[Callable[[], Any]], env_id: str, timeout: float) -> None:
        known = multiprocessing.get_all_start_methods()
        self.env_id, self.timeout, self.steps = env_id, timeout, 0
        making = 2.0 * max(timeout, deadline.MAKING)  # Gymnasium makes one in this process, too
        with preloaded(), deadline.within(making, env_id, "while it was made"):
            self.envs: Any = Copies(
                self.greet,
                makes,
                context="forkserver" if "forkserver" in known else "spawn",
                autoreset_mode=AutoresetMode.DISABLED,
                copy=False,
                worker=work,
            )
        self.single_observation_space = self.envs.single_observation_space
        self.single_action_space = self.envs.single_action_space

    def greet(self, envs: Copies) -> None:
        """Waits until every copy is made."""
        self.envs = envs
        self.answer(self.call, self.called, max(self.timeout, deadline.MAKING))

    def call(self) -> None:
        for pipe in self.envs.parent_pipes:
            pipe.send(("_call", ("index", (), {})))  # which every copy has

    def called(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        for pipe in self.envs.parent_pipes:
            if not pipe.poll(max(0.0, until - time.monotonic())):
                raise multiprocessing.TimeoutError
        for pipe in self.envs.parent_pipes:
            pipe.recv()

    def reset(self, seed: list[int | None], options: dict[str, Any]) -> Any:
        return self.answer(lambda: self.envs.reset_async(seed, options), self.envs.reset_wait)

    def step(self, action: np.ndarray) -> Any:
        self.steps += 1
        return self.answer(lambda: self.envs.step_async(action), self.envs.step_wait)

    @property
    def lasting(self) -> str | None:
        """Why an episode may depend on those before it, if it is known to."""
        return self.answer(lambda: self.envs.call_async("lasting"), self.envs.call_wait)[0]

    def answer(
        self, ask: Callable[[], None], wait: Callable[..., Any], timeout: float | None = None
    ) -> Any:
        timeout = timeout or self.timeout
        try:
            ask()
            return wait(timeout=timeout)
        except multiprocessing.TimeoutError as error:
            index = self.first(lambda index: not self.envs.parent_pipes[index].poll(0))
            raise self.fault(
                index,
                f"has not answered for {timeout:g} s",
                "raise env.timeout above that",
            ) from error
        except (BrokenPipeError, ConnectionError, EOFError) as error:
            for process in self.envs.processes:
                process.join(0.1)  # until its exit is noticed
            index = self.first(lambda index: not self.envs.processes[index].is_alive())
            code = self.envs.processes[index].exitcode
            raise self.fault(index, f"has ended with code {code}", "see what ended it") from error

    def first(self, holds: Callable[[int], bool]) -> int:
        return next((i for i in range(len(self.envs.processes)) if holds(i)), 0)

    def fault(self, index: int, what: str, remedy: str) -> EnvironmentFault:
        self.envs.kill()
        return EnvironmentFault(
            f"env {self.env_id}: the worker of environment {index} {what}, at its step "
            f"{self.steps}; {remedy}, or mend the environment"
        )

    def close(self) -> None:
        """Lets every worker close its environment; kills those that do not."""
        if self.envs.closed:
            return
        try:
            for pipe in self.envs.parent_pipes:
                if pipe is not None and not pipe.closed:
                    pipe.send(("close", None))
        except (BrokenPipeError, ConnectionError):
            pass  # it has ended
        until = time.monotonic() + CLOSING
        for process in self.envs.processes:
            process.join(max(0.0, until - time.monotonic()))
        self.envs.kill()
