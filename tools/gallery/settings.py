"""The command line of `tools/verify.py`: every key, its default, range and help; no torch."""

import math
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from types import GenericAlias
from typing import Any

from common.errors import ConfigError
from configs.files import read_yaml
from configs.validate import Group, unknown_key
from tools.shared import Keys, described, key, names, read_keys


@dataclass(frozen=True)
class Options(Keys):
    """Keys of the command itself."""

    section: str = key(
        "all", "a section below, whose keys can then be given, or several with commas; or all"
    )
    seed: int = key(0, "seed of all draws", ge=0, lt=2**62)
    out: str = key("", "folder of the report; empty: runs/verify/<date-time>")
    run: str = key("", "a run directory, whose policy is audited instead")
    checkpoint: str = key("latest", "checkpoint of the run: latest, best, or step-<12 digits>")
    env_id: str = key(
        "", "the id of the run once more, if it names a module (MODULE:NAME)", name="env.id"
    )
    verbose: bool = key(False, "print every check, not one line for each section")
    false_alarms: int = key(
        0, "only count how often the right code fails, over so many seeds", ge=0
    )


@dataclass(frozen=True)
class AnyPolicy(Keys):
    """Keys of the check of any policy, by `of` or `pairs`."""

    of: str = key(
        "", "MODULE:NAME or FILE.py:NAME of a distribution, or of what returns one, or pairs"
    )
    pairs: str = key("", "in place of it, an .npz file with 1,000 or more `actions` and `log_pi`")
    args: float | str | list[float | str | bool | list[float]] | None = key(
        None, "what NAME is called with; a list in it becomes a tensor"
    )
    low: float | list[float] | None = key(
        None, "lower bounds of the actions; null: none, or those of the distribution"
    )
    high: float | list[float] | None = key(None, "upper bounds")
    dim: int = key(0, "number of components that an action must have; 0: any", ge=0)
    draws: int = key(20_000, "number of draws", ge=1000, le=10_000_000)
    seed: int = key(0, "seed of all draws", ge=0, lt=2**62)
    out: str = key("", "folder of the report; empty: runs/verify/<date-time>")


class Settings(Group):
    """Keys of a section."""

    def check(self) -> None:
        for name in ("mean", "std"):
            given = getattr(self, name, 0.0)
            two = not isinstance(given, list) or len(given) == 2
            self.require(two, name, "must have two components", "give two")
        rows = getattr(self, "scale_tril", [[1, 0], [0, 1]])
        (a, upper), (b, c) = rows if [len(row) for row in rows] == [2, 2] else [[0, 0], [0, 0]]
        fits = upper == 0 and min(a, c) >= 0.001 and max(a, math.hypot(b, c)) <= 3
        why = "must be a lower triangle of standard deviations from 0.001 to 3, with |L21| <= 5 L22"
        remedy = "e.g. [[0.15,0],[0.044,0.033]]"
        self.require(fits and abs(b) <= 5 * c, "scale_tril", why, remedy)
        probs = getattr(self, "probs", [0.5, 0.5])
        mask = getattr(self, "mask", [1] * len(probs))
        chosen = len(mask) == len(probs) and sum(mask) > 0
        self.require(chosen, "mask", "must permit an action of `probs`", "e.g. [1,0,1]")
        whole = len(probs) > 1 and abs(sum(probs) - 1) < 1e-6
        self.require(whole, "probs", "must be two or more that sum to 1", "e.g. [0.7,0.2,0.1]")
        values = getattr(self, "values", [[1.0]])
        inside = all(row and all(0.001 <= value <= 1000 for value in row) for row in values)
        alike = len({len(row) for row in values}) == 1
        why = "is no matrix of numbers from 0.001 to 1000"
        self.require(alike and inside, "values", why, "e.g. [[1,2],[3,4]]")


def typed(value: Any) -> Any:
    """The type of a default, of a list that of its elements."""
    return GenericAlias(list, (typed(value[0]),)) if isinstance(value, list) else type(value)


def section(about: str, **defaults: Any) -> type[Settings]:
    """The settings of a section, whose keys have the types of their defaults."""
    docs, own = TABLES["keys"], {"__doc__": about}
    keys = [(name, typed(value), key(value, **docs[name])) for name, value in defaults.items()]
    return make_dataclass("Settings", keys, bases=(Settings,), namespace=own, frozen=True)


TABLES = read_yaml(Path(__file__).with_suffix(".yaml"))
SECTIONS = {name: section(**values) for name, values in TABLES["sections"].items()}


def parse(arguments: list[str]) -> tuple[Options, dict[str, Any]]:
    """(the command's own options, the settings of each chosen section).

    Raises:
        ConfigError: an unknown section or key, or a value of the wrong type or out of range.
    """
    own, rest = read_keys(Options, arguments, "")
    if own.run and (rest or own.section != "all" or own.false_alarms):
        raise ConfigError("run: takes seed, out, checkpoint, verbose and env.id; leave others out")
    chosen = own.section.split(",")
    own.require_names("section", ["all", *SECTIONS])
    if "all" not in chosen:
        return own, {name: read_keys(SECTIONS[name], rest)[0] for name in chosen}
    for name in (argument.partition("=")[0] for argument in rest):
        having = [section for section, group in SECTIONS.items() if name in names(group)]
        if not having:
            raise ConfigError(unknown_key(name, [*names(Options), "samples"]))
        if name != "samples":
            one = f"add section=NAME, one of {', '.join(having)}"
            raise ConfigError(f"{name}: is a key of single sections; {one}")
    samples = {name: rest if "samples" in names(SECTIONS[name]) else [] for name in SECTIONS}
    return own, {name: read_keys(SECTIONS[name], samples[name])[0] for name in SECTIONS}


USAGE = """\
usage: python tools/verify.py [KEY=VALUE ...]

  python tools/verify.py                                     every section
  python tools/verify.py section=tanh_normal mean=5 std=0.2  one, with other settings
  python tools/verify.py run=runs/...                        a trained policy
  python tools/verify.py false_alarms=1000                   its rate of false alarms
  python tools/verify.py of=my_module:my_policy low=-1 high=1   anyone's policy
  python tools/verify.py of=torch.distributions:Normal args=[4.0,0.8]
  python tools/verify.py pairs=pairs.npz low=-1 high=1        actions and log_pi

exit code 0: everything holds; 1: something does not; 2: a key or value is wrong
"""


def help_text() -> str:
    """All sections and keys with their defaults."""
    lines = [USAGE, "keys:", *described(Options, 44)]
    for section, group in SECTIONS.items():
        lines += [f"section={section}: {group.__doc__}", *described(group, 44)]
    lines += ["of=MODULE:NAME or pairs=FILE.npz, with these keys alone:", *described(AnyPolicy, 44)]
    end = "without section=NAME, samples=N is the number of draws in all sections that have it"
    return "\n".join([*lines, end])
