"""Evaluate a trained agent: `python evaluate.py run=runs/... episodes=100`."""

import sys
from typing import TYPE_CHECKING

from runtime.door import enter

if TYPE_CHECKING:
    from configs.schema import EvaluateConfig


def run(config: "EvaluateConfig") -> int:
    """Restores the agent of a run and plays whole episodes; returns the exit code."""
    from runtime import rundir
    from runtime.build import make_device
    from runtime.errors import ConfigError
    from runtime.trained import open_trained

    if config.video:
        raise ConfigError("video: filming is not built yet; leave it out")
    trained = open_trained(
        config.run,
        config.checkpoint,
        episodes=config.episodes,
        seed=config.seed,
        device=make_device(config.device),
        env_id=config.env.id,
    )
    for warning in trained.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    try:
        evaluation = trained.evaluator(trained.agent, trained.step, config.deterministic)
    finally:
        trained.evaluator.close()
    summary = evaluation.summary()
    rundir.write_json(
        trained.path / "evaluation.json",
        {
            **summary,
            "episodes": config.episodes,
            "seed": config.seed,
            "deterministic": config.deterministic,
            "checkpoint_step": trained.step,
        },
    )
    actions = "deterministic" if config.deterministic else "sampled"
    print(
        f"{trained.config.agent.name} on {trained.config.env.id}, "
        f"checkpoint of step {trained.step:,}, "
        f"{config.episodes} episodes, {actions} actions\n"
        f"return {summary['return_mean']:.2f}, standard error {summary['return_sem']:.2f}, "
        f"deviation {summary['return_std']:.2f}, "
        f"from {summary['return_min']:.2f} to {summary['return_max']:.2f}\n"
        f"length {summary['length_mean']:.1f} steps; written to {trained.path / 'evaluation.json'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(enter("evaluate", run, sys.argv[1:]))
