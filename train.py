"""Train an agent: `python train.py`, or `python train.py env=pendulum agent=sac seed=1`."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.door import enter

if TYPE_CHECKING:
    from configs.schema import TrainConfig
    from runtime.build import Parts

STARTED = time.perf_counter()


def run(config: "TrainConfig") -> int:
    """Builds the parts, makes the run directory and runs the loop; returns the exit code."""
    from configs.automatic import acceleration
    from configs.compose import to_yaml
    from runtime import rundir
    from runtime.build import make_parts
    from runtime.errors import ConfigError

    if config.resume is not None:
        raise ConfigError("resume: continuing a run is not built yet; start a new one without it")
    parts = make_parts(config)
    try:
        path = rundir.create(config.run_dir, config.env.id, config.agent.name, config.seed)
        rundir.write_text(path / "config.yaml", to_yaml(config))
        auto, why = acceleration(config)
        reason = f" ({why})" if auto == config.accelerate else ""
        print(
            f"{config.agent.name} on {config.env.id}, {config.total_steps:,} steps; run {path}\n"
            f"accelerate={config.accelerate}{reason}; threads={config.threads}"
        )
        train_in(path, config, parts)
    finally:
        parts.close()
    return 0


def train_in(path: Path, config: "TrainConfig", parts: "Parts") -> None:
    """Trains, and writes `result.json` into the run directory."""
    from configs.compose import to_yaml
    from runtime import checkpoint, rundir
    from runtime.audit import audit
    from runtime.console import Progress
    from runtime.logger import Logger
    from runtime.loop import Chores, train

    def save(step: int, return_mean: float | None) -> None:
        state = {"step": step, "return_mean": return_mean, "agent": parts.agent.state_dict()}
        checkpoint.save(path, step, state, config.checkpoint.keep)

    save(0, None)
    logger = Logger(path)
    settings = "".join(f"| {key} | {value} |\n" for key, value in vars(config.agent).items())
    logger.text("hyperparameters", f"| key | value |\n|---|---|\n{settings}")
    logger.text("config", "```yaml\n" + to_yaml(config) + "```")
    progress = Progress(config.total_steps)
    chores = Chores(
        agent=parts.agent,
        envs=parts.envs,
        logger=logger,
        evaluator=parts.evaluator,
        progress=progress,
        save=save,
        log_every=int(config.log.every),
        eval_every=int(config.eval.every),
        checkpoint_every=int(config.checkpoint.every),
        audit=lambda step, obs: audit(parts.agent, obs, config.seed, step, logger),
        audit_every=int(config.audit.every),
    )
    try:
        evaluation = train(parts.agent, parts.envs, parts.buffer, config.total_steps, chores)
    finally:
        progress.close()
        logger.close()
    summary, seconds = evaluation.summary(), time.perf_counter() - STARTED
    rundir.write_json(
        path / "result.json",
        {
            "steps": chores.last_evaluation[0],
            "wall_seconds": seconds,
            "steps_per_second": chores.steps_per_second,
            "return_mean": summary["return_mean"],
            "return_std": summary["return_std"],
            "episodes": len(evaluation.returns),
            "seed": config.seed,
            "versions": rundir.versions(),
            "revision": rundir.revision(),
            "state_digest": parts.digest(),
        },
    )
    print(
        f"final evaluation: return {summary['return_mean']:.1f} +- {summary['return_std']:.1f} "
        f"over {len(evaluation.returns)} episodes, after {seconds:.1f} s\n"
        f"run directory: {path}\n"
        f"see it learn: tensorboard --logdir {path}"
    )


if __name__ == "__main__":
    sys.exit(enter("train", run, sys.argv[1:]))
