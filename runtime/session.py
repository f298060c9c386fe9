"""A run from its first message to its result: created or found, announced, trained."""

import dataclasses
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from common.errors import ConfigError, key_value, shown, warn
from common.tree import digest
from configs.automatic import acceleration, cycle
from configs.files import flat, to_yaml
from configs.resume import free
from configs.schema import TrainConfig
from runtime.build import Parts, make_parts
from runtime.console import Progress
from runtime.evaluation import Evaluation
from runtime.launch.ranks import Ranks
from runtime.launch.signals import Stop
from runtime.launch.sweep import tell_sweep
from runtime.logger import Logger
from runtime.loop import train
from runtime.saver import Saver
from runtime.schedule import Schedule
from storage import provenance, rundir
from storage.checkpoint import taking_up


def make(config: TrainConfig, ranks: Ranks, begun: bool) -> tuple[TrainConfig, Parts]:
    """(configuration, parts); a resumed run whose graph is not possible here continues without."""
    try:
        return config, make_parts(config, ranks)
    except ConfigError as error:
        if not begun or error.key != "accelerate":
            raise
        warn(error.problem)
        config = dataclasses.replace(config, accelerate="none")
        return config, make_parts(config, ranks)


def begin(config: TrainConfig) -> Path:
    """The directory of a new run."""
    again = config.resume == "auto"
    path = rundir.create(config.run_dir, config.env.id, config.agent.name, config.seed, again=again)
    if config.run_dir and path != Path(config.run_dir):
        tell_sweep(Path(config.run_dir), path)
        taken = f"run_dir: {config.run_dir} is taken, this run is written to {path}"
        there = "; resume=auto continues the one that is there"
        warn(f"{taken}{there if rundir.existing(config.run_dir) else ''}")
    provenance.keep_patch(path)
    return path


def announce(saver: Saver, initial: dict[str, Any] | None = None) -> None:
    """Prints what runs where; keeps configuration, command and what it begins with in the run."""
    path, config, step, ranks = saver.path, saver.config, saver.step, saver.ranks
    rundir.write_text(path / "config.yaml", to_yaml(config))
    commands = f"{rundir.commands(path)}# step {step}\n{typed(ranks.launcher)}\n"
    rundir.write_text(path / rundir.COMMANDS, commands)
    if initial is not None:
        rundir.write_json(path / "init.json", initial)
    auto, why = acceleration(config)
    reason = f" ({why})" if auto == config.accelerate else ""
    begun = f", from step {step:,} on" if step else ""
    processes = f"; {ranks.size} processes" if ranks.size > 1 else ""
    if rest := unlearned(config, ranks.size):
        print(rest)
    print(
        f"{config.agent.name} on {config.env.id}, {config.total_steps:,} steps{begun}; run {path}\n"
        f"accelerate={config.accelerate}{reason}; threads={config.threads}{processes}"
    )


