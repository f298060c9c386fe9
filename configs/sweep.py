"""`train.py -m`: from values with commas and ranges to the command lines of jobs."""

import itertools
import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import ConfigError, quoted
from configs.automatic import processes
from configs.compose import parse, train_config
from configs.files import DIRECTORY
from configs.validate import nearest, show

FLAGS = ("-m", "--multirun")
MOST = 1000  # jobs, each of which is checked before the first begins
LAUNCHERS = ("basic", "joblib", "submitit_local", "submitit_slurm")
MANY = 30  # from which on their checks take seconds


@dataclass(frozen=True)
class Sweep:
    """Jobs that differ in some keys.

    Attributes:
        folder: holds a run directory for each, named by its number.
        named: whether the user chose it.
        arguments: of each job, all but its run directory.
        names: those of its arguments in which a job differs from others.
        launcher: the arguments that choose and set a launcher; empty: one after another, here.
    """

    folder: Path
    named: bool
    arguments: list[list[str]]
    names: list[str]
    launcher: list[str]

    @property
    def jobs(self) -> list[list[str]]:
        """The command line of each job."""
        return [
            [*arguments, f"run_dir={quoted(self.folder / str(number))}"]
            for number, arguments in enumerate(self.arguments)
        ]


def read_sweep(arguments: list[str]) -> Sweep:
    """Expands and checks everything before anything begins.

    Raises:
        ConfigError: as `train_config`; too many jobs; a key of Hydra's that is not to be set.
    """
    if processes() > 1:
        raise ConfigError(
            "sweep: torchrun starts one run in several processes, not several runs; "
            "use hydra/launcher=joblib in its place"
        )
    given = [argument for argument in arguments if argument not in FLAGS]
    chosen, launcher = read_launcher([value for value in given if value.startswith("hydra")])
    own = [argument for argument in given if not argument.startswith("hydra")]
    chosen = read_folder(own, chosen)
    folder = chosen or Path("runs/sweeps") / time.strftime("%Y%m%d-%H%M%S")
    axes = [expand(value) for value in own if not value.lstrip("+").startswith("run_dir=")]
    count = math.prod(map(len, axes))
    if count > MOST:
        raise ConfigError(f"sweep: makes {count} jobs, at most {MOST} are made; give fewer values")
    if count > MANY:
        print(f"checking {count} jobs", flush=True)
    combinations = [list(values) for values in itertools.product(*axes)]
    names = [
        " ".join(value for value, axis in zip(values, axes, strict=True) if len(axis) > 1)
        for values in combinations
    ]
    read = Sweep(folder, chosen is not None, combinations, names, launcher)
    for number, job in enumerate(read.jobs):
        config = train_config(job, quiet=True)  # it warns when it runs
        if chosen and config.resume is None and (folder / str(number)).exists():
            raise ConfigError(
                f"run_dir: {folder} holds runs of a sweep already; name a new one, "
                "or go on with them by resume=auto"
            )
        if config.resume is None and launcher and "submitit" in launcher[0]:
            combinations[number].append("resume=auto")  # a cluster may queue a job again
    if launcher:
        launcher_settings(launcher, folder)
    return read


def read_folder(arguments: list[str], folder: Path | None) -> Path | None:
    """The folder that `run_dir` names, or `folder` where none is given.

    Raises:
        ConfigError: the jobs are to lie in several places, or in those of other runs.
    """
    wanted = folder
    for argument in arguments:
        name = argument.lstrip("+").partition("=")[0]
        if name not in ("run_dir", "resume"):
            continue
        values = [parse(value)[2] for value in expand(argument)]
        if name == "run_dir" and (len(values) > 1 or folder is not None):
            raise ConfigError(
                "run_dir: one folder holds all jobs of a sweep; give one, in quotes if it has a "
                "comma, and no hydra.sweep.dir beside it"
            )
        if name == "run_dir":
            wanted = Path(str(values[0]))
        if name == "resume" and not {*values} <= {"auto", None}:
            raise ConfigError("resume: a sweep goes on as a whole; give its run_dir, resume=auto")
    return wanted


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
    if not override.is_discrete_sweep():
        raise ConfigError(f"{name}: {show(text)} has no values to go through; list them")
    try:
        values = list(itertools.islice(override.sweep_string_iterator(), MOST + 1))
    except (HydraException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{name}: {show(text)}, {reason}; list the values") from None
    if not values:
        raise ConfigError(f"{name}: {show(text)} has no values to go through; list them")
    return [f"{override.get_key_element()}={value}" for value in values]


def read_launcher(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """(the folder of the sweep, the arguments that choose and set a launcher)."""
    folder, overrides, chosen = None, [], "basic"
    for argument in arguments:
        name, text, value = parse(argument)
        if name == "hydra.sweep.dir" and value:
            folder = Path(str(value))
        elif name == "hydra/launcher" and str(value).isidentifier():
            chosen = str(value)
            if chosen not in LAUNCHERS:
                near = nearest(chosen, [*LAUNCHERS], "choose one")
                raise ConfigError(
                    f"{name}: {show(chosen)} is not one of {', '.join(LAUNCHERS)}; {near}"
                )
        elif name.startswith("hydra.launcher."):
            overrides.append(f"{name}={text}")
        else:
            raise ConfigError(
                f"{show(name, quote=False)}: is not to be set; of Hydra's keys these are: "
                "hydra/launcher, hydra.launcher.*, hydra.sweep.dir"
            )
    if chosen == "basic":
        if overrides:
            raise ConfigError(f"{overrides[0]}: is of a launcher; choose hydra/launcher=NAME")
        return folder, []
    return folder, [f"hydra/launcher={chosen}", *overrides]


def launcher_settings(launcher: list[str], folder: Path) -> tuple[str, dict[str, Any]]:
    """The name of a launcher, and the value of each of its keys: data, of which nothing is called.

    Args:
        launcher: `hydra/launcher=NAME`, and `hydra.launcher.KEY=VALUE` for each key to be set.
        folder: of the sweep.

    Raises:
        ConfigError: the launcher is not installed, has no such key, or not with such a value.
    """
    import hydra
    from omegaconf import OmegaConf

    name = launcher[0].partition("=")[2]

    def settings(overrides: list[str]) -> Any:
        where = ["hydra.job.name=logpi", f"hydra.sweep.dir={quoted(folder)}"]
        with (
            warnings.catch_warnings(),
            hydra.initialize_config_dir(str(DIRECTORY), version_base="1.3"),
        ):
            warnings.simplefilter("ignore")
            composed = hydra.compose("train", [*overrides, *where], return_hydra_config=True)
            plain = OmegaConf.to_container(composed.hydra.launcher, resolve=True)
        assert isinstance(plain, dict)
        return {key: value for key, value in plain.items() if key != "_target_"}

    try:
        known = [f"hydra.launcher.{key}" for key in settings(launcher[:1])]
    except Exception:
        raise ConfigError(
            f'hydra/launcher: {name} is not installed; pip install ".[sweep]" brings it'
        ) from None
    for argument in launcher[1:]:
        key = argument.partition("=")[0]
        if ".".join(key.split(".")[:3]) not in known:
            near = nearest(key, known, f"choose one of {', '.join(k[15:] for k in known)}")
            raise ConfigError(f"{show(key, quote=False)}: is not a key; {near}")
        try:
            settings([launcher[0], argument])
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"{key}: {first}; correct it") from None
    return name, settings(launcher)
