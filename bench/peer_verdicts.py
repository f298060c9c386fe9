"""What `audit` finds in the density of a peer: from draws and a function alone, as anyone would."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import audit
from bench.peer_densities import Peer
from bench.peer_errors import seeded

DRAWS = 20_000  # of one state, whose std is 1
PAIR_MEANS, DENSITY_MEAN = (4.0, 6.5), 4.0  # |u| up to 8, and to where tanh rounds to 1
BOX_MEAN = 0.5  # of what is not squashed
BOXES = {"tanh": (-1.0, 1.0), "clip": (-1.0, 1.0), "plain": (None, None)}


def verdicts(peer: Peer) -> list[str]:
    """Of its own pairs at two states, and of its density of given actions if it has one."""
    pairs = [verdict(partial(pairs_checked, peer, mean)) for mean in PAIR_MEANS]
    return [*pairs, verdict(partial(density_checked, peer)) if peer.given else "–"]


def verdict(check: Callable[[], audit.Report]) -> str:
    """In words, or why there is none."""
    try:
        return check().verdict
    except ValueError as error:
        return f"none: {error}"


def pairs_checked(peer: Peer, mean: float) -> audit.Report:
    actions, log_pi = seeded(partial(drawn, peer, mean, DRAWS))
    low, high = BOXES[peer.action]
    return audit.check_pairs(actions, log_pi, low=low, high=high)


def density_checked(peer: Peer) -> audit.Report:
    def log_prob(action: Tensor) -> Tensor:
        assert peer.given is not None
        return peer.given(*state(peer, DENSITY_MEAN, action), action).reshape(-1)

    def sample(count: int) -> Tensor:
        return drawn(peer, DENSITY_MEAN, count, torch.float64)[0]

    low, high = BOXES[peer.action]
    return audit.check(sample=sample, log_prob=log_prob, low=low, high=high, draws=DRAWS)


def drawn(
    peer: Peer, mean: float, count: int, kind: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """(actions (S, 1), log_pi (S,)), by default float32, as in training."""
    noise = torch.randn(count, 1, dtype=kind)
    action, log_pi = peer.own(*state(peer, mean, noise), noise)
    return action.detach(), log_pi.detach().reshape(-1)


def state(peer: Peer, mean: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, log_std) for each row."""
    mean = mean if peer.action == "tanh" else BOX_MEAN
    return torch.full_like(like, mean), torch.zeros_like(like)
