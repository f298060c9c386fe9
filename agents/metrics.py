"""Metrics of a policy and of values that all agents report; detached, on their device."""

import torch
from torch import Tensor

from policies import Gaussian

SATURATED = 0.99  # |action| beyond which a component counts as saturated


@torch.no_grad()
def policy_metrics(log_prob: Tensor, entropy: Tensor, action: Tensor) -> dict[str, Tensor]:
    """Entropy and log-probability, in nats; shares of saturated components; histograms."""
    log_prob = log_prob.detach().flatten()
    metrics = {
        "policy/entropy": entropy.detach().mean(),
        "policy/log_prob_mean": log_prob.mean(),
        "policy/log_prob_min": log_prob.amin(),
        "policy/log_prob_max": log_prob.amax(),
        "policy/log_prob": log_prob,
        "policy/action": action.detach().flatten().clone(),  # a rollout reuses its arrays
    }
    if len(log_prob) > 1:
        metrics["policy/log_prob_std"] = log_prob.std()
    if action.is_floating_point():
        metrics["policy/saturation"] = (action.detach().abs() > SATURATED).float().mean()
    else:
        metrics["policy/effective_actions"] = entropy.detach().exp().mean()
    return metrics


@torch.no_grad()
def value_metrics(value: Tensor, target: Tensor, loss: Tensor) -> dict[str, Tensor]:
    """Of values (*,), or those of every member (E, *), and of their targets (*,)."""
    return {
        "loss/critic": loss.detach(),
        "value/mean": value.mean(),
        "value/target_mean": target.mean(),
        "value/td_abs": (target - value).abs().mean(),
        "value/explained_variance": explained_variance(value, target.expand_as(value)),
    }


@torch.no_grad()
def gaussian_metrics(policy: Gaussian, noise: Tensor) -> dict[str, Tensor]:
    """Spread of a Gaussian, and the contribution of each component to log_pi, in nats."""
    terms = {f"ledger/{name}": term.flatten(0, -2) for name, term in policy.terms(noise).items()}
    return {"policy/log_std_mean": policy.log_std.mean(), **terms}


@torch.no_grad()
def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """1 - Var[target - value] / Var[target]: 1 is perfect, 0 no better than a constant.

    NaN, so that no tag is written, where the target is constant. In float64, where equal float32
    numbers have a variance of exactly 0.
    """
    target, value = target.detach().double(), value.detach().double()
    error, spread = (target - value).var(correction=0), target.var(correction=0)
    return torch.where(spread > 0, 1.0 - error / spread, torch.nan).float()
