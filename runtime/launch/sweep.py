"""Many runs from one command: `python train.py -m "seed=range(5)" agent=a2c,ppo`."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import ConfigError, key_value
from runtime.console import number as display
from runtime.launch.door import guarded
from runtime.launch.jobs import (
    SAVED,
    SWEEP,
    TRAIN,
    Jobs,
    call,
    code_file,
    read_code,
    run_of,
    stop_file,
    went_file,
)
from storage.lock import locked
from storage.rundir import make_folder, make_new, read_result

if TYPE_CHECKING:
    from configs.sweep import Sweep

INTERRUPTED = 130  # of one that the user ended
KILLED = 137  # of one that was, by SIGKILL
STOPPED = (SAVED, INTERRUPTED)  # after which the sweep does not go on
ENDING = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")


def sweep(arguments: list[str]) -> int:
    """Checks all jobs, runs them, and ends with a table; returns the first failing code, or 0."""
    return guarded(lambda: run(arguments), arguments)


def run(arguments: list[str]) -> int:
    from configs.help import text
    from configs.sweep import read_sweep

    if any(argument in ("-h", "--help") for argument in arguments):
        print(text("train"))
        return 0
    chosen = read_sweep(arguments)
    if chosen.named:
        make_folder(chosen.folder, "run_dir")
    else:
        chosen = chosen.moved(make_new(chosen.folder, "run_dir"))
    try:
        with locked(chosen.folder):
            return finish(chosen)
    except ConfigError:  # no job has begun
        with suppress(OSError):  # it is not empty
            chosen.folder.rmdir()
        raise


def finish(chosen: "Sweep") -> int:
    """Runs the jobs in the folder of the sweep, and prints the table."""
    from configs.sweep import launch

    os.environ[SWEEP] = str(chosen.folder.absolute())
    came: list[int] = []
    for number in range(len(chosen.jobs)):
        went_file(chosen.folder / str(number)).unlink(missing_ok=True)
    print(f"{len(chosen.jobs)} jobs; {chosen.folder}", flush=True)
    if chosen.launcher:
        print(f"what job N says goes into {chosen.folder}/N.log", flush=True)
        for number in range(len(chosen.jobs)):
            code_file(chosen.folder, number).unlink(missing_ok=True)
        stop_file(chosen.folder).unlink(missing_ok=True)
        before = begun(chosen.folder)
        paths = [str(TRAIN.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # a launcher's processes import `Jobs`
        try:
            with ending(chosen.folder, came, elsewhere="submitit" in chosen.launcher[0]):
                launch(chosen, Jobs(chosen.jobs, chosen.folder.absolute()))
        except RuntimeError as error:  # of a launcher
            said = (str(error).splitlines() or [type(error).__name__])[0]
            if begun(chosen.folder) == before:
                raise ConfigError(
                    f"hydra/launcher: {said}; mend that, or leave the launcher out"
                ) from error
            print(f"warning: {said}", file=sys.stderr)  # the table says which job it was
        except KeyboardInterrupt:
            print("interrupted: jobs on a cluster go on, those here have ended",
                  file=sys.stderr)  # fmt: skip
            came = came or [signal.SIGINT]
        codes = [read_code(chosen.folder, number) for number in range(len(chosen.jobs))]
    else:
        codes = one_by_one(chosen.jobs, chosen.names, came)
    where = "" if chosen.named else f"{key_value('run_dir', chosen.folder)} "
    again = f"the same command with {where}resume=auto goes on with"
    print(table(chosen.names, codes, chosen.folder, again))
    if came:
        print(f"{again} the sweep")
        return INTERRUPTED if came[0] == signal.SIGINT else SAVED
    if failed := [code for code in codes if code]:
        return failed[0]
    return 0 if None not in codes else 1 if chosen.launcher else SAVED


def begun(folder: Path) -> set[tuple[Path, int]]:
    """What jobs have left so far: their files, and when each was last written."""
    files = [*folder.glob("*.log"), *folder.glob("*/config.yaml")]
    return {(file, file.stat().st_mtime_ns) for file in files}


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


def one_by_one(jobs: list[list[str]], names: list[str], came: list[int]) -> list[int | None]:
    """Runs the jobs here; a failed one takes no other down, a signal, noted in `came`, the rest."""
    codes: list[int | None] = []
    for number, (job, name) in enumerate(zip(jobs, names, strict=True)):
        print(f"\njob {number} of {len(jobs)}: {name}", flush=True)
        code, signals = call(job)
        codes.append(code)
        if code in STOPPED and not signals:
            signals = [signal.SIGINT if code == INTERRUPTED else signal.SIGTERM]
        came += signals
        if came:
            break
    return codes + [None] * (len(jobs) - len(codes))


def table(names: list[str], codes: list[int | None], folder: Path, again: str) -> str:
    """One row for each job; `again` goes on with one that was killed."""
    lines = ["", "| job | what | exit | return | steps | steps/s |", "|---|---|---|---|---|---|"]
    for number, (name, code) in enumerate(zip(names, codes, strict=True)):
        found = read_result(run_of(folder, number))
        missing = "not ended" if run_of(folder, number).exists() else "not run"
        cells = [str(number), name, missing if code is None else str(code)]
        forms = (("return_mean", display), ("steps", "{:,}".format),
                 ("steps_per_second", "{:,.0f}".format))  # fmt: skip
        cells += [form(found[key]) if found.get(key) is not None else "" for key, form in forms]
        if found.get("episodes_cut"):
            cells[3] += f", {found['episodes_cut']} cut short"
        lines.append(f"| {' | '.join(cells)} |")
    for number, code in enumerate(codes):
        log = folder / f"{number}.log"
        if code == KILLED:
            lines.append(f"job {number}: was killed by SIGKILL, as the system does where memory "
                         f"runs out; {again} it")  # fmt: skip
        elif code != 0 and log.exists() and log.stat().st_size:
            lines.append(f"job {number}: {log.read_text(errors='replace').splitlines()[-1]}")
    lines.append(f"\nrun directories: {folder}/0 to {folder}/{len(names) - 1}")
    lines += [
        f"but that of job {number}, which was taken: {run_of(folder, number)}"
        for number in range(len(names))
        if went_file(folder / str(number)).exists()
    ]
    return "\n".join(lines)
