"""The audit of a trained policy, at observations that it meets."""

import sys
from typing import Any

import torch

from tools.gallery.report import Check

STATES = 8
APART = 12  # steps between the moments at which the states are taken


def audit_run(run: str, checkpoint: str, seed: int, env_id: str | None) -> tuple[list[Check], Any]:
    """Rows and picture for the newest valid checkpoint of a run (or `best`, or a name).

    Raises:
        ConfigError: `run` is no run directory, or its environment's module was not named.
        StorageFault: no checkpoint in it is valid.
    """
    from audit.live import at_states
    from audit.picture import picture
    from common.seeding import derive
    from runtime.deploy.trained import open_trained

    trained = open_trained(
        run, checkpoint, episodes=STATES, seed=derive(seed, "audit-episodes"), env_id=env_id
    )
    for warning in trained.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    generator = torch.Generator().manual_seed(derive(seed, "audit"))
    agent, envs = trained.agent, trained.evaluator.envs
    try:
        met = []
        for index in range(STATES):
            for _ in range(APART):
                envs.step(*agent.act(envs.obs, generator=generator))
            met.append(envs.obs[index])
    finally:
        trained.evaluator.close()
    findings = at_states(agent, torch.stack(met), generator)
    rows = [
        Check(f"step {trained.step}", f"state {index}: {t.name}", t.figure, t.bound, t.passed)
        for index, finding in enumerate(findings)
        for t in finding.trials
    ]
    return rows, picture(findings[:4])
