"""Search settings: `python tools/tune.py env=pendulum agent=ppo trials=50`.

Optuna over the composed configuration: each trial is a run (or one for each of several seeds) that
is stopped early where it lags behind the others. The study lies in a file of its own; the same
command goes on with it, and several may work on it at once.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from configs.compose import parse, train_config  # noqa: E402
from runtime.door import tool  # noqa: E402
from runtime.errors import ConfigError  # noqa: E402
from tools.tuning.spaces import SPACES, Space, draw, ends, read_space  # noqa: E402

USAGE = """\
usage: python tools/tune.py env=NAME agent=NAME [trials=50] [seeds=1] [workers=1] [study=FOLDER]
                            [KEY=VALUE ...] [KEY=LOW..HIGH[:log] ...] [KEY=A,B,C ...]

KEY=VALUE is fixed, as for train.py; KEY=LOW..HIGH and KEY=A,B,C are searched. Where nothing is
named to search, a few keys of the agent are. seeds=N judges settings by the mean over N runs;
workers=N works with N processes. The same command goes on with a study that was stopped or killed.
The best settings are written as FOLDER/ENV-AGENT.yaml, to be copied into configs/tuned/."""
OWN = {"trials": 50, "seeds": 1, "workers": 1}


def main(arguments: list[str]) -> int:
    """Searches; returns the exit code."""
    return tool(USAGE, tune, arguments)


def tune(arguments: list[str]) -> int:
    """Runs trials until the study has as many as asked, then writes the best settings down."""
    own, fixed, space = read(arguments)
    optuna = imported()
    folder = Path(own["study"])
    folder.mkdir(parents=True, exist_ok=True)
    study = open_study(folder)
    take_over(study)
    if own["workers"] > 1:
        same = [argument for argument in arguments if not argument.startswith("workers=")]
        command = [sys.executable, __file__, *same, "workers=1"]
        workers = [subprocess.Popen(command) for _ in range(own["workers"] - 1)]
        search(study, own, fixed, space, folder)
        codes = [worker.wait() for worker in workers]
    else:
        codes = [0]
        search(study, own, fixed, space, folder)
    done = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    if not done:
        raise ConfigError(f"trials: none came to its end; what they said is in {folder}")
    report(study, fixed, folder)
    return max(codes)


def read(arguments: list[str]) -> tuple[dict[str, Any], list[str], Space]:
    """(the tool's own options, what is fixed, what is searched); checks that all can be composed.

    Raises:
        ConfigError: as `train_config`.
    """
    own: dict[str, Any] = dict(OWN)
    fixed, space = [], Space()
    for argument in arguments:
        name, _, text = argument.partition("=")
        searched = read_space(name, text) if name.startswith(("agent.", "env.")) else None
        if searched is not None:
            space[name] = searched
        elif name in own or name == "study":
            value = parse(argument)[2]
            if name != "study" and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name}: must be a number from 1 on, got {text}; correct it")
            own[name] = value
        elif name in ("seed", "run_dir", "resume"):
            raise ConfigError(f"{name}: is set by each trial; leave it out")
        else:
            fixed.append(argument)
    config = train_config(fixed)
    if not space:
        given = {argument.partition("=")[0] for argument in fixed}
        space = {key: what for key, what in SPACES[config.agent.name].items() if key not in given}
    for changed in ends(space):
        train_config([*fixed, *changed])
    named = dict(argument.partition("=")[::2] for argument in fixed)
    where = f"{named.get('env', config.env.id.rpartition(':')[2])}-{config.agent.name}"
    own.setdefault("study", f"runs/tuning/{where}")
    own["where"] = where
    return own, fixed, space


def imported() -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError("tune: needs optuna; pip install '.[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_study(folder: Path) -> Any:
    """The study in this folder, made where there is none: a journal that survives a kill."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return optuna.create_study(
        study_name="logpi",
        storage=JournalStorage(JournalFileBackend(str(folder / "study.journal"))),
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=None, multivariate=True, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=0),
    )


def take_over(study: Any) -> None:
    """Trials of workers that are no more: noted as failed, and put first in the queue again."""
    import optuna

    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        host, pid = trial.user_attrs.get("host"), trial.user_attrs.get("pid", -1)
        if host == socket.gethostname() and not Path(f"/proc/{pid}").exists():
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={"folder": trial.user_attrs["folder"]})


def search(study: Any, own: dict[str, Any], fixed: list[str], space: Space, folder: Path) -> None:
    """Trials one after another, until the study has as many as asked."""
    import optuna

    from tools.tuning.trials import play

    states = optuna.trial.TrialState
    counted = [states.COMPLETE, states.PRUNED, states.RUNNING]
    while len(study.get_trials(deepcopy=False, states=counted)) < own["trials"]:
        trial = study.ask()
        where = Path(trial.user_attrs.get("folder") or folder / f"trial-{trial.number:04d}")
        where.mkdir(exist_ok=True)
        for name, value in (("host", socket.gethostname()), ("pid", os.getpid()),
                            ("folder", str(where))):  # fmt: skip
            trial.set_user_attr(name, value)
        chosen = draw(space, trial)
        try:
            found = play(trial, [*fixed, *chosen], where, own["seeds"])
        except optuna.TrialPruned:
            study.tell(trial, state=states.PRUNED)
            print(f"trial {trial.number}: stopped, it lags behind; {' '.join(chosen)}", flush=True)
        except RuntimeError as error:
            study.tell(trial, state=states.FAIL)
            print(f"trial {trial.number}: failed, {error}; {' '.join(chosen)}", flush=True)
            if len(study.get_trials(deepcopy=False, states=[states.FAIL])) > own["trials"]:
                raise ConfigError("trials: more failed than were asked for; mend them") from None
        else:
            study.tell(trial, found)
            print(f"trial {trial.number}: {found:.2f}; {' '.join(chosen)}", flush=True)


def report(study: Any, fixed: list[str], folder: Path) -> None:
    """The best settings, on the screen and as a tuned pair."""
    best = study.best_trial
    config = train_config(fixed)
    named = dict(argument.partition("=")[::2] for argument in fixed)
    name = f"{named.get('env', config.env.id.rpartition(':')[2])}-{config.agent.name}.yaml"
    groups: dict[str, list[str]] = {}
    settings = {key: value for key, value in named.items() if key.startswith(("agent.", "env."))
                and key != "env.id"} | best.params  # fmt: skip
    for key, value in settings.items():
        group, _, inner = key.partition(".")
        shown = f"{value:.4g}" if isinstance(value, float) else value
        groups.setdefault(group, []).append(f"  {inner}: {shown}")
    count = len(study.trials)
    lines = ["# @package _global_", f"total_steps: {config.total_steps}",
             f"# By tools/tune.py: best of {count} trials, return {best.value:.2f}."]  # fmt: skip
    for group, inside in groups.items():
        lines += [f"{group}:", *inside]
    (folder / name).write_text("\n".join(lines) + "\n")
    print(f"\nbest of {count}: {best.value:.2f}, trial {best.number}")
    print("\n".join(lines[1:]))
    print(f"written to {folder / name}; as configs/tuned/{name} it comes by itself")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
