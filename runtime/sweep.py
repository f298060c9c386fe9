"""Many runs from one command: `python train.py -m "seed=range(5)" agent=a2c,ppo`."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from runtime.door import guarded
from runtime.errors import StorageFault
from runtime.rundir import read_result

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
SAVED = 75  # exit code of a run that a signal ended
STOPPED = (SAVED, 130)  # after which the sweep does not go on
WARNING = "SIGUSR2"  # sent by submitit before the time of a job is over


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
    print(f"{len(chosen.jobs)} jobs; {chosen.folder}", flush=True)
    if chosen.launcher:
        print(f"what job N says goes into {chosen.folder}/N.log", flush=True)
        for number in range(len(chosen.jobs)):
            code_file(chosen.folder, number).unlink(missing_ok=True)
        paths = [str(TRAIN.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # a launcher's processes import `Jobs`
        try:
            launch(chosen, Jobs(chosen.jobs, chosen.folder.absolute()))
        except RuntimeError as error:  # of a launcher: the table says which job it was
            print(f"warning: {str(error).splitlines()[0]}", file=sys.stderr)
        except KeyboardInterrupt:
            print("interrupted: jobs that were running have saved, or go on where the cluster runs "
                  "them", file=sys.stderr)  # fmt: skip
        codes = [read_code(chosen.folder, number) for number in range(len(chosen.jobs))]
    else:
        codes = one_by_one(chosen.jobs, chosen.names)
    print(table(chosen.names, codes, chosen.folder))
    return next((1 if code is None else code for code in codes if code != 0), 0)


def one_by_one(jobs: list[list[str]], names: list[str]) -> list[int | None]:
    """Runs the jobs here; a failed one takes no other down, a signal ends the sweep."""
    codes: list[int | None] = []
    for number, (job, name) in enumerate(zip(jobs, names, strict=True)):
        print(f"\njob {number} of {len(jobs)}: {name}", flush=True)
        codes.append(call(job))
        if codes[-1] in STOPPED:
            print("\nthe same command with run_dir=... resume=auto goes on with the sweep")
            break
    return codes + [None] * (len(jobs) - len(codes))


def call(job: list[str], log: Path | None = None) -> int:
    """`train.py` in a process of its own, to which signals are passed on; its exit code.

    75, too, where a signal ended it before it could take signals.

    Args:
        job: its command line.
        log: what gets its output; None: this process's own.
    """
    process: subprocess.Popen[bytes] | None = None
    came: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        came.append(number)
        if process is not None:
            process.send_signal(number)

    known: dict[int, Any] = {}
    with suppress(ValueError):  # not in the main thread: signals are no matter of ours
        for name in ("SIGTERM", "SIGUSR1"):
            if hasattr(signal, name):
                number = getattr(signal, name)
                known[number] = signal.signal(number, pass_on) or signal.SIG_DFL
    try:
        with ExitStack() as files:
            where: dict[str, Any] = {}
            if log is not None:
                file = files.enter_context(open(log, "ab"))
                where = {"stdout": file, "stderr": subprocess.STDOUT}
            process = subprocess.Popen([sys.executable, str(TRAIN), *job], **where)
        for number in came:  # while it was made
            process.send_signal(number)
        while True:
            try:
                code = process.wait()
            except KeyboardInterrupt:  # it was sent to the child, too, which saves
                continue
            return SAVED if came and code < 0 else code
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)


class Jobs:
    """What a launcher calls, in a process of its own: one job, whose output goes into a file.

    Submitit warns a job before its time is over, or another takes its place, and would queue it
    again at once. Here the warning first saves the run; a job that was cancelled is not queued.

    Args:
        jobs: the command line of each.
        folder: of the sweep.
    """

    def __init__(self, jobs: list[list[str]], folder: Path) -> None:
        self.jobs, self.folder = jobs, folder

    def __call__(self, config: Any) -> int:
        number = int(config.job)
        warned: list[int] = []

        def warn(signal_number: int, frame: Any) -> None:
            warned.append(signal_number)
            os.kill(os.getpid(), signal.SIGTERM)  # which `call` passes on

        queue_again = None
        if "SUBMITIT_EXECUTOR" in os.environ:
            queue_again = signal.signal(getattr(signal, WARNING), warn)
        code = call(self.jobs[number], self.folder / f"{number}.log")
        code_file(self.folder, number).write_text(str(code))
        if warned and code == SAVED and callable(queue_again):
            queue_again(warned[0], None)  # ends this process
        return code


def code_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.exit"


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
        cells = [str(number), name, "not run" if code is None else str(code)]
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
