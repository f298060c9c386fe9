"""`train.py -m`: from values with commas and ranges to the command lines of jobs."""

import itertools
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import ConfigError, quoted, readable
from configs.automatic import processes
from configs.compose import asked, parse
from configs.files import composed, first_line
from configs.flags import SWEEP, instead
from configs.validate import nearest, show

MOST = 1000  # jobs, each of which is checked before the first begins
LAUNCHERS = ["basic", "joblib", "submitit_local", "submitit_slurm"]
MANY = 30  # from which on their checks take seconds


@dataclass(frozen=True)
class Sweep:
    """Jobs that differ in some keys, each in a run directory that is named by its number."""

    folder: Path  # of the run directories
    named: bool  # whether the user chose it
    arguments: list[list[str]]  # of each job, all but its run directory
    names: list[str]  # those of its arguments in which a job differs from others
    launcher: list[str]  # hydra/launcher=NAME, then what sets it; empty: one after another, here

    @property
    def jobs(self) -> list[list[str]]:
        """The command line of each job."""
        return [
            [*arguments, f"run_dir={readable(self.folder / str(number))}"]
            for number, arguments in enumerate(self.arguments)
        ]


def read_sweep(arguments: list[str]) -> Sweep:
    """Expands and checks everything before anything begins; raises ConfigError."""
    if processes() > 1:
        why = "torchrun starts one run in several processes, not several runs"
        raise ConfigError(f"sweep: {why}; use hydra/launcher=joblib in its place")
    given = [argument.lstrip("+") for argument in arguments if argument not in SWEEP]
    hydras = [argument for argument in given if argument.startswith("hydra")]
    chosen = read_folder(given)
    folder = chosen or Path("runs/sweeps") / time.strftime("%Y%m%d-%H%M%S")
    name, _ = launcher_settings(hydras, folder)
    launcher = [f"hydra/launcher={name}", *hydras] if name != "basic" else []
    axes = [expand(one) for one in given if not one.startswith(("hydra", "run_dir="))]
    count = math.prod(map(len, axes))
    if count > MOST:
        raise ConfigError(f"sweep: makes {count} jobs, at most {MOST} are made; give fewer values")
    if count > MANY:
        print(f"checking {count} jobs", flush=True)
    combinations = [list(values) for values in itertools.product(*axes)]
    varied = [len(axis) > 1 for axis in axes]
    names = [" ".join(itertools.compress(values, varied)) for values in combinations]
    read = Sweep(folder, chosen is not None, combinations, names, launcher)
    for number, job in enumerate(read.jobs):
        config = asked(job).config  # it warns when it runs
        if chosen and config.resume is None and (folder / str(number)).exists():
            remedy = "name a new one, or continue them by resume=auto"
            raise ConfigError(f"run_dir: {folder} holds runs of a sweep already; {remedy}")
        if config.resume is None and name.startswith("submitit"):
            combinations[number].append("resume=auto")  # a cluster may queue a job again
    return read


def first_job(arguments: list[str]) -> list[str]:
    """The arguments of the first job, with the flags of the command line but -m.

    Raises ConfigError where the sweep has no such launcher.
    """
    given = [argument for argument in arguments if argument not in SWEEP]
    launcher_settings([one for one in given if one.lstrip("+").startswith("hydra")], Path("runs"))
    return [expand(one)[0] for one in given if not one.lstrip("+").startswith("hydra")]


def read_folder(arguments: list[str]) -> Path | None:
    """The folder that `run_dir` or `hydra.sweep.dir` names; None without one.

    Raises ConfigError where the jobs are to lie in several places, or in those of other runs.
    """
    found: dict[str, list[Any]] = {"run_dir": [], "resume": [], "hydra.sweep.dir": []}
    for argument in arguments:
        name = argument.partition("=")[0]
        if name in found:
            values = [argument] if name.startswith("hydra") else expand(argument)
            found[name] = [parse(value)[2] for value in values]
    if not {*found["resume"]} <= {"auto", None}:
        raise ConfigError("resume: a sweep continues as a whole; give its run_dir and resume=auto")
    folders = found["run_dir"] + found["hydra.sweep.dir"]
    if len(folders) > 1 or "" in folders:
        remedy = "give one, in quotes if it has a comma, and no hydra.sweep.dir beside it"
        raise ConfigError(f"run_dir: one folder holds all jobs of a sweep; {remedy}")
    if "${" in str(folders):
        raise ConfigError("run_dir: one folder holds all jobs of a sweep; write it without ${...}")
    return Path(str(folders[0])) if folders else None


def expand(argument: str) -> list[str]:
    """KEY=a,b or KEY=range(3) as one KEY=VALUE for each value."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return [argument]  # `parse` raises its error
    if not override.is_sweep_override():
        return [argument]
    name, _, text = argument.partition("=")
    values, reason = [], ""
    try:
        if override.is_discrete_sweep():
            values = list(itertools.islice(override.sweep_string_iterator(), MOST + 1))
    except (HydraException, ValueError) as error:
        reason = f", {first_line(error)}"
    if not values:
        raise ConfigError(f"{name}: {show(text)} has no values{reason}; list them")
    return [f"{override.get_key_element()}={value}" for value in values]


def launcher_settings(arguments: list[str], folder: Path) -> tuple[str, dict[str, Any]]:
    """The launcher that Hydra's arguments choose, and its keys: data, of which nothing is called.

    Raises ConfigError where it is not installed, has no such key, or not with such a value.
    """
    from omegaconf import OmegaConf

    name, given = "basic", []
    for key, _, value in map(parse, arguments):
        if key == "hydra/launcher":
            name = str(value)
        elif key.startswith("hydra.launcher."):
            given.append((key, value))
        elif key != "hydra.sweep.dir":
            raise ConfigError(f"{key}: is not used here; {instead(key)}")
    if name not in LAUNCHERS:
        why = f"{show(name)} is not one of {', '.join(LAUNCHERS)}"
        raise ConfigError(f"hydra/launcher: {why}; {nearest(name, [*LAUNCHERS], 'choose one')}")
    if name == "basic" and given:
        raise ConfigError(f"{given[0][0]}: is of a launcher; choose hydra/launcher=NAME")
    if name == "basic":
        return name, {}
    where = ["hydra.job.name=logpi", f"hydra.sweep.dir={quoted(folder)}"]
    try:
        overrides = [f"hydra/launcher={name}", *where]
        settings = composed("train", overrides, return_hydra_config=True).hydra.launcher
    except Exception:
        remedy = 'pip install ".[sweep]"'
        raise ConfigError(f"hydra/launcher: {name} is not installed; {remedy}") from None
    keys = [str(key) for key in settings if key != "_target_"]
    known = [f"hydra.launcher.{key}" for key in keys]
    for key, value in given:
        if ".".join(key.split(".")[:3]) not in known:
            near = nearest(key, known, f"choose one of {', '.join(keys)}")
            raise ConfigError(f"{key}: is not a key; {near}")
        try:
            OmegaConf.update(settings, key.removeprefix("hydra.launcher."), value, force_add=True)
        except Exception as error:
            raise ConfigError(f"{key}: {first_line(error)}; correct it") from None
    plain: Any = OmegaConf.to_container(settings, resolve=True)
    return name, {key: plain[key] for key in keys}
