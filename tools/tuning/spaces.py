"""Search spaces: ranges on the command line, or the usual ones of an agent."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from configs.compose import parse
from configs.files import read_yaml
from configs.resume import values_of
from configs.schema import TrainConfig

NUMBER = r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
SPAN = re.compile(rf"({NUMBER})\.\.({NUMBER})(:log)?")


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; with `log`, uniform in their logarithm."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __str__(self) -> str:
        """As on the command line."""
        return f"{self.low}..{self.high}" + ":log" * self.log

    def suggest(self, trial: Any, key: str) -> Any:
        if self.whole:
            return trial.suggest_int(key, self.low, self.high)
        return f"{trial.suggest_float(key, self.low, self.high, log=self.log):.4g}"

    def place(self, key: str, value: Any) -> Any:
        """A value as Optuna stores it; None outside the range."""
        inside = isinstance(value, int | float) and self.low <= value <= self.high
        return type(self.low)(value) if inside else None

    def wider(self, value: Any) -> "Range":
        return replace(self, low=min(self.low, value), high=max(self.high, value))


@dataclass(frozen=True)
class Choice:
    """One of several values, each as it is written on the command line."""

    values: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.values)

    def suggest(self, trial: Any, key: str) -> Any:
        return trial.suggest_categorical(key, list(self.values))

    def place(self, key: str, value: Any) -> Any:
        """The text of a value; None if it is no choice."""
        return next((text for text in self.values if parse(f"{key}={text}")[2] == value), None)

    def wider(self, value: Any) -> "Choice":
        return Choice((*self.values, json.dumps(value, separators=(",", ":"))))


Space = dict[str, Range | Choice]


def usual(agent: str, on_policy: bool) -> Space:
    """What is searched if the command line names no keys; widened by `holding`."""
    tables = read_yaml(Path(__file__).with_suffix(".yaml"))
    texts = {**tables["on_policy" if on_policy else "off_policy"], **tables.get(agent, {})}
    return {key: read_space(key, text) or Choice((text,)) for key, text in texts.items()}


def read_space(key: str, text: str) -> Range | Choice | None:
    """The space of LOW..HIGH, LOW..HIGH:log or A,B,C; None for a single value."""
    if span := SPAN.fullmatch(text):
        log = bool(span[3])
        whole = not log and all(re.fullmatch(r"[-+]?\d+", span[i]) for i in (1, 2))
        low, high = (int(end) if whole else float(end) for end in span.group(1, 2))
        if not low < high or (log and low <= 0):
            raise ConfigError(f"{key}: {text} is no range; give LOW..HIGH, above 0 with :log")
        return Range(low, high, log, whole)
    values, depth = [""], 0
    for character in text:  # split at commas outside brackets
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            values.append("")
        else:
            values[-1] += character
    return Choice(tuple(values)) if len(values) > 1 else None


def draw(space: Space, trial: Any) -> list[str]:
    """KEY=VALUE of everything searched, as an Optuna trial suggests it."""
    return [f"{key}={what.suggest(trial, key)}" for key, what in space.items()]


def holding(config: TrainConfig, space: Space) -> Space:
    """The space, widened until it contains the unchanged settings."""
    values = values_of(config)
    return {
        key: what.wider(values[key]) if what.place(key, values[key]) is None else what
        for key, what in space.items()
    }


def present(config: TrainConfig, space: Space) -> dict[str, Any] | None:
    """The unchanged settings, as Optuna stores them; None outside the space."""
    values = values_of(config)
    found = {key: what.place(key, values.get(key)) for key, what in space.items()}
    return None if None in found.values() else found


def ends(space: Space) -> list[list[str]]:
    """Command lines with both ends of every range and with every choice, to be checked first."""
    return [
        [f"{key}={value}"]
        for key, what in space.items()
        for value in (what.values if isinstance(what, Choice) else (what.low, what.high))
    ]
