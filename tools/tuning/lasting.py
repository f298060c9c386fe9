"""A study that outlives its workers: a journal in a folder, one turn at a time."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from common.errors import ConfigError, StorageFault, shown
from storage.lock import locked
from tools.tuning.spaces import Choice, Range, Space

LONGEST_TURN = 60.0  # seconds


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
