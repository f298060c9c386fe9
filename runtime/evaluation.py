"""How good a policy is, measured on environments and seeds that training never sees."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agents.protocol import Acting
from runtime.deadline import MAKING, within
from runtime.envs import Envs
from runtime.seeding import derive

MOST_ENVS = 64
PLAYING = "in an evaluation"
LONGEST = 30_000  # steps of an episode, which some environments never end


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths of whole episodes."""

    returns: np.ndarray
    lengths: np.ndarray

    def summary(self) -> dict[str, float]:
        """Mean, deviation, extremes and standard error of the return; mean length."""
        count = len(self.returns)
        deviation = float(self.returns.std(ddof=1)) if count > 1 else 0.0
        return {
            "return_mean": float(self.returns.mean()),
            "return_std": deviation,
            "return_min": float(self.returns.min()),
            "return_max": float(self.returns.max()),
            "return_sem": deviation / count**0.5,
            "length_mean": float(self.lengths.mean()),
        }


class Evaluator:
    """Runs an agent on its own environments; keeps no state, so how often it runs changes nothing.

    Args:
        env_id, vectorization, kwargs: as for `Envs`.
        episodes: per evaluation, spread evenly over the environments: each runs its quota to the
            end, so that short episodes are not counted more often than long ones.
        seed: every evaluation derives from (seed, step).
        check: called between two steps; may raise.
        most_envs: stepped together.
        deadline: seconds that these environments, which are in this process, have to answer, where
            the system has a timer for it; None: for ever.

    Raises:
        EnvironmentFault: they have not answered.
    """

    def __init__(
        self,
        env_id: str,
        vectorization: str,
        kwargs: dict[str, Any],
        episodes: int,
        seed: int,
        check: Callable[[], None] = lambda: None,
        most_envs: int = MOST_ENVS,
        deadline: float | None = None,
    ) -> None:
        self.episodes, self.seed, self.check = episodes, seed, check
        self.deadline = deadline
        count = min(episodes, most_envs)
        self.quota = np.full(count, episodes // count)
        self.quota[: episodes % count] += 1
        making = None if deadline is None else max(deadline, MAKING)
        with within(making, env_id, "while it was made"):
            self.envs = Envs(env_id, count, vectorization, kwargs, seed, journal=False)
        self.warned = False

    def __call__(self, agent: Acting, step: int, deterministic: bool = True) -> Evaluation:
        """Evaluates at environment step `step` of training."""
        generator = torch.Generator(agent.device)
        generator.manual_seed(derive(self.seed, "evaluation-noise", step))
        with within(self.deadline, self.envs.env_id, PLAYING):
            self.envs.reset(derive(self.seed, "evaluation-episodes", step))
        left = self.quota.copy()
        returns: list[float] = []
        lengths: list[int] = []
        while left.any():
            self.check()
            endless = (left > 0) & (self.envs.lengths >= LONGEST)
            if endless.any():
                self.cut(endless, left, returns, lengths)
                continue
            action, latent = agent.act(self.envs.obs, deterministic, generator)
            with within(self.deadline, self.envs.env_id, PLAYING):
                self.envs.step(action, latent)
            for index, episode_return, length in self.envs.drain():
                if left[index]:
                    left[index] -= 1
                    returns.append(episode_return)
                    lengths.append(length)
        return Evaluation(np.array(returns), np.array(lengths))

    def cut(
        self, endless: np.ndarray, left: np.ndarray, returns: list[float], lengths: list[int]
    ) -> None:
        """Counts episodes that do not end as they are, and says so, the first time."""
        returns += self.envs.returns[endless].tolist()
        lengths += self.envs.lengths[endless].tolist()
        left[endless] -= 1
        with within(self.deadline, self.envs.env_id, PLAYING):
            self.envs.abandon(endless)
        if not self.warned:
            self.warned = True
            print(
                f"warning: env {self.envs.env_id}: an episode did not end in {LONGEST:,} steps; "
                "evaluations count it as it is",
                file=sys.stderr,
            )

    def close(self) -> None:
        """Closes the environments; one that does not answer is left to the end of the process."""
        with within(self.deadline, self.envs.env_id, "in close"):
            self.envs.close()
