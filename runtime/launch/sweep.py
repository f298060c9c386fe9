"""Many runs from one command: `python train.py -m "seed=range(5)" agent=a2c,ppo`.

Each job is `train.py` in a process of its own. Jobs run one after another, or under a launcher:
joblib on the cores of this machine, submitit on a cluster. The folder of the sweep holds

    N/      run directory of job N        N.log   its output, under a launcher
    N.exit  its exit code, likewise       N.went  the name of its directory if N was taken
    stop    while it exists, jobs on this machine save and end, and no more begin
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import ConfigError, key_value, shown, warn
from configs.flags import CFG
from configs.help import wanted
from configs.sweep import Sweep, first_job, launcher_settings, read_sweep
from runtime.console import aligned, steps_per_second
from runtime.console import number as display
from runtime.launch.door import enter, guarded
from runtime.launch.signals import CODES, numbers, passing_on
from storage.lock import locked
from storage.rundir import make_folder, make_new, read_result

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
SWEEP = "LOGPI_SWEEP"  # an environment variable of each job: the folder of the sweep
SAVED, INTERRUPTED = CODES["SIGTERM"], CODES["SIGINT"]  # exit codes
SHOWN = 5  # jobs that are named of those without a run directory
KILLED = 137  # exit code of a job that SIGKILL ended
STOP = "stop"  # a file
PASSED_ON = ("SIGTERM", "SIGUSR1")  # to the job
WARNING = "SIGUSR2"  # from the cluster, before a job's time is over or another takes its place
POLL = 0.2  # seconds between two looks at a job
AFTER = 30.0  # seconds from SIGTERM within which a cluster may send that warning
COLUMNS: dict[str, Callable[[Any], str]] = {
    "return_mean": display,
    "steps": "{:,}".format,
    "steps_per_second": steps_per_second,
}


def sweep(arguments: list[str]) -> int:
    """Checks all jobs, runs them, and prints a table; returns the first failing code, or 0."""
    return guarded(lambda: run(arguments), arguments)


def run(arguments: list[str]) -> int:
    if wanted(arguments) or any(word.partition("=")[0] in CFG for word in arguments):
        first = first_job(arguments)
        print("# of the first job")
        return enter("train", lambda config: 0, first)
    chosen = read_sweep(arguments)
    if chosen.named:
        make_folder(chosen.folder, "run_dir")
    else:
        chosen = replace(chosen, folder=make_new(chosen.folder, "run_dir"))
    try:
        with locked(chosen.folder):
            return run_jobs(chosen)
    finally:
        with suppress(OSError):  # it is not empty
            chosen.folder.rmdir()


def run_jobs(chosen: Sweep) -> int:
    """Runs the jobs in the folder of the sweep, and prints the table."""
    os.environ[SWEEP] = str(chosen.folder.absolute())
    count = len(chosen.jobs)
    for number in range(count):
        went_file(chosen.folder / str(number)).unlink(missing_ok=True)
    print(f"{count} job{'s' * (count > 1)}; {chosen.folder}", flush=True)
    codes, signals = (under_launcher if chosen.launcher else one_by_one)(chosen)
    where = "" if chosen.named else f"{key_value('run_dir', chosen.folder)} "
    again = f"the same command with {where}resume=auto continues"
    print(aligned(table(chosen.names, codes, chosen.folder, again)))
    if 0 in codes:
        folder = shown(chosen.folder)
        print(f"next:\n  python tools/compare.py {folder}\n  tensorboard --logdir {folder}")
    if signals:
        print(f"{again} the sweep")
        return CODES[signal.Signals(signals[0]).name]
    return next(filter(None, codes), int(None in codes))


def one_by_one(chosen: Sweep) -> tuple[list[int | None], list[int]]:
    """Runs the jobs here; after a failed one the others go on, a signal ends the sweep.

    Returns:
        The exit code of each, None where it came to none; the signals that came.
    """
    jobs, codes, came = chosen.jobs, list[int | None](), list[int]()
    with handled((*PASSED_ON, "SIGINT"), lambda number, frame: came.append(number)):
        for number, name in enumerate(chosen.names):
            print(f"\njob {number} ({number + 1} of {len(jobs)}){name and f': {name}'}", flush=True)
            # of SIGINT a terminal tells the job, too
            code = call(jobs[number], lambda: [one for one in came if one != signal.SIGINT])
            codes.append(code)
            if code in (SAVED, INTERRUPTED) and not came:  # the signal came to the job alone
                came.append(signal.SIGINT if code == INTERRUPTED else signal.SIGTERM)
            if came:
                break
    return codes + [None] * (len(jobs) - len(codes)), came


def under_launcher(chosen: Sweep) -> tuple[list[int | None], list[int]]:
    """Runs the jobs by a launcher; returns the same as `one_by_one`.

    Raises:
        ConfigError: the launcher cannot begin.
    """
    folder, signals = chosen.folder, list[int]()
    print(f"the output of job N is written to {folder}/N.log", flush=True)
    for file in (folder / STOP, *(code_file(folder, n) for n in range(len(chosen.jobs)))):
        file.unlink(missing_ok=True)

    def begun() -> set[tuple[Path, int]]:
        """The files of jobs so far, and when each was last written."""
        files = [*folder.glob("*.log"), *folder.glob("*/config.yaml")]
        return {(file, file.stat().st_mtime_ns) for file in files}

    before = begun()
    paths = [str(TRAIN.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # a launcher's processes import `Job`
    try:
        with ending(folder, signals, elsewhere="submitit" in chosen.launcher[0]):
            launch(chosen)
    except RuntimeError as error:  # of a launcher
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if begun() == before:
            raise ConfigError(
                f"hydra/launcher: {reason}; fix that, or leave the launcher out"
            ) from error
        warn(reason)  # the table has which job it was
    except KeyboardInterrupt:
        print("interrupted: jobs on a cluster continue, those here have ended", file=sys.stderr)
        signals = signals or [signal.SIGINT]
    return [read_code(folder, number) for number in range(len(chosen.jobs))], signals


def launch(chosen: Sweep) -> None:
    """Hands the jobs to joblib or submitit and waits for all of them.

    Raises:
        RuntimeError: the launcher cannot begin, or a job was killed.
    """
    name, settings = launcher_settings(chosen.launcher, chosen.folder)
    folder, jobs = chosen.folder.absolute(), range(len(chosen.jobs))
    if name == "joblib":
        from joblib import Parallel, delayed, effective_n_jobs

        for key in ("pre_dispatch", "batch_size", "max_nbytes"):  # texts, also where numbers
            if str(settings[key]).isdigit():
                settings[key] = int(settings[key])
        # a worker without a job would be ended by any signal
        settings["n_jobs"] = min(effective_n_jobs(settings["n_jobs"]), len(jobs))
        job = Job(chosen.jobs, folder, passing_on())  # joblib sets limits of threads of its own
        Parallel(**{**settings, "backend": "loky"})(delayed(job)(number) for number in jobs)
        return
    import submitit

    cluster, files = name.removeprefix("submitit_"), settings.pop("submitit_folder")
    own = {f"{cluster}_{key}": value for key, value in settings.items()}
    first = [key for key in own if key.endswith("max_num_timeout")]  # with which it is made
    executor = submitit.AutoExecutor(files, cluster, **{key: own.pop(key) for key in first})
    executor.update_parameters(**own)
    submitted = executor.map_array(Job(chosen.jobs, folder), jobs)
    for one in submitted:
        one.wait()
    for one in submitted:
        one.results()  # raises where it was killed


@dataclass
class Job:
    """A function for launchers: runs one job in a process of its own, its output in a file.

    Submitit takes the cluster's warning for the end of the job, and queues it again at once. Here
    the warning first saves the run. A cluster that needs the place may send SIGTERM before it; a
    job that is cancelled gets SIGTERM alone, and is not queued.
    """

    jobs: list[list[str]]  # the command line of each
    folder: Path  # of the sweep
    variables: dict[str, str] | None = None  # of the environment; None: they run on a cluster

    def __call__(self, number: int) -> int | None:
        """The exit code of the job; None where the disk is full."""
        stop, came, warning = self.folder / STOP, list[int](), getattr(signal, WARNING, None)
        with suppress(OSError):  # which must not end the launcher and with it the other jobs
            if stop.exists():
                return SAVED
            if self.variables is not None:
                outlive_signals()
            names = (*PASSED_ON, WARNING) if self.variables is None else ()
            with handled(names, lambda number, frame: came.append(number)):
                code = call(
                    self.jobs[number],
                    lambda: [signal.SIGTERM] if came or stop.exists() else [],
                    self.folder / f"{number}.log",
                    self.variables,
                )
            code_file(self.folder, number).write_text(str(code))
            if came and code == SAVED:
                if warning in came:
                    os.kill(os.getpid(), warning)  # to submitit, which ends this process
                time.sleep(AFTER)
            return code
        return None

    def checkpoint(self, number: int) -> Any:
        """What submitit queues after a warning: the same job, which `resume=auto` continues."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, number)


