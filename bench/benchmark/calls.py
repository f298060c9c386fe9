"""What the tools that measure share: options, and the project's doors in processes of their own."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from common.errors import ConfigError
from configs.validate import unknown_key

ROOT = Path(__file__).resolve().parents[2]
NUMBER, SEEDS, FOLDER = r"[1-9]\d*", r"\d+(-\d+)?", ".+"


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
