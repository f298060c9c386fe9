"""Many runs from one command: `python train.py -m "seed=range(5)" agent=a2c,ppo`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from runtime.door import guarded
from runtime.errors import StorageFault
from runtime.rundir import read_result
from runtime.signals import passing_on

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
SAVED = 75  # exit code of a run that a signal ended
INTERRUPTED = 130  # of one that the user ended
STOPPED = (SAVED, INTERRUPTED)  # after which the sweep does not go on
ENDING = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
WARNING = "SIGUSR2"  # what submitit takes as the end of a job's time, or its place
POLL = 0.5  # seconds between two looks at whether the sweep is to end
AFTER = 30.0  # seconds from SIGTERM in which a cluster that needs the place sends that warning


def sweep(arguments: list[str]) -> int:
    """Checks all jobs, runs them, and ends with a table; returns the first failing code, or 0."""
    from configs.help import text

    if any(argument in ("-h", "--help") for argument in arguments):
        print(text("train"))
        return 0
    return guarded(lambda: run(arguments), arguments)


def run(arguments: list[str]) -> int:
    from configs.sweep import launch, read_sweep

    chosen = read_sweep(arguments)
    try:
        chosen.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFault(f"{chosen.folder}: cannot be made, {error.strerror}; choose another "
                           "hydra.sweep.dir") from error  # fmt: skip
    came: list[int] = []
    print(f"{len(chosen.jobs)} jobs; {chosen.folder}", flush=True)
    if chosen.launcher:
        print(f"what job N says goes into {chosen.folder}/N.log", flush=True)
        for number in range(len(chosen.jobs)):
            code_file(chosen.folder, number).unlink(missing_ok=True)
        stop_file(chosen.folder).unlink(missing_ok=True)
        paths = [str(TRAIN.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # a launcher's processes import `Jobs`
        try:
            with ending(chosen.folder, came, elsewhere="submitit" in chosen.launcher[0]):
                launch(chosen, Jobs(chosen.jobs, chosen.folder.absolute()))
        except RuntimeError as error:  # of a launcher: the table says which job it was
            print(f"warning: {str(error).splitlines()[0]}; jobs that a cluster still runs are not "
                  "waited for", file=sys.stderr)  # fmt: skip
        except KeyboardInterrupt:
            print("interrupted: jobs on a cluster go on, those here have ended",
                  file=sys.stderr)  # fmt: skip
            came = came or [signal.SIGINT]
        codes = [read_code(chosen.folder, number) for number in range(len(chosen.jobs))]
    else:
        codes = one_by_one(chosen.jobs, chosen.names)
    print(table(chosen.names, codes, chosen.folder))
    if came:
        print("the same command with run_dir=... resume=auto goes on with the sweep")
        return INTERRUPTED if came[0] == signal.SIGINT else SAVED
    if failed := [code for code in codes if code]:
        return failed[0]
    return 0 if None not in codes else 1 if chosen.launcher else SAVED


@contextmanager
def ending(folder: Path, came: list[int], elsewhere: bool) -> Iterator[None]:
    """Signals, noted in `came`, let the jobs save and end; a second one waits for none.

    Jobs elsewhere, on a cluster, go on without the sweep that handed them in.
    """

    def end(number: int, frame: Any) -> None:
        came.append(number)
        if elsewhere or len(came) > 1:
            raise KeyboardInterrupt
        stop_file(folder).touch()

    names = [name for name in ENDING if hasattr(signal, name)]
    if "SIGHUP" in names and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # under nohup
        names.remove("SIGHUP")
    known = {number: signal.signal(number, end) for number in (getattr(signal, n) for n in names)}
    try:
        yield
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)


def one_by_one(jobs: list[list[str]], names: list[str]) -> list[int | None]:
    """Runs the jobs here; a failed one takes no other down, a signal ends the sweep."""
    codes: list[int | None] = []
    for number, (job, name) in enumerate(zip(jobs, names, strict=True)):
        print(f"\njob {number} of {len(jobs)}: {name}", flush=True)
        code, came = call(job)
        codes.append(code)
        if came or code in STOPPED:
            print("\nthe same command with run_dir=... resume=auto goes on with the sweep")
            break
    return codes + [None] * (len(jobs) - len(codes))


def call(
    job: list[str],
    log: Path | None = None,
    warning: str | None = None,
    stop: Path | None = None,
) -> tuple[int, list[int]]:
    """`train.py` in a process of its own, to which signals are passed on.

    Args:
        job: its command line.
        log: what gets its output; None: this process's own.
        warning: a signal that the job gets as SIGTERM, and then no other, which would end it.
        stop: a file that comes where the job is to save and end.

    Returns:
        Its exit code, 75 also where a signal ended it before it could save; what signals came.
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
            where: dict[str, Any] = {"env": passing_on()}
            if log is not None:
                file = files.enter_context(open(log, "ab"))
                where |= {"stdout": file, "stderr": subprocess.STDOUT}
            process = subprocess.Popen([sys.executable, str(TRAIN), *job], **where)
        deliver()  # what came while it was made
        while True:
            try:
                code = ended(process, POLL if stop else None)
                if code is not None:
                    return (SAVED if came and code < 0 else code), came
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
            code, came = call(self.jobs[number], log, stop=stop)
        code_file(self.folder, number).write_text(str(code))
        if on_cluster and came and code == SAVED:
            warning = getattr(signal, WARNING)
            if warning in came:
                os.kill(os.getpid(), warning)  # to submitit, which ends this process
            time.sleep(AFTER)
        return code


def code_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.exit"


def stop_file(folder: Path) -> Path:
    """Where it is, the jobs of a sweep on this machine save and end, and no more begin."""
    return folder / "stop"


def read_code(folder: Path, number: int) -> int | None:
    """The exit code of a job; None where it did not come to one."""
    try:
        return int(code_file(folder, number).read_text())
    except (OSError, ValueError):
        return None


def table(names: list[str], codes: list[int | None], folder: Path) -> str:
    """One row for each job."""
    lines = ["", "| job | what | exit | return | steps | steps/s |", "|---|---|---|---|---|---|"]
    for number, (name, code) in enumerate(zip(names, codes, strict=True)):
        found = read_result(folder / str(number))
        missing = "not ended" if (folder / str(number)).exists() else "not run"
        cells = [str(number), name, missing if code is None else str(code)]
        cells += [f"{found[key]:{form}}" if key in found else ""
                  for key, form in (("return_mean", ".1f"), ("steps", ","),
                                    ("steps_per_second", ",.0f"))]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    for number, code in enumerate(codes):
        log = folder / f"{number}.log"
        if code != 0 and log.exists() and log.stat().st_size:
            lines.append(f"job {number}: {log.read_text(errors='replace').splitlines()[-1]}")
    lines.append(f"\nrun directories: {folder}/0 to {folder}/{len(names) - 1}")
    return "\n".join(lines)
