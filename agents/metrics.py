"""Metrics of policy and values that all agents report; detached, on their device."""

import torch
from torch import Tensor

from policies import Gaussian, Policy

SATURATED = 0.99  # |action| beyond which a component counts as saturated


@torch.no_grad()
def policy_metrics(
    log_prob: Tensor,
    entropy: Tensor,
    action: Tensor,
    policy: Policy | None = None,
    noise: Tensor | None = None,
    latent: Tensor | None = None,
) -> dict[str, Tensor]:
    """Entropy and log-probability, in nats; shares of saturated components; histograms.

    For a Gaussian also the terms of log_pi, from the noise of the actions or from their latents.
    """
    log_prob, entropy, action = log_prob.detach().flatten(), entropy.detach(), action.detach()
    metrics = {
        "policy/entropy": entropy.mean(),
        "policy/log_prob_mean": log_prob.mean(),
        "policy/log_prob_min": log_prob.amin(),
        "policy/log_prob_max": log_prob.amax(),
        "policy/log_prob": log_prob,
        "policy/action": action.flatten().clone(),  # a rollout reuses its arrays
    }
    if len(log_prob) > 1:
        metrics["policy/log_prob_std"] = log_prob.std()
    if action.is_floating_point():
        metrics["policy/saturation"] = (action.abs() > SATURATED).float().mean()
    else:
        metrics["policy/effective_actions"] = entropy.exp().mean()
    if isinstance(policy, Gaussian):
        noise = policy.noise_of(latent) if latent is not None else noise
        assert noise is not None
        metrics["policy/log_std_mean"] = policy.log_std.mean()
        terms = policy.terms(noise).items()
        metrics |= {f"ledger/{name}": term.flatten(0, -2) for name, term in terms}
    return metrics


@torch.no_grad()
def value_metrics(value: Tensor, target: Tensor, loss: Tensor) -> dict[str, Tensor]:
    """Metrics of values, (*,) or (E, *) of E critics, and of their targets (*,).

    The explained variance is 1 - Var[target - value] / Var[target], in float64, where equal float32
    numbers have a variance of exactly 0; it is then NaN, and no tag is written.
    """
    error, wanted = target.double() - value.double(), target.expand_as(value).double()
    spread = wanted.var(correction=0)
    explained = torch.where(spread > 0, 1.0 - error.var(correction=0) / spread, torch.nan)
    return {
        "loss/critic": loss.detach(),
        "value/mean": value.mean(),
        "value/target_mean": target.mean(),
        "value/td_abs": (target - value).abs().mean(),
        "value/explained_variance": explained.float(),
    }
