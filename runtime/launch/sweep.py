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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import ConfigError, key_value
from configs.help import text
from configs.sweep import Sweep, launcher_settings, read_sweep
from runtime.console import number as display
from runtime.launch.door import guarded
from runtime.launch.signals import passing_on
from storage.lock import locked
from storage.rundir import make_folder, make_new, read_result

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
SWEEP = "LOGPI_SWEEP"  # an environment variable of each job: the folder of the sweep
SAVED = 75  # exit code of a run that a signal ended
INTERRUPTED = 130  # of one that the user ended
KILLED = 137  # of one that SIGKILL ended
ENDING = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
WARNING = "SIGUSR2"  # from the cluster, before a job's time is over or another takes its place
POLL = 0.5  # seconds between two looks at the stop file
LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # that joblib sets, and a run records
AFTER = 30.0  # seconds from SIGTERM within which a cluster may send that warning


def sweep(arguments: list[str]) -> int:
    """Checks all jobs, runs them, and prints a table; returns the first failing code, or 0."""
    return guarded(lambda: run(arguments), arguments)


def run(arguments: list[str]) -> int:
    if any(argument in ("-h", "--help") for argument in arguments):
        print(text("train"))
        return 0
    chosen = read_sweep(arguments)
    if chosen.named:
        make_folder(chosen.folder, "run_dir")
    else:
        chosen = replace(chosen, folder=make_new(chosen.folder, "run_dir"))
    try:
        with locked(chosen.folder):
            return run_jobs(chosen)
    except ConfigError:  # no job has begun
        with suppress(OSError):  # it is not empty
            chosen.folder.rmdir()
        raise


def run_jobs(chosen: Sweep) -> int:
    """Runs the jobs in the folder of the sweep, and prints the table."""
    os.environ[SWEEP] = str(chosen.folder.absolute())
    signals: list[int] = []
    for number in range(len(chosen.jobs)):
        went_file(chosen.folder / str(number)).unlink(missing_ok=True)
    print(f"{len(chosen.jobs)} jobs; {chosen.folder}", flush=True)
    if chosen.launcher:
        codes = under_launcher(chosen, signals)
    else:
        codes = one_by_one(chosen.jobs, chosen.names, signals)
    where = "" if chosen.named else f"{key_value('run_dir', chosen.folder)} "
    again = f"the same command with {where}resume=auto goes on with"
    print(table(chosen.names, codes, chosen.folder, again))
    if signals:
        print(f"{again} the sweep")
        return INTERRUPTED if signals[0] == signal.SIGINT else SAVED
    if failed := [code for code in codes if code]:
        return failed[0]
    return 0 if None not in codes else 1 if chosen.launcher else SAVED


def one_by_one(jobs: list[list[str]], names: list[str], signals: list[int]) -> list[int | None]:
    """Runs the jobs here; after a failed one the others go on, a signal ends the sweep.

    Returns:
        The exit code of each, None where it was not run; signals are added to `signals`.
    """
    codes: list[int | None] = []
    for number, (job, name) in enumerate(zip(jobs, names, strict=True)):
        print(f"\njob {number} of {len(jobs)}: {name}", flush=True)
        code, came = call(job)
        codes.append(code)
        if code in (SAVED, INTERRUPTED) and not came:
            came = [signal.SIGINT if code == INTERRUPTED else signal.SIGTERM]
        signals += came
        if signals:
            break
    return codes + [None] * (len(jobs) - len(codes))


