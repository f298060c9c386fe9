"""What is searched: ranges on the command line, or these."""

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from common.errors import ConfigError
from configs.compose import parse

NUMBER = r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
SPAN = re.compile(rf"({NUMBER})\.\.({NUMBER})(:log)?")


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; with `log` evenly over their logarithms."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __str__(self) -> str:
        """As the command line has it."""
        ends = [str(int(end) if self.whole else float(end)) for end in (self.low, self.high)]
        return "..".join(ends) + ":log" * self.log


@dataclass(frozen=True)
class Choice:
    """One of several values, each as it is written on the command line."""

    values: tuple[str, ...]

    def __str__(self) -> str:
        """As the command line has it."""
        return ",".join(self.values)


Space = dict[str, Range | Choice]
ON_POLICY: Space = {
    "agent.lr": Range(1e-4, 1e-2, log=True),
    "agent.gamma": Choice(("0.9", "0.95", "0.98", "0.99", "0.995")),
    "agent.gae_lambda": Range(0.8, 1.0),
    "agent.n_steps": Choice(("5", "8", "16", "32")),
    "agent.ent_coef": Choice(("0.0", "0.001", "0.003", "0.01", "0.03")),
    "agent.normalise_obs": Choice(("false", "true")),
}
OFF_POLICY: Space = {
    "agent.lr": Range(1e-4, 5e-3, log=True),
    "agent.gamma": Choice(("0.95", "0.98", "0.99", "0.995")),
    "agent.tau": Range(2e-3, 5e-2, log=True),
    "agent.hidden": Choice(("[64,64]", "[128,128]", "[256,256]")),
    "agent.normalise_critic": Choice(("false", "true")),
    "agent.normalise_obs": Choice(("false", "true")),
}
SPACES: dict[str, Space] = {  # where the command line names none, widened by `holding`
    "a2c": ON_POLICY,
    "ppo": {
        **ON_POLICY,
        "agent.n_steps": Choice(("64", "128", "256")),
        "agent.epochs": Choice(("4", "10", "20")),
    },
    "sac": OFF_POLICY,
    "sac_discrete": OFF_POLICY,
}


def read_space(key: str, text: str) -> Range | Choice | None:
    """LOW..HIGH, LOW..HIGH:log or A,B,C as something to search; None for a single value."""
    span = SPAN.fullmatch(text)
    if span:
        low, high, log = float(span[1]), float(span[2]), bool(span[3])
        if not low < high or (log and low <= 0):
            raise ConfigError(f"{key}: {text} is no range; give LOW..HIGH, above 0 with :log")
        whole = not log and all(re.fullmatch(r"[-+]?\d+", span[i]) for i in (1, 2))
        return Range(low, high, log, whole)
    values = split(text)
    return Choice(tuple(values)) if len(values) > 1 else None


def split(text: str) -> list[str]:
    """At commas that stand in no brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def draw(space: Space, trial: Any) -> list[str]:
    """KEY=VALUE of everything searched, as an Optuna trial suggests it."""
    chosen = []
    for key, what in space.items():
        if isinstance(what, Choice):
            value: Any = trial.suggest_categorical(key, list(what.values))
        elif what.whole:
            value = trial.suggest_int(key, int(what.low), int(what.high))
        else:
            value = f"{trial.suggest_float(key, what.low, what.high, log=what.log):.4g}"
        chosen.append(f"{key}={value}")
    return chosen


def setting(config: Any, key: str) -> Any:
    """The value of a key, its name in full; None of an environment's option that is not given."""
    value = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else getattr(value, name)
    return value


def holding(config: Any, space: Space) -> Space:
    """The space, as much wider as it takes to hold the settings as they are."""
    wider: Space = {}
    for key, what in space.items():
        value = setting(config, key)
        if present(config, {key: what}) is not None:
            wider[key] = what
        elif isinstance(what, Choice):
            text = json.dumps(value, separators=(",", ":"))
            wider[key] = Choice((*what.values, text))
        else:
            wider[key] = replace(what, low=min(what.low, value), high=max(what.high, value))
    return wider


def present(config: Any, space: Space) -> dict[str, Any] | None:
    """The settings as they are, in Optuna's terms; None where the space does not hold them."""
    found: dict[str, Any] = {}
    for key, what in space.items():
        value = setting(config, key)
        if isinstance(what, Choice):
            same = [text for text in what.values if parse(f"{key}={text}")[2] == value]
            if not same:
                return None
            found[key] = same[0]
        elif not isinstance(value, int | float) or not what.low <= value <= what.high:
            return None
        else:
            found[key] = int(value) if what.whole else float(value)
    return found


def ends(space: Space) -> list[list[str]]:
    """Command lines that reach every value named, to be checked before anything begins."""
    found = []
    for key, what in space.items():
        values = what.values if isinstance(what, Choice) else (what.low, what.high)
        if isinstance(what, Range) and what.whole:
            values = (int(what.low), int(what.high))
        found += [[f"{key}={value}"] for value in values]
    return found
