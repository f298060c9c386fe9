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
    from runtime.trained import open_trained

    trained = open_trained(
        config.run,
        config.checkpoint,
        episodes=config.episodes,
        seed=config.seed,
        device=make_device(config.device),
        env_id=config.env.id,
        render=config.render,
    )
    for warning in trained.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    filmed = None
    try:
        if config.video:
            from runtime.film import film

            filmed = film(trained, config.seed, config.deterministic)
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
    if filmed is not None:
        print(f"film of an episode with return {filmed[1]:.2f}: {filmed[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(enter("evaluate", run, sys.argv[1:]))
