"""Train an agent: `python train.py`, or `python train.py env=pendulum agent=sac seed=1`."""

import sys
import time
from typing import TYPE_CHECKING, Any

from runtime.door import enter

if TYPE_CHECKING:
    from configs.schema import TrainConfig


def run(config: "TrainConfig") -> int:
    """Builds the parts and runs the loop; returns the exit code."""
    from configs.compose import to_yaml
    from runtime import checkpoint, rundir
    from runtime.build import make_parts
    from runtime.console import Progress
    from runtime.errors import ConfigError
    from runtime.logger import Logger
    from runtime.loop import Chores, train

    started = time.perf_counter()
    if config.resume is not None:
        raise ConfigError("resume: continuing a run is not built yet; start a new one without it")
    parts = make_parts(config)
    path = rundir.create(config.run_dir, config.env.id, config.agent.name, config.seed)
    (path / "config.yaml").write_text(to_yaml(config))
    print(f"{config.agent.name} on {config.env.id}, {config.total_steps:,} steps; run {path}")

    def save(step: int, return_mean: float | None) -> None:
        state = {"step": step, "return_mean": return_mean, "agent": parts.agent.state_dict()}
        checkpoint.save(path, step, state, config.checkpoint.keep)

    save(0, None)
    logger = Logger(path)
    logger.text("config", "```yaml\n" + to_yaml(config) + "```")
    chores = Chores(
        parts.agent,
        parts.envs,
        logger,
        parts.evaluator,
        Progress(config.total_steps),
        save,
        int(config.log.every),
        int(config.eval.every),
        int(config.checkpoint.every),
    )
    try:
        evaluation = train(parts.agent, parts.envs, parts.buffer, config.total_steps, chores)
    finally:
        logger.close()
        parts.close()
    summary = evaluation.summary()
    result: dict[str, Any] = {
        "steps": chores.evaluated[0],
        "wall_seconds": time.perf_counter() - started,
        "steps_per_second": chores.steps_per_second(chores.evaluated[0]),
        "return_mean": summary["return_mean"],
        "return_std": summary["return_std"],
        "episodes": len(evaluation.returns),
        "seed": config.seed,
        "versions": rundir.versions(),
        "revision": rundir.revision(),
        "state_digest": checkpoint.digest(parts.agent.state_dict()),
    }
    rundir.write_json(path / "result.json", result)
    print(
        f"final evaluation: return {summary['return_mean']:.1f} +- {summary['return_std']:.1f} "
        f"over {result['episodes']} episodes, after {result['wall_seconds']:.1f} s\n"
        f"run directory: {path}\n"
        f"see it learn: tensorboard --logdir {path}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(enter("train", run, sys.argv[1:]))
