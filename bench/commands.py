"""What the measuring commands share: options, and the project's doors in processes of their own."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from configs.compose import quoted
from configs.validate import unknown_key

ROOT = Path(__file__).resolve().parents[1]
SEEDS, FOLDER = r"\d+(-\d+)?", ".+"
Row = dict[str, Any]  # what one seed came to


def options(arguments: list[str], known: Mapping[str, str]) -> dict[str, str]:
    """NAME=VALUE of what is given; `known` has a pattern for the values of each name.

    Raises:
        ConfigError: for what is not known, or has another value; nothing has been begun.
    """
    given = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if argument in ("debug=true", "debug=false"):
            continue  # is the door's
        if name not in known:
            raise ConfigError(unknown_key(name, list(known)))
        if not re.fullmatch(known[name], value):
            raise ConfigError(f"{name}: {value!r} is not understood; --help shows what is")
        given[name] = value
    return given


def seeds(text: str) -> range:
    """FIRST-LAST, or one seed, as a range; ConfigError where it is empty."""
    first, _, last = text.partition("-")
    found = range(int(first), int(last or first) + 1)
    if not found:
        raise ConfigError(f"seeds: {text} are none; give FIRST-LAST, the smaller one first")
    return found


def door(*command: str) -> None:
    """One of the project's commands in a process of its own; its failure ends this one too."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(done.returncode)


def train_and_evaluate(
    overrides: Sequence[str], seed: int, run_dir: Path, *evaluation: str
) -> tuple[Row, dict[str, Any]]:
    """One seed with the project's own commands.

    Returns:
        seed, return_mean and return_sem of the evaluation, seconds of the whole training process,
        and its curve [[step, return], ...]; and result.json.
    """
    from runtime.curves import read_scalars

    run, started = quoted(run_dir.absolute()), time.perf_counter()
    door("train.py", *overrides, f"seed={seed}", f"run_dir={run}")
    seconds = time.perf_counter() - started
    door("evaluate.py", f"run={run}", *evaluation)
    evaluated = json.loads((run_dir / "evaluation.json").read_text())
    row = {
        "seed": seed,
        "return_mean": evaluated["return_mean"],
        "return_sem": evaluated["return_sem"],
        "seconds": seconds,
        "curve": read_scalars(run_dir, "eval/return_mean"),
    }
    return row, json.loads((run_dir / "result.json").read_text())
