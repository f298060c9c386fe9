"""What a search found, as a file of `configs/tuned/`."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from configs.compose import quoted, train_config
from configs.files import options
from runtime.console import number
from storage.provenance import ROOT
from storage.rundir import write_text
from tools.tuning.lasting import trial_folder
from tools.tuning.trials import FIRST_SEED


def changed(command: list[str]) -> list[str]:
    """YAML of what a command line sets of agent and environment, by itself or by a tuned pair."""
    tuned = train_config(command)
    plain = train_config([f"agent={tuned.agent.name}", f"env.id={quoted(tuned.env.id)}"])
    lines = []
    for group in ("env", "agent"):
        was, now = (dataclasses.asdict(getattr(config, group)) for config in (plain, tuned))
        lines += [f"{group}:"]
        lines += [f"  {key}: {json.dumps(now[key])}" for key in now if now[key] != was[key]]
        if lines[-1] == f"{group}:":
            lines.pop()
    return lines


def report(study: Any, name: str, fixed: list[str], seeds: int, folder: Path) -> None:
    """The best settings, on the screen and as a tuned pair; ConfigError where no trial ended."""
    import optuna

    states = optuna.trial.TrialState
    ended = study.get_trials(deepcopy=False, states=[states.COMPLETE, states.PRUNED])
    if not any(trial.state == states.COMPLETE for trial in ended):
        raise ConfigError(f"trials: none came to its end, all in {folder} were stopped; give more "
                          "trials=N, or search another range in another study=FOLDER")  # fmt: skip
    best, count = study.best_trial, len(ended)
    lines = ["# @package _global_", f"total_steps: {train_config(fixed).total_steps}",
             f"# By tools/tune.py: best of {count} trials, return {number(best.value, 2)} on seed"
             + (f"s {FIRST_SEED} to {FIRST_SEED + seeds - 1}." if seeds > 1 else f" {FIRST_SEED}."),
             *changed([*fixed, *best.user_attrs["chosen"]])]  # fmt: skip
    path = folder / f"{name}.yaml"
    write_text(path, "\n".join(lines) + "\n")
    where = trial_folder(best, folder)
    print(f"\nbest of {count}: {number(best.value, 2)}, trial {best.number}, {where}")
    print("\n".join(lines))
    env = name.rpartition("-")[0]
    first = ""
    if env not in options("env"):
        first = f"save the environment as configs/env/{env}.yaml, as tools/doctor.py shows it, and "
    there = ROOT / "configs" / "tuned" / path.name
    place = ", in place of the one that is there" if there.exists() else ""
    print(f"written to {path}; {first}copy it to configs/tuned/{path.name}{place}: it comes by "
          f"itself with env={env}, and its total_steps with it")  # fmt: skip