def call(
    job: list[str],
    due: Callable[[], Sequence[int]],
    log: Path | None = None,
    variables: dict[str, str] | None = None,
) -> int:
    """Runs `train.py` in a process of its own.

    Args:
        job: its command line.
        due: the signals that it is to get up to now.
        log: file for its output.
        variables: of its environment; None: those that are here.

    Returns:
        Its exit code, 75 also where a signal that was due ended it before it could save, 128 + the
        number of another one.
    """
    with open(log, "ab") if log else nullcontext() as output:
        process = subprocess.Popen(
            [sys.executable, str(TRAIN), *job],
            env=variables or passing_on(),
            stdout=output,
            stderr=output,
        )
        sent = 0
        while True:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(POLL)
                return code if code >= 0 else SAVED if due() else 128 - code  # as a shell has it
            for number in due()[sent:]:
                process.send_signal(number)
                sent += 1


@contextmanager
def handled(names: Iterable[str], handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Handles these signals meanwhile; outside the main thread none arrives."""
    known: dict[int, Any] = {}
    with suppress(ValueError):
        for number in numbers(names):
            known[number] = signal.signal(number, handler) or signal.SIG_DFL
    try:
        yield
    finally:
        for number, before in known.items():
            signal.signal(number, before)


def outlive_signals() -> None:
    """Keeps the process of a launcher alive through signals, until its job has saved.

    If one that waits for a job ended, the launcher would kill the others.
    """
    usual = (signal.SIG_DFL, signal.default_int_handler)
    with suppress(ValueError):  # not in the main thread
        for number in numbers(CODES):
            if signal.getsignal(number) in usual:
                signal.signal(number, lambda *_: None)  # not ignored: its job would inherit that


@contextmanager
def ending(folder: Path, signals: list[int], elsewhere: bool) -> Iterator[None]:
    """Lets the jobs save and end on a signal, and waits for none after a second one.

    Jobs elsewhere, on a cluster, continue without the sweep. Signals are added to `signals`.
    """

    def end(number: int, frame: Any) -> None:
        signals.append(number)
        if elsewhere or len(signals) > 1:
            raise KeyboardInterrupt
        (folder / STOP).touch()

    with handled(CODES, end):
        yield


def table(names: list[str], codes: list[int | None], folder: Path, again: str) -> str:
    """One row for each job; `again` is the command that continues one that was killed."""
    rows = ["", "| job | what | exit | return | steps | steps/s |", "|---|---|---|---|---|---|"]
    failed, taken, without = [], [], list[str]()
    for number, (name, code) in enumerate(zip(names, codes, strict=True)):
        run_dir, log = run_of(folder, number), folder / f"{number}.log"
        found = read_result(run_dir)
        exit = code if code is not None else "not ended" if run_dir.exists() else "not run"
        cells = [f(found[key]) if found.get(key) is not None else "" for key, f in COLUMNS.items()]
        if found.get("episodes_cut"):
            cells[0] += f", {found['episodes_cut']} cut short"
        what = name.replace("|", "\\|")
        rows.append(f"| {number} | {what} | {exit} | {' | '.join(cells)} |")
        if code == KILLED:
            failed.append(
                f"job {number}: was killed by SIGKILL, as the system does where memory runs out; "
                f"{again} it"
            )
        elif code != 0 and log.exists() and log.stat().st_size:
            failed.append(f"job {number}: {log.read_text(errors='replace').splitlines()[-1]}")
        if code != 0 and not run_dir.exists():
            without.append(str(number))
        if went_file(folder / str(number)).exists():
            taken.append(f"but that of job {number}, which was taken: {run_dir}")
    last = f" to {folder}/{len(names) - 1}" if len(names) > 1 else ""
    where = f"run directories: {folder}/0{last}"
    if without:
        more = len(without) - SHOWN
        few = ", ".join(without[:SHOWN]) + f" and {more} more" * (more > 0)
        where += f", but none of job{'s' * (len(without) > 1)} {few}"
    if len(without) == len(names):
        where = "no run has begun yet, so there is no run directory"
    return "\n".join([*rows, *failed, "", where, *taken])


def tell_sweep(run_dir: Path, went: Path) -> None:
    """Records for a sweep the run directory that one of its jobs uses in place of `run_dir`."""
    if os.environ.get(SWEEP) == str(run_dir.absolute().parent):
        went_file(run_dir).write_bytes(os.fsencode(went.name))


def run_of(folder: Path, number: int) -> Path:
    """The run directory of a job."""
    run_dir = folder / str(number)
    with suppress(OSError):
        return run_dir.with_name(os.fsdecode(went_file(run_dir).read_bytes()))
    return run_dir


def read_code(folder: Path, number: int) -> int | None:
    """The exit code of a job; None if it has none."""
    with suppress(OSError, ValueError):
        return int(code_file(folder, number).read_text())
    return None


def code_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.exit"


def went_file(run_dir: Path) -> Path:
    return run_dir.with_name(f"{run_dir.name}.went")
