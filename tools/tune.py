"""Search settings: `python tools/tune.py env=pendulum agent=ppo trials=50`.

Optuna over the composed configuration: each trial is a run (or one for each of several seeds) that
is stopped early where it lags behind the others. The study lies in a file of its own; the same
command goes on with it, and several may work on it at once.
"""

import dataclasses
import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common.errors import ConfigError  # noqa: E402
from configs.compose import GROUPS, options, parse, quoted, train_config  # noqa: E402
from configs.schema import TrainConfig  # noqa: E402
from configs.validate import key_names, unknown_key  # noqa: E402
from runtime.console import number  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from storage.lock import locked  # noqa: E402
from storage.rundir import make_folder, write_text  # noqa: E402
from tools.tuning import study as studies  # noqa: E402
from tools.tuning.spaces import (  # noqa: E402
    SPACES,
    Space,
    draw,
    ends,
    holding,
    present,
    read_space,
)

USAGE = """\
usage: python tools/tune.py env=NAME agent=NAME [trials=50] [seeds=1] [workers=1] [study=FOLDER]
                            [KEY=VALUE ...] [KEY=LOW..HIGH[:log] ...] [KEY=A,B,C ...]

KEY=VALUE is fixed, as for train.py; KEY=LOW..HIGH and KEY=A,B,C are searched. Where nothing is
named to search, a few keys of the agent are. seeds=N judges settings by the mean over N runs;
workers=N works with N processes; a run has one thread unless threads= says more. The same command
goes on with a study that was stopped or killed. The best settings are written as
FOLDER/ENV-AGENT.yaml, to be copied into configs/tuned/, unless report=false. The first trial has
the settings as they are, unless ranges are named that do not hold them."""
REPEATED = "repeats"  # of a trial with the settings of an earlier one: its number
STOPPED = 75  # exit code of a signal, as of train.py
MOST_FAILED = 5  # in one call
OWN = {"trials": 50, "seeds": 1, "workers": 1, "report": True}


def main(arguments: list[str]) -> int:
    """Searches; returns the exit code."""
    return tool(USAGE, tune, arguments)


def tune(arguments: list[str]) -> int:
    """Runs trials until the study has as many as asked, then writes the best settings down."""
    own, fixed, space = read(arguments)
    imported()
    if own["report"] and not any(key.startswith("env.") for key in space):
        studies.require_fit(fixed)
    folder = make_folder(own["study"], "study")
    study = studies.open_study(folder)
    if not own["named"]:  # the usual ranges: those that the study began with
        space = studies.recorded_space(study) or space
    searched = f"searching {', '.join(space)}; {folder}"
    print(f"{own['trials']} trials of {' '.join(fixed)}, {searched}", flush=True)
    now = present(train_config(fixed), space)
    if now is None and own["report"]:
        print("the settings as they are lie outside these ranges: no trial has them")
    with studies.turn(folder):
        studies.require_same(study, [*fixed, f"seeds={own['seeds']}"], space, folder)
        if now is not None and not study.get_trials(deepcopy=False):
            study.enqueue_trial(now)
        studies.take_over(study, folder)
    same = [argument for argument in arguments if not argument.startswith("workers=")]
    helper = [sys.executable, __file__, *same, "report=false"]
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))  # by way of `play`
    helpers: list[subprocess.Popen[bytes]] = []
    try:
        helpers += [subprocess.Popen(helper) for _ in range(own["workers"] - 1)]
        search(study, own, fixed, space, folder)
    except BaseException as reason:
        for worker in helpers:
            worker.terminate()
        if own["report"] and not isinstance(reason, Exception):  # the user, or a signal
            print("the same command goes on with the search", file=sys.stderr)
        raise
    finally:
        codes = [worker.wait() for worker in helpers]
        signal.signal(signal.SIGTERM, before)
    if own["report"]:
        report(study, own["where"], fixed, own["seeds"], folder)
        if all(trial.params != now for trial in study.get_trials(deepcopy=False)):
            print("compare it with the settings as they are first, which no trial had")
    return max(codes, default=0)


def read(arguments: list[str]) -> tuple[dict[str, Any], list[str], Space]:
    """(the tool's own options, what is fixed, what is searched); checks that all can be composed.

    Raises:
        ConfigError: as `train_config`.
    """
    own: dict[str, Any] = dict(OWN)
    fixed, space = [], Space()
    seen = set[str]()
    for argument in arguments:
        name, _, text = argument.partition("=")
        if name in seen:
            raise ConfigError(f"{name}: is given twice; leave one of the two out")
        seen.add(name)
        searched = read_space(name, text) if name.startswith(("agent.", "env.")) else None
        if searched is not None:
            space[name] = searched
        elif name in own or name == "study":
            value = parse(argument)[2]
            if name == "report" and not isinstance(value, bool):
                raise ConfigError(f"report: must be true or false, got {text}; correct it")
            if name in ("trials", "seeds", "workers") and (type(value) is not int or value < 1):
                raise ConfigError(f"{name}: must be a number from 1 on, got {text}; correct it")
            own[name] = text if name == "study" and not isinstance(value, str) else value
        elif name in ("seed", "run_dir", "resume"):
            raise ConfigError(f"{name}: is set by each trial; leave it out")
        elif "." not in name and name.lstrip("+") not in (known := top()):
            raise ConfigError(unknown_key(name, [*OWN, "study", *known]))
        else:
            fixed.append(argument)
    named = {name: value for name, _, value in map(parse, fixed)}
    if "threads" not in named:
        fixed.append("threads=1")  # two threads beside other work wait for each other in a loop
    config = train_config(fixed)
    if not config.eval.episodes:
        raise ConfigError("eval.episodes: 0 leaves nothing to judge a trial by; leave it out")
    own["named"] = bool(space)
    if not space:
        free = {key: what for key, what in SPACES[config.agent.name].items() if key not in named}
        space = holding(config, free)
    for one in ends(space):
        train_config([*fixed, *one])
    from tools.doctor import group_name  # loads torch

    env = None if "env.id" in named else named.get("env")
    env = env or group_name(config.env.id, config.env.kwargs)
    where = f"{env}-{config.agent.name}"
    own.setdefault("study", f"runs/tuning/{where}")
    own["where"] = where
    return own, fixed, space


