"""Search settings by Optuna: `python tools/tune.py env=pendulum agent=ppo trials=50`."""

import dataclasses
import json
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.errors import ConfigError
from configs import files
from configs.compose import GROUPS, parse, quoted, train_config
from configs.schema import TrainConfig
from configs.validate import key_names, unknown_key
from runtime.console import number
from runtime.launch.door import tool
from storage.lock import locked
from storage.rundir import make_folder, write_text
from tools.shared import Keys, key, names, read_keys
from tools.tuning import spaces
from tools.tuning.spaces import Space

USAGE = """\
usage: python tools/tune.py env=NAME agent=NAME [trials=50] [seeds=1] [workers=1] [study=FOLDER]
                            [KEY=VALUE ...] [KEY=LOW..HIGH[:log] ...] [KEY=A,B,C ...]

Searches settings of an agent by Optuna. The best are written to FOLDER/ENV-AGENT.yaml, a tuned pair
that can be copied to configs/tuned/. The same command continues a search that was stopped.

  KEY=VALUE            fixed in all trials, as for train.py
  KEY=LOW..HIGH[:log]  a key of agent or env, searched in this range; :log for a logarithmic scale
  KEY=A,B,C            searched among these values; without a key to search, some of the agent are
  trials=50            settings to try; the first are the unchanged ones, if they lie in the ranges
  seeds=1              runs of each trial, which is judged by their mean return
  workers=1            processes that search together
  study=FOLDER         of the search; without it, runs/tuning/ENV-AGENT
  report=true          false: search only, write no best settings

A run has one thread unless threads=N is given; it is stopped early if it lags behind the others."""
STOPPED = 75  # exit code of a signal, as of train.py


@dataclass(frozen=True)
class Options(Keys):
    trials: int = key(50, ge=1)
    seeds: int = key(1, ge=1)
    workers: int = key(1, ge=1)
    report: bool = key(True)
    study: str = key("")


class Plan(NamedTuple):
    """The command line: KEY=VALUE of every trial, and what is searched."""

    own: Options
    fixed: list[str]
    space: Space
    named: bool  # whether the space was on the command line
    pair: str  # ENV-AGENT


def tune(arguments: list[str]) -> int:
    """Runs trials until the study has as many as asked, then writes the best settings down."""
    own, fixed, space, named, pair = read(arguments)
    try:
        from tools.tuning import study as studies
    except ImportError:
        raise ConfigError('tune: needs optuna; pip install ".[tune]"') from None
    if own.report and not any(name.startswith("env.") for name in space):
        require_fit(fixed)
    folder = make_folder(own.study or f"runs/tuning/{pair}", "study")
    study = studies.open_study(folder)
    if not named:  # the usual ranges: those that the study began with
        space = studies.recorded_space(study) or space
    trials = f"{own.trials} trial{'s' * (own.trials > 1)} of {' '.join(fixed)}"
    print(f"{trials}, searching {', '.join(space)}; {folder}", flush=True)
    now = spaces.present(train_config(fixed), space)
    if now is None and own.report:
        print("the unchanged settings lie outside these ranges: no trial has them")
    with locked(folder, studies.PATIENCE):
        studies.require_same(study, [*fixed, f"seeds={own.seeds}"], space, folder)
        if now is not None and not study.get_trials(deepcopy=False):
            study.enqueue_trial(now)
        studies.take_over(study, folder)
    same = [a for a in arguments if not a.startswith(("workers=", "report="))]
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))  # by way of `play`
    helpers: list[subprocess.Popen[bytes]] = []
    try:
        helper = [sys.executable, __file__, *same, "report=false"]
        helpers += [subprocess.Popen(helper) for _ in range(own.workers - 1)]
        studies.search(study, own.trials, fixed, space, folder, own.seeds)
    except BaseException as reason:
        for worker in helpers:
            worker.terminate()
        if own.report and not isinstance(reason, Exception):  # the user, or a signal
            print("the same command continues the search", file=sys.stderr)
        raise
    finally:
        codes = [worker.wait() for worker in helpers]
        signal.signal(signal.SIGTERM, before)
    if own.report:
        report(study, pair, fixed, own.seeds, folder)
        if all(trial.params != now for trial in study.get_trials(deepcopy=False)):
            print("compare it with the unchanged settings first, which no trial had")
    return max(codes, default=0)


