"""Evaluate a trained agent: `python evaluate.py run=runs/... episodes=100`."""

import sys
from typing import TYPE_CHECKING

from runtime.door import enter

if TYPE_CHECKING:
    from configs.schema import EvaluateConfig


def run(config: "EvaluateConfig") -> int:
    """Restores the agent of a run and plays whole episodes; returns the exit code."""
    from configs.compose import read_run
    from runtime import checkpoint, rundir
    from runtime.build import make_device, make_evaluator, restore_agent
    from runtime.errors import ConfigError

    path = rundir.require(config.run)
    if config.video:
        raise ConfigError("video: filming is not built yet; leave it out")
    trained = read_run(path)
    device = make_device(config.device)
    step, state, warnings = checkpoint.load_newest(path, config.checkpoint)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    evaluator = make_evaluator(trained, config.episodes, config.seed)
    try:
        agent = restore_agent(trained, evaluator.envs.spec, state, device)
        evaluation = evaluator(agent, step, config.deterministic)
    finally:
        evaluator.close()
    summary = evaluation.summary()
    rundir.write_json(
        path / "evaluation.json",
        {
            **summary,
            "episodes": config.episodes,
            "seed": config.seed,
            "deterministic": config.deterministic,
            "checkpoint_step": step,
        },
    )
    actions = "deterministic" if config.deterministic else "sampled"
    print(
        f"{trained.agent.name} on {trained.env.id}, checkpoint of step {step:,}, "
        f"{config.episodes} episodes, {actions} actions\n"
        f"return {summary['return_mean']:.2f}, standard error {summary['return_sem']:.2f}, "
        f"deviation {summary['return_std']:.2f}, "
        f"from {summary['return_min']:.2f} to {summary['return_max']:.2f}\n"
        f"length {summary['length_mean']:.1f} steps; written to {path / 'evaluation.json'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(enter("evaluate", run, sys.argv[1:]))
