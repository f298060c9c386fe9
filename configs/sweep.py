"""`train.py -m`: from values with commas and ranges to jobs, and to whatever launches them."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from configs.automatic import processes
from configs.compose import DIRECTORY, parse, quoted, train_config
from configs.validate import nearest, show

FLAGS = ("-m", "--multirun")
MOST = 1000  # jobs, each of which is checked before the first begins
BROUGHT = ("joblib", "submitit_local", "submitit_slurm")  # by an extra of ours
MANY = 30  # from which on their checks take seconds
QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null",
         "hydra.sweep.subdir=.", "hydra.job.name=logpi")  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """Jobs that differ in some keys.

    Attributes:
        folder: holds a run directory for each, named by its number.
        named: whether the user chose it.
        jobs: the command line of each.
        names: what sets each apart from the others.
        launcher: what Hydra is told of it; empty: one after another, here.
    """

    folder: Path
    named: bool
    jobs: list[list[str]]
    names: list[str]
    launcher: list[str]

    def moved(self, folder: Path) -> "Sweep":
        """The same jobs in another folder."""
        jobs = [
            [run_dir(folder, number) if value == run_dir(self.folder, number) else value
             for value in job]
            for number, job in enumerate(self.jobs)
        ]  # fmt: skip
        return replace(self, folder=folder, jobs=jobs)


def run_dir(folder: Path, number: int) -> str:
    """The argument that sends a job to its directory."""
    return f"run_dir={quoted(folder / str(number))}"


def read_sweep(arguments: list[str]) -> Sweep:
    """Expands and checks everything before anything begins.

    Raises:
        ConfigError: as `train_config`; too many jobs; a key of Hydra's that is not to be set.
    """
    import hydra

    if processes() > 1:
        raise ConfigError("sweep: torchrun starts one run in several processes, not several runs; "
                          "use hydra/launcher=joblib in its place")  # fmt: skip
    given = [argument for argument in arguments if argument not in FLAGS]
    launcher = [argument for argument in given if argument.startswith("hydra")]
    own = [argument for argument in given if not argument.startswith("hydra")]
    folder, launcher = read_launcher(launcher)
    require_one_folder(own, folder)
    axes = [expand(argument) for argument in own]
    count = 1
    for axis in axes:
        count *= len(axis)
    if count > MOST:
        raise ConfigError(f"sweep: makes {count} jobs, at most {MOST} are made; give fewer values")
    if count > MANY:
        print(f"checking {count} jobs", flush=True)
    jobs, names, named = [], [], folder is not None
    for number, values in enumerate(itertools.product(*axes)):
        wanted = [value for value in values if value.lstrip("+").startswith("run_dir=")]
        job = [value for value in values if value not in wanted]
        folder = folder or (Path(str(parse(wanted[-1])[2])) if wanted else None)
        named = named or bool(wanted)
        folder = folder or Path("runs/sweeps") / time.strftime("%Y%m%d-%H%M%S")
        jobs.append([*job, run_dir(folder, number)])
        config = train_config(jobs[-1], quiet=True)  # it warns when it runs
        if named and config.resume is None and (folder / str(number)).exists():
            raise ConfigError(f"run_dir: {folder} holds runs of a sweep already; name a new one, "
                              "or go on with them by resume=auto")  # fmt: skip
        if config.resume is None and any("launcher=submitit" in told for told in launcher):
            jobs[-1].append("resume=auto")  # a cluster may queue a job again
        names.append(" ".join(value for value, axis in zip(values, axes, strict=True)
                              if len(axis) > 1))  # fmt: skip
    assert folder is not None
    if launcher:
        with hydra.initialize_config_dir(str(DIRECTORY), version_base="1.3"):
            composed(launcher, folder)
    return Sweep(folder, named, jobs, names, launcher)


def require_one_folder(arguments: list[str], folder: Path | None) -> None:
    """Raises ConfigError where the jobs are to lie in several places, or in those of other runs."""
    for argument in arguments:
        name = argument.lstrip("+").partition("=")[0]
        if name not in ("run_dir", "resume"):
            continue
        values = [parse(value)[2] for value in expand(argument)]
        if name == "run_dir" and (len(values) > 1 or folder is not None):
            raise ConfigError("run_dir: one folder holds all jobs of a sweep; give one, in quotes "
                              "if it has a comma, and no hydra.sweep.dir beside it")  # fmt: skip
        if name == "resume" and not {*values} <= {"auto", None}:
            raise ConfigError("resume: a sweep goes on as a whole; give its run_dir, resume=auto")


def expand(argument: str) -> list[str]:
    """KEY=a,b or KEY=range(3) as one KEY=VALUE for each value."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return [argument]  # `parse` tells what is wrong with it
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
    """(the folder of the sweep, what Hydra is told of the launcher)."""
    folder, overrides, chosen = None, [], "basic"
    for argument in arguments:
        name, text, value = parse(argument)
        if name == "hydra.sweep.dir" and value:
            folder = Path(str(value))
        elif name == "hydra/launcher" and str(value).isidentifier():
            chosen = str(value)
        elif name.startswith("hydra.launcher.") and not names_code(name.split(".")[2:], value):
            overrides.append(f"{name}={text}")
        else:
            raise ConfigError(f"{show(name, quote=False)}: is not to be set; of Hydra's keys these "
                              "are: hydra/launcher, hydra.launcher.*, hydra.sweep.dir")  # fmt: skip
    if chosen == "basic":
        if overrides:
            raise ConfigError(f"{overrides[0]}: is of a launcher; choose hydra/launcher=NAME")
        return folder, []
    return folder, [f"hydra/launcher={chosen}", *overrides]