def read(arguments: list[str]) -> Plan:
    """The command line; ConfigError, as `train_config`, where a value of it cannot be composed."""
    own, rest = read_keys(Options, arguments, "")
    given = [argument.partition("=")[0] for argument in arguments]
    for name in given:
        if given.count(name) > 1:
            raise ConfigError(f"{name}: is given twice; leave one of the two out")
    fixed, space, known = [], Space(), [*GROUPS, *key_names(TrainConfig)]
    for argument in rest:
        name, _, text = argument.partition("=")
        searched = spaces.read_space(name, text) if name.startswith(("agent.", "env.")) else None
        if searched is not None:
            space[name] = searched
        elif name in ("seed", "run_dir", "resume"):
            raise ConfigError(f"{name}: is set by each trial; leave it out")
        elif "." not in name and name.lstrip("+") not in known:
            raise ConfigError(unknown_key(name, [*names(Options), *known]))
        else:
            fixed.append(argument)
    values = {name: value for name, _, value in map(parse, fixed)}
    if "threads" not in values:
        fixed.append("threads=1")  # two threads beside other work wait for each other in a loop
    config = train_config(fixed)
    if not config.eval.episodes:
        raise ConfigError("eval.episodes: 0 leaves nothing to judge a trial by; leave it out")
    named = bool(space)
    if not named:
        usual = spaces.usual(config.agent.name, config.agent.on_policy)
        space = spaces.holding(config, {name: usual[name] for name in usual if name not in values})
    for one in spaces.ends(space):
        train_config([*fixed, *one])
    from tools.doctor import group_name  # loads torch

    env = None if "env.id" in values else values.get("env")
    env = env or group_name(config.env.id, config.env.kwargs)
    return Plan(own, fixed, space, named, f"{env}-{config.agent.name}")


def require_fit(fixed: list[str]) -> None:
    """Raises ConfigError where the agent cannot act in the environment: all trials would fail."""
    from agents import require_served
    from envs.envs import Envs

    config = train_config(fixed)
    with closing(
        Envs(config.env.id, 1, "sync", config.env.kwargs, 0, wrappers=config.env.wrappers)
    ) as envs:
        try:
            require_served(config.agent.name, envs.spec.kind)
        except ValueError as error:
            raise ConfigError(str(error)) from None


def changed(command: list[str]) -> list[str]:
    """YAML of what a command line and its tuned pair set of agent and environment."""
    tuned = train_config(command)
    plain = train_config([f"agent={tuned.agent.name}", f"env.id={quoted(tuned.env.id)}"])
    lines = []
    for group in ("env", "agent"):
        was, now = (dataclasses.asdict(getattr(config, group)) for config in (plain, tuned))
        own = [f"  {name}: {json.dumps(now[name])}" for name in now if now[name] != was[name]]
        lines += [f"{group}:", *own] if own else []
    return lines


def report(study: Any, pair: str, fixed: list[str], seeds: int, folder: Path) -> None:
    """The best settings, on the screen and as a tuned pair; ConfigError where no trial ended."""
    from tools.tuning.study import ENDED, FIRST_SEED, trial_folder

    ended = study.get_trials(deepcopy=False, states=ENDED)
    if not any(trial.state == ENDED[0] for trial in ended):
        why = f"none in {folder} reached its end, all were stopped early"
        remedy = "give more trials=N, or search another range in another study=FOLDER"
        raise ConfigError(f"trials: {why}; {remedy}")
    best, last = study.best_trial, FIRST_SEED + seeds - 1
    on = f"seeds {FIRST_SEED} to {last}" if seeds > 1 else f"seed {last}"
    score, trials = number(best.value, 2), f"{len(ended)} trial{'s' * (len(ended) > 1)}"
    lines = [
        "# @package _global_",
        f"total_steps: {train_config(fixed).total_steps}",
        f"# By tools/tune.py: best of {trials}, return {score} on {on}.",
        *changed([*fixed, *best.user_attrs["chosen"]]),
    ]
    path = folder / f"{pair}.yaml"
    write_text(path, "\n".join(lines) + "\n")
    print(f"\nbest of {len(ended)}: {score}, trial {best.number}, {trial_folder(best, folder)}")
    print("\n".join(lines))
    env, there = pair.rpartition("-")[0], files.DIRECTORY / "tuned" / path.name
    save = f"save the environment as configs/env/{env}.yaml, as tools/doctor.py shows it, and "
    first = "" if env in files.options("env") else save
    place = ", in place of the present one" if there.exists() else ""
    copy = f"{first}copy it to configs/tuned/{path.name}{place}"
    print(f"written to {path}; {copy}: env={env} then uses it, with its total_steps")


main = partial(tool, USAGE, tune)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
