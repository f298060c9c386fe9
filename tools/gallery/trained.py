"""The audit of a trained policy, at observations that it meets."""

from typing import Any

import torch

from tools.gallery.report import Check

STATES = 8
APART = 12  # steps between the moments at which the states are taken


def audit_run(run: str, checkpoint: str, seed: int) -> tuple[list[Check], Any]:
    """Rows and picture for the newest valid checkpoint of a run (or `best`, or a name).

    Raises:
        ConfigError: `run` is no run directory.
        StorageFault: no checkpoint in it is valid.
    """
    from configs.compose import read_run
    from runtime import rundir
    from runtime.build import make_evaluator, restore_agent
    from runtime.checkpoint import load_newest
    from runtime.picture import picture
    from runtime.seeding import derive

    path = rundir.require(run)
    config = read_run(path)
    step, state, _ = load_newest(path, checkpoint)
    generator = torch.Generator().manual_seed(derive(seed, "audit"))
    evaluator = make_evaluator(config, STATES, derive(seed, "audit-episodes"))
    try:
        envs = evaluator.envs
        agent = restore_agent(config, envs.spec, state, torch.device("cpu"))
        met = []
        for index in range(STATES):
            for _ in range(APART):
                envs.step(*agent.act(envs.obs, generator=generator))
            met.append(envs.obs[index])
    finally:
        evaluator.close()
    findings = agent.audit(torch.stack(met), generator)
    rows = [
        Check(f"step {step}", f"state {index}: {t.name}", t.figure, t.bound, t.passed)
        for index, finding in enumerate(findings)
        for t in finding.trials
    ]
    return rows, picture(findings[:4])
