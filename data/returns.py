"""Advantages and returns."""

import torch
from torch import Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16).

    delta_t = r_t + gamma * (1 - terminated_t) * V(next_obs_t) - V(obs_t)
    A_t     = delta_t + gamma * lambda * (1 - terminated_t) * (1 - truncated_t) * A_{t+1}

    Args:
        reward, value, next_value: (T, N); next_value is the value of the true successor.
        terminated, truncated: (T, N) bool. Both cut the chain, only `terminated` the bootstrap.
        gamma, gae_lambda: discount and mixing, in [0, 1]; gae_lambda = 1 gives the return to the
            end of the episode or of the rollout, then the bootstrap.

    Returns:
        advantage, return = advantage + value, (T, N) each.
    """
    delta = reward + gamma * torch.where(terminated, 0.0, next_value) - value
    decay = (gamma * gae_lambda) * (~(terminated | truncated)).to(delta)
    last = torch.zeros_like(delta[0])
    backwards = []
    for delta_t, decay_t in zip(reversed(delta.unbind()), reversed(decay.unbind()), strict=True):
        last = torch.addcmul(delta_t, decay_t, last)
        backwards.append(last)
    advantage = torch.stack(backwards[::-1])
    return advantage, advantage + value
