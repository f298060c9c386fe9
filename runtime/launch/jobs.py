"""One job of a sweep: `train.py` in a process of its own, and what a launcher calls for it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from runtime.launch.signals import passing_on

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
SAVED = 75  # exit code of a run that a signal ended
WARNING = "SIGUSR2"  # what submitit takes as the end of a job's time, or its place
POLL = 0.5  # seconds between two looks at whether the sweep is to end
SWEEP = "LOGPI_SWEEP"  # an environment variable: the folder of the sweep that a run is a job of
LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # that joblib sets, and a run records
AFTER = 30.0  # seconds from SIGTERM in which a cluster that needs the place sends that warning


def call(
    job: list[str],
    log: Path | None = None,
    warning: str | None = None,
    stop: Path | None = None,
    limits: dict[str, str] | None = None,
) -> tuple[int, list[int]]:
    """`train.py` in a process of its own, to which signals are passed on.

    Args:
        job: its command line.
        log: what gets its output; None: this process's own.
        warning: a signal that the job gets as SIGTERM, and then no other, which would end it.
        stop: a file that comes where the job is to save and end.
        limits: the values of `LIMITS`; None: as they are here.

    Returns:
        Its exit code, 75 also where a signal ended it before it could save, 128 + the number of one
        that did not come from here; what signals came.
    """
    process: subprocess.Popen[bytes] | None = None
    came: list[int] = []
    due: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        came.append(number)
        if warning is None or len(came) == 1:
            due.append(number if warning is None else signal.SIGTERM)
        deliver()

    def deliver() -> None:
        while process is not None and due:
            process.send_signal(due.pop(0))

    known: dict[int, Any] = {}
    with suppress(ValueError):  # not in the main thread: signals are no matter of ours
        for name in ("SIGTERM", "SIGUSR1", *([warning] if warning else [])):
            if hasattr(signal, name):
                number = getattr(signal, name)
                known[number] = signal.signal(number, pass_on) or signal.SIG_DFL
    try:
        with ExitStack() as files:
            variables = passing_on()
            if limits is not None:
                variables = {n: v for n, v in variables.items() if n not in LIMITS} | limits
            where: dict[str, Any] = {"env": variables}
            if log is not None:
                file = files.enter_context(open(log, "ab"))
                where |= {"stdout": file, "stderr": subprocess.STDOUT}
            process = subprocess.Popen([sys.executable, str(TRAIN), *job], **where)
        deliver()  # what came while it was made
        while True:
            try:
                code = ended(process, POLL if stop else None)
                if code is not None:
                    killed = SAVED if came else 128 - code  # as a shell has it
                    return (killed if code < 0 else code), came
                if stop and stop.exists() and not came:
                    pass_on(signal.SIGTERM, None)
            except KeyboardInterrupt:  # it was sent to the child, too, which saves
                came.append(signal.SIGINT)
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)


def ended(process: "subprocess.Popen[bytes]", seconds: float | None) -> int | None:
    """The exit code; None after so many seconds without one."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def stay() -> None:
    """Lets a launcher's process live on when a signal comes: the sweep ends what it has to do.

    Where one that waits for a job were ended by it, the launcher would kill the others.
    """
    usual = (signal.SIG_DFL, signal.default_int_handler)
    with suppress(ValueError):  # not in the main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) in usual:
                signal.signal(number, lambda *_: None)  # not ignored, for jobs would do so, too


class Jobs:
    """What a launcher calls, in a process of its own: one job, whose output goes into a file.

    Submitit is warned before the time of a job is over, or another takes its place, and would queue
    it again at once. Here the warning first saves the run. A cluster that needs the place may send
    SIGTERM first, which alone is what a cancelled job gets, and that one is not queued.

    Args:
        jobs: the command line of each.
        folder: of the sweep.
    """

    def __init__(self, jobs: list[list[str]], folder: Path) -> None:
        self.jobs, self.folder = jobs, folder
        self.limits = {name: os.environ[name] for name in LIMITS if name in os.environ}

    def __call__(self, config: Any) -> int:
        number = int(config.job)
        on_cluster = "SUBMITIT_EXECUTOR" in os.environ
        log, stop = self.folder / f"{number}.log", stop_file(self.folder)
        if on_cluster:
            code, came = call(self.jobs[number], log, warning=WARNING)
        elif stop.exists():
            return SAVED
        else:
            stay()
            code, came = call(self.jobs[number], log, stop=stop, limits=self.limits)
        code_file(self.folder, number).write_text(str(code))
        if on_cluster and came and code == SAVED:
            warning = getattr(signal, WARNING)
            if warning in came:
                os.kill(os.getpid(), warning)  # to submitit, which ends this process
            time.sleep(AFTER)
        return code


def code_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.exit"


def went_file(run_dir: Path) -> Path:
    """Where a job leaves the name of its directory if the one that it was given was taken."""
    return run_dir.with_name(f"{run_dir.name}.went")


def tell_sweep(run_dir: Path, went: Path) -> None:
    """Leaves for the sweep, if the run is a job of one, where it went in place of `run_dir`."""
    if os.environ.get(SWEEP) == str(run_dir.absolute().parent):
        went_file(run_dir).write_bytes(os.fsencode(went.name))


def run_of(folder: Path, number: int) -> Path:
    """The run directory of a job."""
    run_dir = folder / str(number)
    try:
        return run_dir.with_name(os.fsdecode(went_file(run_dir).read_bytes()))
    except OSError:
        return run_dir


def stop_file(folder: Path) -> Path:
    """Where it is, the jobs of a sweep on this machine save and end, and no more begin."""
    return folder / "stop"


def read_code(folder: Path, number: int) -> int | None:
    """The exit code of a job; None where it did not come to one."""
    try:
        return int(code_file(folder, number).read_text())
    except (OSError, ValueError):
        return None
