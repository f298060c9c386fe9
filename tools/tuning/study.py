"""A study of settings that outlives its workers, and its trials.

The study is a journal in a folder; one worker at a time begins a trial. A trial is a run for each
seed, watched while it learns and stopped where it lags behind the others.
"""

import json
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

from common.errors import ConfigError, StorageFault, shown
from configs.compose import quoted, train_config
from runtime.curves import read_scalars
from runtime.launch.signals import passing_on
from storage.lock import locked
from tools.tuning.spaces import Choice, Range, Space

LONGEST_TURN = 60.0  # seconds
TRAIN = Path(__file__).resolve().parents[2] / "train.py"
DIVERGED = 5  # exit code
POLL = 1.0  # seconds between two looks at a run
FIRST_SEED = 1000  # of training, far from those of published results


def open_study(folder: Path) -> Any:
    """The study in this folder, made where there is none: a journal that survives a kill."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

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
    import optuna

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
def turn(folder: Path) -> Iterator[None]:
    """Waits for the study: one worker at a time begins a trial, or looks for abandoned ones."""
    until = time.monotonic() + LONGEST_TURN
    with ExitStack() as held:
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
    import optuna

    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        where = trial_folder(trial, folder)
        try:
            with locked(where):
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        except StorageFault:  # its worker lives
            continue
        study.enqueue_trial(trial.params, user_attrs={"folder": str(where)})


def trial_folder(trial: Any, folder: Path) -> Path:
    """Where a trial lies; one that was taken over lies where it began."""
    where = Path(trial.user_attrs.get("folder") or folder / f"trial-{trial.number:04d}")
    where.mkdir(exist_ok=True)
    return where


def require_fit(fixed: list[str]) -> None:
    """Raises ConfigError where the agent cannot act in the environment: all trials would fail."""
    from agents import require_served
    from envs.envs import Envs

    config = train_config(fixed)
    envs = Envs(config.env.id, 1, "sync", config.env.kwargs, seed=0)
    try:
        require_served(config.agent.name, envs.spec.kind)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    finally:
        envs.close()


def play(trial: Any, command: list[str], folder: Path, seeds: int) -> float:
    """The mean return at the end over the seeds.

    A run that was killed goes on where it was.

    Raises:
        optuna.TrialPruned: the first seed lags behind the other trials, or training diverged.
        RuntimeError: a run failed; the message is its last line.
    """
    import optuna

    returns: list[float] = []
    reported: set[int] = set()  # steps
    for index in range(seeds):
        run, log = folder / f"s{index}", folder / f"s{index}.log"
        own = [*command, f"seed={FIRST_SEED + index}", f"run_dir={quoted(run)}", "resume=auto"]
        wait_until_free(run)
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
            raise optuna.TrialPruned("training diverged")  # so that the study learns of it
        if process.returncode:
            raise RuntimeError(last_line(log))
        if index == 0:
            lags(trial, run, reported)
        returns.append(json.loads((run / "result.json").read_text())["return_mean"])
    return statistics.fmean(returns)


def wait_until_free(run: Path) -> None:
    """Where only the worker was killed, the run that it had begun is not: that ends first."""
    while run.exists():
        try:
            with locked(run):
                return
        except StorageFault:
            time.sleep(POLL)


def lags(trial: Any, run: Path, reported: set[int]) -> bool:
    """Tells the study what the run has reached by now; whether it is to stop."""
    if any(run.glob("events.out.tfevents.*")):
        for step, value in read_scalars(run, "eval/return_mean"):
            if step not in reported:
                trial.report(value, step)
                reported.add(step)
    return bool(trial.should_prune())


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"
