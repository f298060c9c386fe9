"""Evaluation of a policy, in environments and with seeds that training does not use."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from common.errors import ConfigError, EnvironmentFault, of_making, warn
from common.seeding import derive
from configs.schema import EnvConfig
from configs.validate import Auto
from envs.deadline import MAKING, within
from envs.envs import Envs
from runtime.exactness import at_save, before_training, undisturbed

MOST_ENVS = 64
MOST, FEWEST, SHARE = 1000, 100, 20  # steps of an episode that one look repeats
LONGEST = 10_000  # steps of an episode whose environment has no limit: some never end


class Acting(Protocol):
    """An agent, or a policy that was exported to a file; see `BaseAgent`."""

    @property
    def device(self) -> torch.device: ...

    def act(
        self, obs: Tensor, deterministic: bool = False, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]: ...


class Evaluation(NamedTuple):
    """Returns and lengths of episodes, all whole but for those that were `cut`."""

    returns: list[float]
    lengths: list[int]
    cut: int = 0

    def summary(self) -> dict[str, float]:
        """Mean, deviation, extremes, standard error of the return; mean length; episodes cut."""
        returns, count = np.array(self.returns), len(self.returns)
        deviation = float(returns.std(ddof=1)) if count > 1 else 0.0
        return {
            "return_mean": float(returns.mean()),
            "return_std": deviation,
            "return_min": float(returns.min()),
            "return_max": float(returns.max()),
            "return_sem": deviation / count**0.5,
            "length_mean": float(np.mean(self.lengths)),
            "episodes_cut": self.cut,
        }


def several_or_one(make: Callable[[int], Envs], count: int) -> tuple[Envs, str | None]:
    """`count` copies, or the only one that can be made and what is wrong with several."""
    try:
        return make(count), None
    except (EnvironmentFault, ConfigError) as fault:
        if count == 1 or not of_making(fault):
            raise
        with suppress(EnvironmentFault, ConfigError):
            return make(1), f"{fault.problem}, with {count} copies"
        raise


class Evaluator:
    """Runs an agent on its own environments; keeps no state, so how often it runs changes nothing.

    Where copies do keep something over a reset (`examine`), they are made anew each time.

    Args:
        env: where it plays, without workers: native where training is, else in this process. With
            async training `env.timeout` is a deadline, as it is for workers; then EnvironmentFault.
        episodes: per evaluation, spread evenly over at most 64 environments: each runs its quota to
            the end, so that short episodes do not count more often than long ones.
        seed: an evaluation derives from (seed, step).
        max_length: steps after which an episode is cut; auto: the environment's own limit, or
            10,000 where it has none.
        render: a render_mode of Gymnasium's, with which one environment plays all episodes.
    """

    def __init__(
        self,
        env: EnvConfig,
        episodes: int,
        seed: int,
        max_length: int | Auto = "auto",
        render: str | None = None,
    ) -> None:
        self.deadline = env.timeout if env.vectorization == "async" else None
        if render is not None:
            shown = {**env.kwargs, "render_mode": render}
            sync = "sync" if env.vectorization == "native" else env.vectorization
            env = replace(env, vectorization=sync, kwargs=shown)
        self.env, self.seed = env, seed
        self.check: Callable[[], None] = lambda: None  # between two steps; may raise
        try:
            most = MOST_ENVS if render is None else 1
            self.envs, fault = several_or_one(self.make, min(episodes, most))
        except (ConfigError, EnvironmentFault) as error:
            if render is None or not (of_making(error) or "render_mode" in str(error)):
                raise
            raise type(error)(str(not_shown(env.id, render, error.why))) from error
        if fault is not None:
            warn(f"{fault}; one plays all episodes")
        count = self.envs.num_envs
        self.quota = np.full(count, episodes // count)
        self.quota[: episodes % count] += 1
        self.anew = False  # copies for each evaluation
        self.allowed = 2.0 * MOST  # steps to be repeated, beside the `FEWEST` of each look
        own = self.envs.backend.limit or LONGEST
        self.max_length = own if max_length == "auto" else max_length
        self.warned = False

    def make(self, count: int) -> Envs:
        making = None if self.deadline is None else max(self.deadline, MAKING)
        env, how = self.env, "native" if self.env.vectorization == "native" else "sync"
        with within(making, env.id, "while it was made"):
            return Envs(
                env.id, count, how, env.kwargs, self.seed, journal=False, wrappers=env.wrappers
            )

    def filming(self) -> "Evaluator":
        """An evaluator of one episode, whose environment returns pictures."""
        return Evaluator(self.env, 1, self.seed, max_length=self.max_length, render="rgb_array")

    def examine(self, training: dict[str, Any] | None = None, since: int = 0) -> str | None:
        """Why an episode does not repeat from its seed and actions, in a line; None where it does.

        Args:
            training: `state_dict` of training's environments, to repeat their last episode; None: a
                short one of random actions.
            since: steps of training since the last look, of which one in 20 may be repeated.
        """
        if training is None:
            found = before_training(self.envs, self.seed, self.deadline)
        else:
            self.allowed += since / SHARE
            most = max(FEWEST, min(MOST, int(self.allowed)))
            found, steps = at_save(self.envs, training, most, self.deadline)
            self.allowed -= steps if steps > FEWEST else 0
        self.anew |= found is not None
        return found

    def __call__(self, agent: Acting, step: int, deterministic: bool = True) -> Evaluation:
        """Evaluates at environment step `step` of training."""
        with undisturbed(derive(self.seed, "evaluation-global", step)):
            if self.anew:
                to_env = self.envs.to_env
                self.close()
                self.envs = self.make(len(self.quota))
                self.envs.to_env = to_env
            return self.play(agent, step, deterministic)

    def play(self, agent: Acting, step: int, deterministic: bool) -> Evaluation:
        generator = torch.Generator(agent.device)
        generator.manual_seed(derive(self.seed, "evaluation-noise", step))
        envs = self.envs
        envs.during = f"in an evaluation at step {step} of training"
        answering = partial(within, self.deadline, envs.env_id, envs.during)
        with answering():
            envs.reset(derive(self.seed, "evaluation-episodes", step))
        left, cut = self.quota.copy(), 0
        returns: list[float] = []
        lengths: list[int] = []
        while left.any():
            self.check()
            endless = (left > 0) & (envs.lengths >= self.max_length)
            if endless.any():
                if not self.warned:
                    self.warned = True
                    warn(
                        f"env {envs.env_id}: an episode did not end in {self.max_length:,} steps, "
                        "is cut and counted as it is; eval.max_length=N (train.py) or "
                        "max_length=N (evaluate.py) cuts later, or sooner"
                    )
                cut += int(endless.sum())
                left[endless] -= 1
                returns += envs.returns[endless].tolist()
                lengths += envs.lengths[endless].tolist()
                with answering():
                    envs.abandon(endless)
                continue
            action, latent = agent.act(envs.obs, deterministic, generator)
            with answering():
                envs.step(action, latent)
            for index, episode_return, length in envs.drain():
                if left[index]:
                    left[index] -= 1
                    returns.append(episode_return)
                    lengths.append(length)
        return Evaluation(returns, lengths, cut)

    def close(self) -> None:
        """Closes the environments; one that is stuck ends with the process."""
        with within(self.deadline, self.envs.env_id, "in close"):
            self.envs.close()


def not_shown(env_id: str, render: str, why: str = "it has no such mode") -> ConfigError:
    key, value = ("video", "true") if render == "rgb_array" else ("render", render)
    return ConfigError(
        f"{key}: {env_id} cannot be shown, {why}; let it take Gymnasium's render_mode={render}, or "
        f"leave {key}={value} out"
    )
