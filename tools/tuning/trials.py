"""One trial: a run for each seed, watched while it learns, stopped where it lags behind."""

import json
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common.errors import ConfigError, StorageFault
from configs.compose import quoted, train_config
from runtime.curves import read_scalars
from runtime.launch.signals import passing_on
from storage.lock import locked

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
DIVERGED = 5  # exit code
POLL = 1.0  # seconds between two looks at a run
FIRST_SEED = 1000  # of training, far from those that results are told of


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