def top() -> list[str]:
    """What `train.py` takes without a dot."""
    return [*GROUPS, *key_names(TrainConfig)]


def imported() -> None:
    """Sees that Optuna is there, and keeps it quiet."""
    try:
        import optuna
    except ImportError:
        raise ConfigError('tune: needs optuna; pip install ".[tune]"') from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def search(study: Any, own: dict[str, Any], fixed: list[str], space: Space, folder: Path) -> None:
    """Trials one after another, until the study has as many as asked."""
    import optuna

    states = optuna.trial.TrialState
    failed = 0
    while True:
        with ExitStack() as held:
            with studies.turn(folder):
                every = study.get_trials(deepcopy=False)
                waiting = [trial for trial in every if trial.state == states.WAITING]
                failures = [
                    trial
                    for trial in every
                    if trial.state == states.FAIL and REPEATED not in trial.user_attrs
                ]
                if len(every) - len(waiting) - len(failures) >= own["trials"]:
                    return
                study.sampler = studies.sampler(waiting[0].number if waiting else len(every))
                trial = study.ask()
                where = studies.trial_folder(trial, folder)
                held.enter_context(locked(where))  # `take_over` leaves a locked trial alone
            chosen = draw(space, trial)
            trial.set_user_attr("chosen", chosen)
            if (outcome := repeated(study, trial)) is not None:
                print(f"trial {trial.number}: {outcome}", flush=True)
                continue
            print(f"trial {trial.number} begins: {' '.join(chosen)}; {where}/s0.log", flush=True)
            outcome, ended = attempt(study, trial, [*fixed, *chosen], where, own["seeds"])
        print(f"trial {trial.number}: {outcome}", flush=True)
        failed += not ended
        if failed > MOST_FAILED:
            remedy = "mend what they say, or search another range in another study=FOLDER"
            raise ConfigError(f"trials: {failed} failed; {remedy}")


def repeated(study: Any, trial: Any) -> str | None:
    """What came of the same settings before; such a trial adds nothing to the study."""
    import optuna

    states = optuna.trial.TrialState
    for other in study.get_trials(deepcopy=False, states=[states.COMPLETE, states.PRUNED]):
        if other.user_attrs["chosen"] == trial.user_attrs["chosen"]:
            trial.set_user_attr(REPEATED, other.number)
            study.tell(trial, state=states.FAIL)  # which sampler and pruner leave out
            outcome = number(other.value, 2) if other.state == states.COMPLETE else "stopped"
            return f"{outcome}, as trial {other.number} with the same settings"
    return None


def attempt(
    study: Any, trial: Any, command: list[str], folder: Path, seeds: int
) -> tuple[str, bool]:
    """Runs one trial and reports it to the study; (what came of it, whether it did not fail)."""
    import optuna

    states = optuna.trial.TrialState
    try:
        found = studies.play(trial, command, folder, seeds)
    except optuna.TrialPruned as reason:
        study.tell(trial, state=states.PRUNED)
        return f"stopped, {reason}", True
    except RuntimeError as error:
        study.tell(trial, state=states.FAIL)
        return f"failed, {error}", False
    study.tell(trial, found)
    return number(found, 2), True


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
        raise ConfigError(
            f"trials: none came to its end, all in {folder} were stopped; give more trials=N, or "
            "search another range in another study=FOLDER"
        )
    best, count = study.best_trial, len(ended)
    first_seed, last_seed = studies.FIRST_SEED, studies.FIRST_SEED + seeds - 1
    on = f"seeds {first_seed} to {last_seed}" if seeds > 1 else f"seed {first_seed}"
    lines = [
        "# @package _global_",
        f"total_steps: {train_config(fixed).total_steps}",
        f"# By tools/tune.py: best of {count} trials, return {number(best.value, 2)} on {on}.",
        *changed([*fixed, *best.user_attrs["chosen"]]),
    ]
    path = folder / f"{name}.yaml"
    write_text(path, "\n".join(lines) + "\n")
    where = studies.trial_folder(best, folder)
    print(f"\nbest of {count}: {number(best.value, 2)}, trial {best.number}, {where}")
    print("\n".join(lines))
    env = name.rpartition("-")[0]
    first = ""
    if env not in options("env"):
        first = f"save the environment as configs/env/{env}.yaml, as tools/doctor.py shows it, and "
    there = ROOT / "configs" / "tuned" / path.name
    place = ", in place of the one that is there" if there.exists() else ""
    copy = f"{first}copy it to configs/tuned/{path.name}{place}"
    itself = f"it comes by itself with env={env}, and its total_steps with it"
    print(f"written to {path}; {copy}: {itself}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