def under_launcher(chosen: Sweep, signals: list[int]) -> list[int | None]:
    """Runs the jobs by a launcher; returns and notes the same as `one_by_one`.

    Raises:
        ConfigError: the launcher cannot begin.
    """
    print(f"what job N says goes into {chosen.folder}/N.log", flush=True)
    for number in range(len(chosen.jobs)):
        code_file(chosen.folder, number).unlink(missing_ok=True)
    stop_file(chosen.folder).unlink(missing_ok=True)
    before = begun(chosen.folder)
    paths = [str(TRAIN.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # a launcher's processes import `Job`
    try:
        with ending(chosen.folder, signals, elsewhere="submitit" in chosen.launcher[0]):
            launch(chosen)
    except RuntimeError as error:  # of a launcher
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if begun(chosen.folder) == before:
            raise ConfigError(
                f"hydra/launcher: {reason}; mend that, or leave the launcher out"
            ) from error
        print(f"warning: {reason}", file=sys.stderr)  # the table has which job it was
    except KeyboardInterrupt:
        print("interrupted: jobs on a cluster go on, those here have ended", file=sys.stderr)
        if not signals:
            signals.append(signal.SIGINT)
    return [read_code(chosen.folder, number) for number in range(len(chosen.jobs))]


def launch(chosen: Sweep) -> None:
    """Hands the jobs to joblib or submitit and waits for all of them.

    Raises:
        RuntimeError: the launcher cannot begin, or a job was killed.
    """
    name, settings = launcher_settings(chosen.launcher, chosen.folder)
    job, numbers = Job(chosen.jobs, chosen.folder.absolute()), range(len(chosen.jobs))
    if name == "joblib":
        from joblib import Parallel, delayed, effective_n_jobs

        for key in ("pre_dispatch", "batch_size", "max_nbytes"):  # texts, also where numbers
            if str(settings[key]).isdigit():
                settings[key] = int(settings[key])
        # a worker without a job would be ended by any signal
        settings["n_jobs"] = min(effective_n_jobs(settings["n_jobs"]), len(numbers))
        Parallel(**{**settings, "backend": "loky"})(delayed(job)(number) for number in numbers)
        return
    import submitit

    cluster = name.removeprefix("submitit_")
    own = {f"{cluster}_{key}": value for key, value in settings.items()}
    folder = own.pop(f"{cluster}_submitit_folder")
    timeouts = f"{cluster}_max_num_timeout"  # the one key that the executor is made with
    made_with = {timeouts: own.pop(timeouts)} if timeouts in own else {}
    executor = submitit.AutoExecutor(folder, cluster, **made_with)
    executor.update_parameters(**own)
    submitted = executor.map_array(job, numbers)
    for one in submitted:
        one.wait()
    for one in submitted:
        one.results()  # raises where it was killed


class Job:
    """A function for launchers: runs one job in a process of its own, its output in a file.

    Submitit takes the cluster's warning for the end of the job, and queues it again at once. Here
    the warning first saves the run. A cluster that needs the place may send SIGTERM before it; a
    job that is cancelled gets SIGTERM alone, and is not queued.

    Args:
        jobs: the command line of each.
        folder: of the sweep.
    """

    def __init__(self, jobs: list[list[str]], folder: Path) -> None:
        self.jobs, self.folder = jobs, folder
        self.limits = {name: os.environ[name] for name in LIMITS if name in os.environ}

    def __call__(self, number: int) -> int | None:
        """The exit code of the job; None where the disk is full."""
        with suppress(OSError):  # which must not end the launcher and with it the other jobs
            return self.run(number)
        return None

    def run(self, number: int) -> int:
        on_cluster = "SUBMITIT_EXECUTOR" in os.environ
        log, stop = self.folder / f"{number}.log", stop_file(self.folder)
        if on_cluster:
            code, came = call(self.jobs[number], log, warning=WARNING)
        elif stop.exists():
            return SAVED
        else:
            outlive_signals()
            code, came = call(self.jobs[number], log, stop=stop, limits=self.limits)
        code_file(self.folder, number).write_text(str(code))
        if on_cluster and came and code == SAVED:
            warning = getattr(signal, WARNING)
            if warning in came:
                os.kill(os.getpid(), warning)  # to submitit, which ends this process
            time.sleep(AFTER)
        return code

    def checkpoint(self, number: int) -> Any:
        """What submitit queues after a warning: the same job, which `resume=auto` goes on with."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, number)


def call(
    job: list[str],
    log: Path | None = None,
    warning: str | None = None,
    stop: Path | None = None,
    limits: dict[str, str] | None = None,
) -> tuple[int, list[int]]:
    """Runs `train.py` in a process of its own and passes signals on to it.

    Args:
        job: its command line.
        log: file for its output; None: the output of this process.
        warning: a signal that the job gets as SIGTERM, and then no other, which would end it.
        stop: a file that appears where the job is to save and end.
        limits: the values of `LIMITS`; None: as they are here.

    Returns:
        Its exit code, 75 also where a signal ended it before it could save, 128 + the number of one
        that did not come from here; the signals that came.
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
    with suppress(ValueError):  # outside the main thread no signal arrives
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
                with suppress(subprocess.TimeoutExpired):
                    code = process.wait(POLL if stop else None)
                    killed = SAVED if came else 128 - code  # as a shell has it
                    return (killed if code < 0 else code), came
                if stop and stop.exists() and not came:
                    pass_on(signal.SIGTERM, None)
            except KeyboardInterrupt:  # it was sent to the child, too, which saves
                came.append(signal.SIGINT)
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)


def outlive_signals() -> None:
    """Keeps the process of a launcher alive through signals, until its job has saved.

    If one that waits for a job ended, the launcher would kill the others.
    """
    usual = (signal.SIG_DFL, signal.default_int_handler)
    with suppress(ValueError):  # not in the main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) in usual:
                signal.signal(number, lambda *_: None)  # not ignored: its job would inherit that


@contextmanager
def ending(folder: Path, signals: list[int], elsewhere: bool) -> Iterator[None]:
    """Lets the jobs save and end on a signal, and waits for none after a second one.

    Jobs elsewhere, on a cluster, go on without the sweep. Signals are added to `signals`.
    """

    def end(number: int, frame: Any) -> None:
        signals.append(number)
        if elsewhere or len(signals) > 1:
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


def table(names: list[str], codes: list[int | None], folder: Path, again: str) -> str:
    """One row for each job; `again` goes on with one that was killed."""
    lines = ["", "| job | what | exit | return | steps | steps/s |", "|---|---|---|---|---|---|"]
    columns = {
        "return_mean": display,
        "steps": "{:,}".format,
        "steps_per_second": "{:,.0f}".format,
    }
    for number, (name, code) in enumerate(zip(names, codes, strict=True)):
        found = read_result(run_of(folder, number))
        missing = "not ended" if run_of(folder, number).exists() else "not run"
        cells = [str(number), name, missing if code is None else str(code)]
        cells += [
            form(found[key]) if found.get(key) is not None else "" for key, form in columns.items()
        ]
        if found.get("episodes_cut"):
            cells[3] += f", {found['episodes_cut']} cut short"
        lines.append(f"| {' | '.join(cells)} |")
    for number, code in enumerate(codes):
        log = folder / f"{number}.log"
        if code == KILLED:
            lines.append(
                f"job {number}: was killed by SIGKILL, as the system does where memory runs out; "
                f"{again} it"
            )
        elif code != 0 and log.exists() and log.stat().st_size:
            lines.append(f"job {number}: {log.read_text(errors='replace').splitlines()[-1]}")
    lines.append(f"\nrun directories: {folder}/0 to {folder}/{len(names) - 1}")
    lines += [
        f"but that of job {number}, which was taken: {run_of(folder, number)}"
        for number in range(len(names))
        if went_file(folder / str(number)).exists()
    ]
    return "\n".join(lines)


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


def read_code(folder: Path, number: int) -> int | None:
    """The exit code of a job; None where it did not come to one."""
    try:
        return int(code_file(folder, number).read_text())
    except (OSError, ValueError):
        return None


def begun(folder: Path) -> set[tuple[Path, int]]:
    """What jobs have left so far: their files, and when each was last written."""
    files = [*folder.glob("*.log"), *folder.glob("*/config.yaml")]
    return {(file, file.stat().st_mtime_ns) for file in files}


def code_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.exit"


def went_file(run_dir: Path) -> Path:
    return run_dir.with_name(f"{run_dir.name}.went")


def stop_file(folder: Path) -> Path:
    return folder / "stop"