def names_code(keys: Iterable[Any], value: Any) -> bool:
    """Whether a key, or one inside the value, is like `_target_`, which Hydra would call."""
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, (dict, list)):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
    return any(str(key).strip("'\"").startswith("_") for key in keys) or any(
        names_code([key], item) for key, item in inside
    )


def composed(launcher: list[str], folder: Path) -> Any:
    """Hydra's own configuration of a launcher; ConfigError where there is no such one."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    where = f"hydra.sweep.dir={quoted(folder)}"
    try:
        return hydra.compose("train", [*QUIET, *launcher, where], return_hydra_config=True)
    except Exception as error:
        name = launcher[0].partition("=")[2]
        there = GlobalHydra.instance().config_loader().get_group_options("hydra/launcher")
        if name in BROUGHT and name not in there:
            raise ConfigError(
                f'hydra/launcher: {name} is not installed; pip install ".[sweep]" brings it'
            ) from None
        if name not in there:
            raise ConfigError(f"hydra/launcher: {show(name)} is not one of {', '.join(there)}; "
                              f"{nearest(name, there, 'choose one')}") from None  # fmt: skip
        chosen = composed(launcher[:1], folder).hydra.launcher
        known = [f"hydra.launcher.{key}" for key in chosen if not str(key).startswith("_")]
        keys = ", ".join(key.rpartition(".")[2] for key in known)
        for name in (argument.partition("=")[0] for argument in launcher[1:]):
            if ".".join(name.split(".")[:3]) not in known:
                near = nearest(name, known, f"choose one of {keys}")
                raise ConfigError(f"{show(name, quote=False)}: is not a key; {near}") from None
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"hydra.launcher: {first}; correct it") from None


def launch(sweep: Sweep, task: Callable[[Any], int]) -> None:
    """Hands the jobs to the launcher and waits; `task` is given one with `job`, a number."""
    import hydra
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext

    with hydra.initialize_config_dir(str(DIRECTORY), version_base="1.3"):
        config = composed(sweep.launcher, sweep.folder)
        workers = config.hydra.launcher.get("n_jobs")
        if workers is not None:  # joblib's; one without a job would be ended by any signal
            from joblib import effective_n_jobs  # type: ignore[import-untyped]

            enough = min(effective_n_jobs(workers), len(sweep.jobs))
            config = composed([*sweep.launcher, f"hydra.launcher.n_jobs={enough}"], sweep.folder)
        HydraConfig.instance().set_config(config)
        loader = GlobalHydra.instance().config_loader()
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=HydraContext(config_loader=loader, callbacks=Callbacks(config)),
            task_function=task,
            config=config,
        )
        with all_waited_for("submitit" in sweep.launcher[0]):
            launcher.launch([[f"+job={number}"] for number in range(len(sweep.jobs))], 0)


@contextmanager
def all_waited_for(on_cluster: bool) -> Iterator[None]:
    """Where a job of submitit was killed, the others are waited for before its launcher tells."""
    if not on_cluster:
        yield
        return
    from submitit import AutoExecutor

    submit, submitted = AutoExecutor.map_array, []

    def noted(executor: Any, *given: Any) -> Any:
        submitted.extend(submit(executor, *given))
        return submitted

    AutoExecutor.map_array = noted  # type: ignore
    try:
        yield
    except RuntimeError:
        for job in submitted:
            job.wait()
        raise
    finally:
        AutoExecutor.map_array = submit  # type: ignore
