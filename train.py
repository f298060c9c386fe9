"""Train an agent: `python train.py`, or `python train.py env=pendulum agent=sac seed=1`."""

import dataclasses
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.launch.door import enter
from runtime.launch.signals import Stop

if TYPE_CHECKING:
    from configs.schema import TrainConfig
    from runtime.build import Parts
    from runtime.evaluation import Evaluation
    from runtime.launch.ranks import Ranks

STARTED = time.perf_counter()


def run(config: "TrainConfig", stop: Stop | None = None) -> int:
    """Builds the parts, makes or finds the run directory and trains; returns the exit code."""
    stop = stop or Stop()
    stop.open()
    from runtime.launch.ranks import meet

    ranks = meet(config.device)
    with ranks.part():
        return learn(config, stop, ranks)


def learn(config: "TrainConfig", stop: Stop, ranks: "Ranks") -> int:
    """The part of one rank, which without torchrun is the only one."""
    from common.errors import Stopped, shown
    from runtime.session import Session
    from storage import checkpoint, rundir
    from storage.lock import locked

    if ranks.first:
        warn(unrecorded())
    path = ranks.found(config.run_dir) if config.resume else None
    if path is not None and ranks.decided(partial(rundir.finished, path, config.total_steps)):
        if checkpoint.names(path):
            warn(checkpoint.load_newest(path, config=config)[2])
        print(f"run {path} is finished; {longer(config)}")
        return 0
    config, parts = ranks.together(lambda: make(config, ranks, begun=path is not None))
    try:
        path = Path(ranks.decided(lambda: str(path or begin(config))))
        with locked(path) if ranks.first else nullcontext():
            session = Session(path, config, parts, stop, STARTED, ranks)
            known = ranks.decided(lambda: bool(checkpoint.names(path)))
            if config.resume not in (None, "auto") or known:
                warn(session.restore())
            if ranks.first:
                announce(path, config, session.step, ranks.size)
            try:
                evaluation = session.run()
            except Stopped as stopped:
                raise stopped.at(f"{path}", config.env.id, ranks.launcher) from None
    finally:
        parts.close()
    print(
        f"{ending(evaluation)}, after {time.perf_counter() - session.started:.1f} s in all\n"
        f"run directory: {path}\n"
        f"see it learn: tensorboard --logdir {shown(path)}"
    )
    return 0


def ending(evaluation: "Evaluation | None") -> str:
    """What came of the run."""
    from runtime.console import number

    if evaluation is None:
        return "nothing was evaluated (eval.episodes=0)"
    summary = evaluation.summary()
    cut = f", {evaluation.cut} of them cut short" if evaluation.cut else ""
    return (
        f"final evaluation: return {number(summary['return_mean'])}, deviation "
        f"{number(summary['return_std'])}, over {len(evaluation.returns)} episodes{cut}"
    )


def longer(config: "TrainConfig") -> str:
    """How a finished run comes to more steps."""
    if config.agent.lr_schedule == "linear":  # has fallen to 0
        return "for more steps train longer from the start, in another run_dir"
    return f"more steps: total_steps=N, above {config.total_steps}"


def make(config: "TrainConfig", ranks: "Ranks", begun: bool) -> tuple["TrainConfig", "Parts"]:
    """(configuration, parts); a run that has begun goes on where its graph cannot be had again."""
    from common.errors import ConfigError
    from runtime.build import make_parts

    try:
        return config, make_parts(config, ranks)
    except ConfigError as error:
        if not begun or error.key != "accelerate":
            raise
        warn([error.problem])
        config = dataclasses.replace(config, accelerate="none")
        return config, make_parts(config, ranks)


def begin(config: "TrainConfig") -> Path:
    """The directory of a new run."""
    from runtime.launch.sweep import tell_sweep
    from storage import provenance, rundir

    path = rundir.create(config.run_dir, config.env.id, config.agent.name, config.seed,
                         again=config.resume == "auto")  # fmt: skip
    if config.run_dir and path != Path(config.run_dir):
        tell_sweep(Path(config.run_dir), path)
        warn([f"run_dir: {config.run_dir} is taken, this run goes to {path}; with resume=auto the "
              "one that is there goes on"])  # fmt: skip
    provenance.keep_patch(path)
    return path


def unrecorded() -> list[str]:
    """A warning where git cannot tell which code makes the run."""
    from storage import provenance

    why = provenance.head()[1]
    return [f"the run's revision is not recorded: {why}"] if why else []


def warn(warnings: list[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def announce(path: Path, config: "TrainConfig", step: int, ranks: int) -> None:
    """Says what runs where, and writes it down."""
    from configs.automatic import acceleration
    from configs.files import to_yaml
    from storage import rundir

    rundir.write_text(path / "config.yaml", to_yaml(config))
    auto, why = acceleration(config)
    reason = f" ({why})" if auto == config.accelerate else ""
    begun = f", from step {step:,} on" if step else ""
    print(
        f"{config.agent.name} on {config.env.id}, {config.total_steps:,} steps{begun}; run {path}\n"
        f"accelerate={config.accelerate}{reason}; threads={config.threads}"
        + (f"; {ranks} processes" if ranks > 1 else "")
    )


if __name__ == "__main__":
    if {"-m", "--multirun"} & set(sys.argv[1:]):
        from runtime.launch.sweep import sweep

        sys.exit(sweep(sys.argv[1:]))
    sys.exit(enter("train", partial(run, stop=Stop().install()), sys.argv[1:]))