def unlearned(config: TrainConfig, size: int) -> str:
    """A line on the last steps, where they fill no rollout of `size` ranks and are many."""
    rollout, stride = cycle(config)[0] * size, int(config.env.num_envs) * size
    total = -(-int(config.total_steps) // stride) * stride  # all copies make the last step
    rest = total % rollout
    if rest * 100 <= total:
        return ""
    what = f"nothing is learned from the last {rest:,} steps, too few for a rollout of {rollout:,}"
    return f"{what}; total_steps={total - rest + rollout} completes it"


def typed(launcher: str) -> str:
    """The command of this process, with the shortest path of the program."""
    program, *words = sys.argv or [""]  # where Python is a part of another program
    if not program or (hasattr(sys, "ps1") and Path(program).name != "train.py"):  # a notebook's
        return "# in Python, with the configuration of config.yaml"
    with suppress(ValueError):
        program = str(Path(program).relative_to(Path.cwd()))
    return " ".join(map(shown, (*launcher.split(), program, *words)))


def next_commands(path: Path, repeated: str) -> str:
    """Commands for after a run: TensorBoard and an evaluation.

    `repeated` is an id that the second has to name, or empty.
    """
    own_root = (path if path.name else path.absolute()).parent
    root = rundir.RUNS if rundir.RUNS in path.parents else own_root
    own = f" {shown(f'env.id={repeated}')}" if repeated else ""
    return (
        "next, its curves (overview: http://localhost:6006/#custom_scalars) and an evaluation:\n"
        f"  tensorboard --logdir {shown(root)}\n"
        f"  python evaluate.py {key_value('run', path)} episodes=100{own}"
    )


def run(saver: Saver, stop: Stop) -> Evaluation | None:
    """Trains a run, fresh or restored, to its end, and writes its result; the last evaluation."""
    config, parts, ranks = saver.config, saver.parts, saver.ranks
    stop.hold(ranks.size)
    saver.begin()
    warm_up, rollout = getattr(config.agent, "learning_starts", 0), cycle(config)[0] * ranks.size
    period = max(rollout, int(config.eval.every) if config.eval.episodes else 1)
    with (
        closing(make_logger(saver)) as logger,
        closing(Progress(config.total_steps, saver.step, warm_up, rollout, period)) as progress,
    ):
        schedule = Schedule(saver, logger, progress, stop)
        if saver.schedule is not None:
            with taking_up({"setting": saver.setting_then}):
                schedule.load_state_dict(saver.schedule)
        if parts.evaluator is not None:
            parts.evaluator.check = stop.check
        evaluation = train(parts.agent, parts.envs, parts.buffer, schedule, saver.step)
    write_result(saver, schedule, evaluation)
    if schedule.stopped is not None and schedule.last_save < config.total_steps:
        print(f"stopped early, at step {schedule.last_save:,}: {schedule.stopped}; to continue:")
        print(f"  {rundir.without_goal(saver.path, config, ranks.launcher)}")
    return evaluation


def make_logger(saver: Saver) -> Logger:
    """The logger of this rank, with the commands of the run and its configuration."""
    config, spec = saver.config, saver.parts.agent.spec
    logger = Logger(
        saver.path if saver.ranks.first else None,
        purge_step=saver.step + 1 if saver.resumed else None,
        device=saver.parts.agent.device,
        actions=spec.action_dim if spec.discrete else 0,
    )
    settings = dict(flat(dataclasses.asdict(config)))
    own = [key for key in settings if key.startswith(("seed", "env.", "agent.")) and not free(key)]
    logger.settings({key: settings[key] for key in ("total_steps", *own)})  # the first length
    logger.text("command", f"```\n{rundir.commands(saver.path)}```", saver.step)
    logger.text("config", f"```yaml\n{to_yaml(config)}```", saver.step)
    return logger


def write_result(saver: Saver, schedule: Schedule, evaluation: Evaluation | None) -> None:
    """Writes `result.json`."""
    ranks, setting, speed = saver.ranks, saver.setting, schedule.steps_per_second
    digests = [piece["digest"] for piece in ranks.pieces({"digest": saver.parts.digest()})]
    if not ranks.first:
        return
    summary = {} if evaluation is None else evaluation.summary()
    recorded = (*provenance.versions(), *provenance.PHYSICS.values(), "instructions")
    result = {
        "steps": schedule.last_save,
        "wall_seconds": time.perf_counter() - saver.started,
        "steps_per_second": speed,
        "return_mean": summary.get("return_mean"),
        "return_std": summary.get("return_std"),
        "episodes": 0 if evaluation is None else len(evaluation.returns),
        "episodes_cut": summary.get("episodes_cut", 0),
        "seed": saver.config.seed,
        "versions": {name: setting[name] for name in recorded if name in setting},
        "variables": setting["variables"],
        "revision": setting["revision"],  # of when this process began
        "exact": saver.exact,
        **({"ranks": ranks.size} if ranks.size > 1 else {}),
        **(rundir.stopping(saver.config, schedule.stopped) if schedule.stopped else {}),
        "state_digest": digests[0] if len(digests) == 1 else digest({"ranks": digests}),
    }
    rundir.write_json(saver.path / "result.json", result)
