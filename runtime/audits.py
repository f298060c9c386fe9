"""Tests of the policy in training: its draws against its density, with a picture."""

import torch
from torch import Tensor

from agents.base import BaseAgent
from audit import density
from audit.picture import picture
from common.errors import warn
from common.seeding import derive
from runtime.logger import Logger


def at_states(agent: BaseAgent, obs: Tensor, generator: torch.Generator) -> list[density.Finding]:
    """Tests fresh draws of the agent's policy against its density, at each of obs (N, O)."""
    parameters = zip(*agent.parameters(obs), strict=True)
    return [density.audit(agent.policy_class, at_state, generator) for at_state in parameters]


def audit(agent: BaseAgent, obs: Tensor, seed: int, step: int, logger: Logger) -> bool:
    """Audits at a few observations (N, O), writes scalars and a figure; whether all is right.

    Draws derive from (seed, step) alone, so that how often it runs changes nothing. A failure is a
    warning: training continues.
    """
    findings = at_states(agent, obs, torch.Generator().manual_seed(derive(seed, "audit", step)))
    normaliser = max((f.normaliser for f in findings), key=lambda value: abs(value - 1))
    worst = {
        "verification/pit_ks": max(f.pit_ks for f in findings),
        "verification/normaliser": normaliser,
        "verification/entropy_gap": max((f.entropy_gap for f in findings), key=abs),
    }
    logger.write(step, worst)
    logger.image("verification/actions", picture(findings), step)
    failures = [f"{text} at state {n}" for n, f in enumerate(findings) for text in f.failures]
    if failures:
        warn(
            f"audit at step {step}: {'; '.join(failures[:3])}: the draws do not follow log_prob; "
            "see verification/actions in TensorBoard"
        )
    return not failures
