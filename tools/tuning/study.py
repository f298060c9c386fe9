"""A study of settings, kept in a journal so that it survives its workers, and its trials.

A trial is a run for each seed, which is stopped early if it lags behind the others.
"""

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from common.errors import ConfigError, StorageFault, readable, shown
from runtime.console import number
from runtime.curves import read_scalars
from runtime.launch.signals import passing_on
from storage.lock import locked
from tools.tuning.spaces import Choice, Range, Space, draw

sampler = partial(optuna.samplers.TPESampler, multivariate=True, constant_liar=True)
PATIENCE = 60.0  # seconds that a process waits for the turn of another
TRAIN = Path(__file__).resolve().parents[2] / "train.py"
DIVERGED = 5  # exit code
POLL = 1.0  # seconds between two checks of a run
FIRST_SEED = 1000  # of training, far from those of published results
MOST_FAILED = 5  # in one call
REPEATED = "repeats"  # of a trial with the settings of an earlier one: its number
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
UNCOUNTED = (TrialState.WAITING, TrialState.FAIL)


def open_study(folder: Path) -> Any:
    """The study in this folder, created if there is none."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = str(folder / "study.journal")
    lock = JournalFileOpenLock(path) if os.name == "nt" else None  # the usual one is a link
    return optuna.create_study(
        study_name="logpi",
        storage=JournalStorage(JournalFileBackend(path, lock_obj=lock)),
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(),
    )


def require_same(study: Any, fixed: list[str], space: Space, folder: Path) -> None:
    """Records the settings of a new study; ConfigError where those of an old one differ."""
    was = study.user_attrs.get("asked")
    if was is None:
        study.set_user_attr("asked", {"fixed": sorted(fixed)})
        study.set_user_attr("space", {key: vars(what) for key, what in space.items()})
    elif (was["fixed"], recorded_space(study)) != (sorted(fixed), space):
        made = [*was["fixed"], *(f"{key}={what}" for key, what in recorded_space(study).items())]
        remedy = f"repeat those, {' '.join(map(shown, made))}, or name another by study=FOLDER"
        raise ConfigError(f"study: {folder} has other settings; {remedy}")


def recorded_space(study: Any) -> Space:
    """The ranges of a study; empty if it is new."""
    found = study.user_attrs.get("space", {})
    return {
        key: Choice(tuple(what["values"])) if "values" in what else Range(**what)
        for key, what in found.items()
    }


def take_over(study: Any, folder: Path) -> None:
    """Marks trials of ended workers as failed, and queues them again."""
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        where = trial_folder(trial, folder)
        try:
            with locked(where):
                study.tell(trial.number, state=TrialState.FAIL)
        except StorageFault:  # its worker is running
            continue
        study.enqueue_trial(trial.params, user_attrs={"folder": str(where)})


def trial_folder(trial: Any, folder: Path) -> Path:
    """The folder of a trial; of one that was taken over, the one in which it began."""
    where = Path(trial.user_attrs.get("folder") or folder / f"trial-{trial.number:04d}")
    where.mkdir(exist_ok=True)
    return where


def search(
    study: Any, trials: int, fixed: list[str], space: Space, folder: Path, seeds: int
) -> None:
    """Runs trials one after another until the study has that many."""
    failed = 0
    while True:
        with ExitStack() as held:
            with locked(folder, PATIENCE):
                every = study.get_trials(deepcopy=False)
                waiting = [t.number for t in every if t.state == TrialState.WAITING]
                done = [t for t in every if t.state not in UNCOUNTED or REPEATED in t.user_attrs]
                if len(done) >= trials:
                    return
                # A trial depends on its number and those before it alone: a search by one worker
                # can be repeated, unless a trial is ended early, which depends on the clock.
                study.sampler = sampler(seed=min(waiting, default=len(every)))
                trial = study.ask()
                where = trial_folder(trial, folder)
                held.enter_context(locked(where))  # `take_over` leaves a locked trial alone
            chosen = draw(space, trial)
            trial.set_user_attr("chosen", chosen)
            outcome, ended = repeated(study, trial), True
            if outcome is None:
                log = where / "s0.log"
                print(f"trial {trial.number} begins: {' '.join(chosen)}; {log}", flush=True)
                outcome, ended = attempt(study, trial, [*fixed, *chosen], where, seeds)
        print(f"trial {trial.number}: {outcome}", flush=True)
        failed += not ended
        if failed > MOST_FAILED:
            remedy = "fix their errors, or search another range in another study=FOLDER"
            raise ConfigError(f"trials: {failed} failed; {remedy}")


def repeated(study: Any, trial: Any) -> str | None:
    """The outcome of an earlier trial with the same settings; None if there is none."""
    for other in study.get_trials(deepcopy=False, states=ENDED):
        if other.user_attrs["chosen"] == trial.user_attrs["chosen"]:
            trial.set_user_attr(REPEATED, other.number)
            study.tell(trial, state=TrialState.FAIL)  # sampler and pruner leave it out
            outcome = f"return {number(other.value, 2)}" if other.state == ENDED[0] else "stopped"
            return f"{outcome}, as trial {other.number} with the same settings"
    return None


def attempt(
    study: Any, trial: Any, command: list[str], folder: Path, seeds: int
) -> tuple[str, bool]:
    """Runs one trial and reports it to the study; (its outcome, whether it did not fail)."""
    try:
        found = play(trial, command, folder, seeds)
    except optuna.TrialPruned as reason:
        study.tell(trial, state=TrialState.PRUNED)
        return f"stopped, {reason}", True
    except RuntimeError as error:
        study.tell(trial, state=TrialState.FAIL)
        return f"failed, {error}", False
    study.tell(trial, found)
    return f"return {number(found, 2)}", True


def play(trial: Any, command: list[str], folder: Path, seeds: int) -> float:
    """The mean return at the end over the seeds; continues runs that were killed.

    Raises:
        optuna.TrialPruned: the first seed lags behind the other trials, or training diverged.
        RuntimeError: a run failed; the message is its last line.
    """
    returns: list[float] = []
    reported: set[int] = set()  # steps
    for index in range(seeds):
        run, log = folder / f"s{index}", folder / f"s{index}.log"
        own = [*command, f"seed={FIRST_SEED + index}", f"run_dir={readable(run)}", "resume=auto"]
        if run.exists():  # if the worker alone was killed, its run is still going on
            with locked(run, math.inf):
                pass
        with open(log, "ab") as file:
            command_line = [sys.executable, str(TRAIN), *own]
            process = subprocess.Popen(command_line, stdout=file, stderr=file, env=passing_on())
        try:
            while process.poll() is None:
                time.sleep(POLL)
                if index == 0 and lags(trial, run, reported):
                    raise optuna.TrialPruned("it lags behind")
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait()
        if process.returncode == DIVERGED:
            raise optuna.TrialPruned("training diverged")
        if process.returncode:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise RuntimeError(lines[-1][:300] if lines else "without a message")
        if index == 0:
            lags(trial, run, reported)
        returns.append(json.loads((run / "result.json").read_text())["return_mean"])
    return statistics.fmean(returns)


def lags(trial: Any, run: Path, reported: set[int]) -> bool:
    """Reports new evaluations of the run to the study; whether the run is to stop."""
    if any(run.glob("events.out.tfevents.*")):
        for step, value in read_scalars(run, "eval/return_mean"):
            if step not in reported:
                trial.report(value, step)
                reported.add(step)
    return bool(trial.should_prune())
