"""Search settings: `python tools/tune.py env=pendulum agent=ppo trials=50`.

Optuna over the composed configuration: each trial is a run (or one for each of several seeds) that
is stopped early where it lags behind the others. The study lies in a file of its own; the same
command goes on with it, and several may work on it at once.
"""

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common.errors import ConfigError  # noqa: E402
from configs.compose import GROUPS, parse, train_config  # noqa: E402
from configs.schema import TrainConfig  # noqa: E402
from configs.validate import key_names, unknown_key  # noqa: E402
from runtime.console import number  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from storage.lock import locked  # noqa: E402
from storage.rundir import make_folder  # noqa: E402
from tools.examination.names import group_name  # noqa: E402
from tools.tuning.lasting import (  # noqa: E402
    open_study,
    recorded_space,
    require_same,
    sampler,
    take_over,
    trial_folder,
    turn,
)
from tools.tuning.pair import report  # noqa: E402
from tools.tuning.spaces import (  # noqa: E402
    SPACES,
    Space,
    draw,
    ends,
    holding,
    present,
    read_space,
)
from tools.tuning.trials import require_fit  # noqa: E402

USAGE = """\
usage: python tools/tune.py env=NAME agent=NAME [trials=50] [seeds=1] [workers=1] [study=FOLDER]
                            [KEY=VALUE ...] [KEY=LOW..HIGH[:log] ...] [KEY=A,B,C ...]

KEY=VALUE is fixed, as for train.py; KEY=LOW..HIGH and KEY=A,B,C are searched. Where nothing is
named to search, a few keys of the agent are. seeds=N judges settings by the mean over N runs;
workers=N works with N processes; a run has one thread unless threads= says more. The same command
goes on with a study that was stopped or killed. The best settings are written as
FOLDER/ENV-AGENT.yaml, to be copied into configs/tuned/, unless report=false. The first trial has
the settings as they are, unless ranges are named that do not hold them."""
FAILED = "failed, "
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
        require_fit(fixed)
    folder = make_folder(own["study"], "study")
    study = open_study(folder)
    if not own["named"]:  # the usual ranges: those that the study began with
        space = recorded_space(study) or space
    print(f"{own['trials']} trials of {' '.join(fixed)}, searching {', '.join(space)}; {folder}",
          flush=True)  # fmt: skip
    now = present(train_config(fixed), space)
    if now is None and own["report"]:
        print("the settings as they are lie outside these ranges: no trial has them")
    with turn(folder):
        require_same(study, [*fixed, f"seeds={own['seeds']}"], space, folder)
        if now is not None and not study.get_trials(deepcopy=False):
            study.enqueue_trial(now)
        take_over(study, folder)
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
            with turn(folder):
                every = study.get_trials(deepcopy=False)
                waiting = [trial for trial in every if trial.state == states.WAITING]
                failures = [trial for trial in every if trial.state == states.FAIL
                            and REPEATED not in trial.user_attrs]  # fmt: skip
                if len(every) - len(waiting) - len(failures) >= own["trials"]:
                    return
                study.sampler = sampler(waiting[0].number if waiting else len(every))
                trial = study.ask()
                where = trial_folder(trial, folder)
                held.enter_context(locked(where))  # by which `take_over` knows a living worker
            chosen = draw(space, trial)
            trial.set_user_attr("chosen", chosen)
            if (said := repeated(study, trial)) is not None:
                print(f"trial {trial.number}: {said}", flush=True)
                continue
            print(f"trial {trial.number} begins: {' '.join(chosen)}; {where}/s0.log", flush=True)
            said = attempt(study, trial, [*fixed, *chosen], where, own["seeds"])
        print(f"trial {trial.number}: {said}", flush=True)
        failed += said.startswith(FAILED)
        if failed > MOST_FAILED:
            raise ConfigError(f"trials: {failed} failed; mend what they say, or search another "
                              "range in another study=FOLDER")  # fmt: skip


def repeated(study: Any, trial: Any) -> str | None:
    """What came of the same settings before; such a trial tells the study nothing."""
    import optuna

    states = optuna.trial.TrialState
    for other in study.get_trials(deepcopy=False, states=[states.COMPLETE, states.PRUNED]):
        if other.user_attrs["chosen"] == trial.user_attrs["chosen"]:
            trial.set_user_attr(REPEATED, other.number)
            study.tell(trial, state=states.FAIL)  # which sampler and pruner leave out
            said = number(other.value, 2) if other.state == states.COMPLETE else "stopped"
            return f"{said}, as trial {other.number} with the same settings"
    return None


def attempt(study: Any, trial: Any, command: list[str], folder: Path, seeds: int) -> str:
    """One trial, told to the study; what came of it."""
    import optuna

    from tools.tuning.trials import play

    try:
        found = play(trial, command, folder, seeds)
    except optuna.TrialPruned as reason:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return f"stopped, {reason}"
    except RuntimeError as error:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return f"{FAILED}{error}"
    study.tell(trial, found)
    return number(found, 2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
