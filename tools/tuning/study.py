"""A study of settings that outlives its workers, and its trials.

The study is a journal in a folder; one worker at a time begins a trial. A trial is a run for each
seed, watched while it learns and stopped where it lags behind the others.
"""

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from common.errors import ConfigError, StorageFault, shown
from configs.compose import quoted
from runtime.console import number
from runtime.curves import read_scalars
from runtime.launch.signals import passing_on
from storage.lock import locked
from tools.tuning.spaces import Choice, Range, Space, draw

LONGEST_TURN = 60.0  # seconds
TRAIN = Path(__file__).resolve().parents[2] / "train.py"
DIVERGED = 5  # exit code
POLL = 1.0  # seconds between two looks at a run
FIRST_SEED = 1000  # of training, far from those of published results
MOST_FAILED = 5  # in one call
REPEATED = "repeats"  # of a trial with the settings of an earlier one: its number
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
UNCOUNTED = (TrialState.WAITING, TrialState.FAIL)


def open_study(folder: Path) -> Any:
    """The study in this folder, made where there is none: a journal that survives a kill."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = str(folder / "study.journal")
    lock = JournalFileOpenLock(path) if os.name == "nt" else None  # the usual one is a link
    return optuna.create_study(
        study_name="logpi",
        storage=JournalStorage(JournalFileBackend(path, lock_obj=lock)),
        direction="maximize",
        load_if_exists=True,
        sampler=sampler(0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=0),
    )


def sampler(number: int) -> Any:
    """What suggests trial `number`, from that and the trials before it alone.

    So the same search with one worker makes the same trials, also where it was stopped between two,
    as long as none is ended early: when that is seen depends on the clock.
    """
    return optuna.samplers.TPESampler(seed=number, multivariate=True, constant_liar=True)


def require_same(study: Any, fixed: list[str], space: Space, folder: Path) -> None:
    """Raises ConfigError where the study searches other keys, or under other settings."""
    ranges = {key: repr(space[key]) for key in sorted(space)}
    asked = {"fixed": sorted(fixed), "searched": ranges}
    was = study.user_attrs.get("asked")
    if was is None:
        study.set_user_attr("asked", asked)
        study.set_user_attr("space", {key: vars(what) for key, what in space.items()})
    elif was != asked:
        made = [*was["fixed"], *(f"{key}={what}" for key, what in recorded_space(study).items())]
        raise ConfigError(
            f"study: {folder} was made with other settings; repeat those, "
            f"{' '.join(map(shown, made))}, or name another by study=FOLDER"
        )


def recorded_space(study: Any) -> Space:
    """What the study searches; empty of one that has not begun."""
    found = study.user_attrs.get("space", {})
    return {
        key: Choice(tuple(what["values"])) if "values" in what else Range(**what)
        for key, what in found.items()
    }


@contextmanager
def turn(folder: Path, longest: float = LONGEST_TURN) -> Iterator[None]:
    """Waits for a folder: of a study, one worker at a time begins a trial, or takes others over."""
    with ExitStack() as held:
        until = time.monotonic() + longest
        while True:
            try:
                held.enter_context(locked(folder))
                break
            except StorageFault:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        yield


def take_over(study: Any, folder: Path) -> None:
    """Trials of workers that are no more: noted as failed, and put first in the queue again."""
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        where = trial_folder(trial, folder)
        try:
            with locked(where):
                study.tell(trial.number, state=TrialState.FAIL)
        except StorageFault:  # its worker lives
            continue
        study.enqueue_trial(trial.params, user_attrs={"folder": str(where)})


def trial_folder(trial: Any, folder: Path) -> Path:
    """Where a trial lies; one that was taken over lies where it began."""
    where = Path(trial.user_attrs.get("folder") or folder / f"trial-{trial.number:04d}")
    where.mkdir(exist_ok=True)
    return where


def search(
    study: Any, trials: int, fixed: list[str], space: Space, folder: Path, seeds: int
) -> None:
    """Trials one after another, until the study has as many as asked."""
    failed = 0
    while True:
        with ExitStack() as held:
            with turn(folder):
                every = study.get_trials(deepcopy=False)
                waiting = [t.number for t in every if t.state == TrialState.WAITING]
                counted = [t for t in every if t.state not in UNCOUNTED or REPEATED in t.user_attrs]
                if len(counted) >= trials:
                    return
                study.sampler = sampler(min(waiting, default=len(every)))
                trial = study.ask()
                where = trial_folder(trial, folder)
                held.enter_context(locked(where))  # `take_over` leaves a locked trial alone
            chosen = draw(space, trial)
            trial.set_user_attr("chosen", chosen)
            outcome, ended = repeated(study, trial), True
            if outcome is None:
                begins = f"begins: {' '.join(chosen)}; {where}/s0.log"
                print(f"trial {trial.number} {begins}", flush=True)
                outcome, ended = attempt(study, trial, [*fixed, *chosen], where, seeds)
        print(f"trial {trial.number}: {outcome}", flush=True)
        failed += not ended
        if failed > MOST_FAILED:
            remedy = "fix what they say, or search another range in another study=FOLDER"
            raise ConfigError(f"trials: {failed} failed; {remedy}")


def repeated(study: Any, trial: Any) -> str | None:
    """What came of the same settings before; such a trial adds nothing to the study."""
    for other in study.get_trials(deepcopy=False, states=ENDED):
        if other.user_attrs["chosen"] == trial.user_attrs["chosen"]:
            trial.set_user_attr(REPEATED, other.number)
            study.tell(trial, state=TrialState.FAIL)  # which sampler and pruner leave out
            outcome = number(other.value, 2) if other.state == ENDED[0] else "stopped"
            return f"{outcome}, as trial {other.number} with the same settings"
    return None


def attempt(
    study: Any, trial: Any, command: list[str], folder: Path, seeds: int
) -> tuple[str, bool]:
    """Runs one trial and reports it to the study; (what came of it, whether it did not fail)."""
    try:
        found = play(trial, command, folder, seeds)
    except optuna.TrialPruned as reason:
        study.tell(trial, state=TrialState.PRUNED)
        return f"stopped, {reason}", True
    except RuntimeError as error:
        study.tell(trial, state=TrialState.FAIL)
        return f"failed, {error}", False
    study.tell(trial, found)
    return number(found, 2), True


def play(trial: Any, command: list[str], folder: Path, seeds: int) -> float:
    """The mean return at the end over the seeds.

    A run that was killed goes on where it was.

    Raises:
        optuna.TrialPruned: the first seed lags behind the other trials, or training diverged.
        RuntimeError: a run failed; the message is its last line.
    """
    returns: list[float] = []
    reported: set[int] = set()  # steps
    for index in range(seeds):
        run, log = folder / f"s{index}", folder / f"s{index}.log"
        own = [*command, f"seed={FIRST_SEED + index}", f"run_dir={quoted(run)}", "resume=auto"]
        if run.exists():  # where the worker alone was killed, its run first has to end
            with turn(run, longest=math.inf):
                pass
        with open(log, "ab") as file:
            process = subprocess.Popen(
                [sys.executable, str(TRAIN), *own],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=passing_on(),
            )
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
            raise optuna.TrialPruned("training diverged")  # which is recorded in the study
        if process.returncode:
            lines = log.read_text(errors="replace").strip().splitlines() or ["without a word"]
            raise RuntimeError(lines[-1][:300])
        if index == 0:
            lags(trial, run, reported)
        returns.append(json.loads((run / "result.json").read_text())["return_mean"])
    return statistics.fmean(returns)


def lags(trial: Any, run: Path, reported: set[int]) -> bool:
    """Reports what the run has reached by now to the study; whether it is to stop."""
    if any(run.glob("events.out.tfevents.*")):
        for step, value in read_scalars(run, "eval/return_mean"):
            if step not in reported:
                trial.report(value, step)
                reported.add(step)
    return bool(trial.should_prune())
