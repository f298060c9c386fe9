"""An environment under random actions, and whether two such plays are the same."""

import hashlib
import time
from dataclasses import dataclass, field

import numpy as np
import torch

from data import Transition
from envs.envs import Envs


@dataclass
class Played:
    """What an environment showed under random actions."""

    transitions: list[Transition] = field(default_factory=list)
    episodes: list[tuple[int, float, int]] = field(default_factory=list)
    seconds: float = 0.0

    def column(self, name: str) -> np.ndarray:
        """One field over all steps, (T, ...)."""
        return np.concatenate([getattr(t, name).numpy() for t in self.transitions])


def play(envs: Envs, steps: int, seed: int) -> Played:
    """Uniformly random actions, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    played, spec = Played(), envs.spec
    started = time.perf_counter()
    for _ in range(steps):
        if spec.choices:
            action = torch.stack([torch.randint(n, (1,), generator=generator)
                                  for n in spec.choices], -1)  # fmt: skip
        elif spec.discrete:
            action = torch.randint(spec.action_dim, (1,), generator=generator)
        else:
            action = torch.rand(1, spec.action_dim, generator=generator) * 2.0 - 1.0
        played.transitions.append(envs.step(action, action))
    played.seconds = time.perf_counter() - started
    played.episodes = envs.drain()
    return played


def digests(played: Played) -> list[str]:
    """One for each step."""
    return [
        hashlib.sha256(b"".join(field.numpy().tobytes() for field in step[2:6])).hexdigest()
        for step in played.transitions
    ]


def differs(one: Played, other: Played) -> int | None:
    """The first step at which two plays differ."""
    same = [np.ones(len(one.transitions), dtype=np.bool_)]
    for name in ("next_obs", "reward", "terminated", "truncated"):
        equal = one.column(name) == other.column(name)
        same.append(equal.reshape(len(equal), -1).all(-1))
    wrong = np.flatnonzero(~np.stack(same).all(0))
    return int(wrong[0]) if len(wrong) else None
