"""The one loop of every algorithm, and what is due between its steps."""

import math
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from agents.protocol import Agent
from data import Transition
from runtime.console import Progress
from runtime.envs import Envs
from runtime.errors import Divergence
from runtime.evaluation import Evaluation, Evaluator
from runtime.logger import Logger

STATES = 4  # observations at which a policy is audited


class Buffer(Protocol):
    """Where transitions wait for the update."""

    @property
    def warming_up(self) -> bool:
        """Whether actions are still to be uniform."""

    def add(self, transition: Transition) -> None: ...

    def batches(self) -> Any:
        """Iterates over the batches that are due now."""


def train(
    agent: Agent, envs: Envs, buffer: Buffer, total_steps: int, chores: "Chores"
) -> Evaluation:
    """Runs until `total_steps` environment steps; returns the evaluation at the end."""
    step = 0
    while step < total_steps:
        step = advance(agent, envs, buffer, chores, step)
    return chores.finish(step)


def advance(agent: Agent, envs: Envs, buffer: Buffer, chores: "Chores", step: int) -> int:
    """One step of all environments, the updates it allows, and what is due; the new step."""
    act = agent.explore if buffer.warming_up else agent.act
    action, latent = act(envs.obs)
    transition = envs.step(action, latent)
    agent.observe(transition)
    buffer.add(transition)
    for batch in buffer.batches():
        chores.updated(step + envs.num_envs, agent.update(batch))
    step += envs.num_envs
    chores.due(step, step - envs.num_envs)
    return step


@dataclass
class Clock:
    """Time spent on training itself, without evaluations and checkpoints."""

    started: float = field(default_factory=time.perf_counter)
    paused: float = 0.0

    @contextmanager
    def pause(self) -> Any:
        begun = time.perf_counter()
        yield
        self.paused += time.perf_counter() - begun

    def elapsed(self) -> float:
        return time.perf_counter() - self.started - self.paused


@dataclass
class Chores:
    """Logging, evaluation, audits, checkpoints, each when the step crosses its next multiple."""

    agent: Agent
    envs: Envs
    logger: Logger
    evaluator: Evaluator
    progress: Progress
    save: Callable[[int, float | None], None]  # (step, mean return if just evaluated)
    log_every: int
    eval_every: int
    checkpoint_every: int
    audit: Callable[[int, Tensor], object]  # (step, observations (N, O))
    audit_every: int
    clock: Clock = field(default_factory=Clock)
    learning_since: tuple[int, float] | None = None  # (step, seconds of training) at first update
    updates: int = 0
    best: float = float("-inf")
    last_log: tuple[int, float, int] = (0, 0.0, 0)  # (step, seconds, updates)
    last_evaluation: tuple[int, Evaluation | None] = (-1, None)
    last_save: int = 0
    last_audit: int = 0
    met: list[Tensor] = field(default_factory=list)  # an observation (O,) of each of the last logs
    steps_per_second: float = 0.0  # since learning began, without evaluations and saving

    def updated(self, step: int, metrics: dict[str, Any]) -> None:
        """After every update."""
        if self.learning_since is None:
            self.learning_since = (step, self.clock.elapsed())
        self.updates += 1
        self.logger.add(metrics)

    def due(self, step: int, before: int) -> None:
        """After every step of the environments."""
        if step // self.log_every > before // self.log_every:
            self.log(step)
        if step // self.eval_every > before // self.eval_every:
            self.evaluate(step)
        if step // self.audit_every > before // self.audit_every:
            self.look(step)
        if step // self.checkpoint_every > before // self.checkpoint_every:
            self.checkpoint(step)

    def log(self, step: int) -> None:
        """Writes the interval; raises Divergence where an update in it was not finite."""
        seconds = self.clock.elapsed()
        past_step, past_seconds, past_updates = self.last_log
        extra = {
            "time/steps_per_second": (step - past_step) / max(seconds - past_seconds, 1e-9),
            "time/updates_per_second": (self.updates - past_updates)
            / max(seconds - past_seconds, 1e-9),
        }
        self.met = [*self.met[1 - STATES :], self.envs.obs[0]]
        finished = self.envs.drain()
        if finished:
            extra["rollout/return"] = float(np.mean([f[1] for f in finished]))
            extra["rollout/length"] = float(np.mean([f[2] for f in finished]))
        shown = self.logger.flush(step, extra)
        self.last_log = (step, seconds, self.updates)
        self.stop_if_diverged(step)
        self.progress.note(shown)
        self.progress.update(step)

    def state_dict(self) -> dict[str, Any]:
        """What the next log, evaluation and checkpoint depend on."""
        return {
            "updates": self.updates,
            "best": self.best if math.isfinite(self.best) else None,
            "learning_since": self.learning_since,
            "last_log": self.last_log,
            "met": list(self.met),
            "seconds": self.clock.elapsed(),
            "logger": self.logger.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave; time goes on from there."""
        self.updates = state["updates"]
        self.best = float("-inf") if state["best"] is None else state["best"]
        since = state["learning_since"]
        self.learning_since = None if since is None else (since[0], since[1])
        self.last_log = (state["last_log"][0], state["last_log"][1], state["last_log"][2])
        self.met = list(state["met"])
        self.clock = Clock(time.perf_counter() - state["seconds"])
        self.logger.load_state_dict(state["logger"])

    def stop_if_diverged(self, step: int) -> None:
        """Raises Divergence where an update since the last log was not finite."""
        if bool(self.agent.diverged):
            raise Divergence(
                f"training diverged: a loss or gradient between steps {self.last_log[0]} and "
                f"{step} is not finite; lower agent.lr, the last checkpoint is good"
            )

    def evaluate(self, step: int) -> Evaluation:
        """Evaluates, and saves where it is the best so far."""
        self.stop_if_diverged(step)
        with self.clock.pause():
            evaluation = self.evaluator(self.agent, step)
            summary = evaluation.summary()
            tags = ("return_mean", "return_std", "length_mean")
            self.progress.note(self.logger.write(step, {f"eval/{t}": summary[t] for t in tags}))
            self.last_evaluation = (step, evaluation)
        if summary["return_mean"] > self.best:
            self.best = summary["return_mean"]
            self.checkpoint(step)
        return evaluation

    def look(self, step: int) -> None:
        """Audits the policy at observations that it met."""
        with self.clock.pause():
            self.audit(step, torch.stack([*self.met, self.envs.obs[0]][-STATES:]))
        self.last_audit = step

    def checkpoint(self, step: int) -> None:
        """Saves this step once, with its evaluation where it has one."""
        if self.last_save == step:
            return
        self.stop_if_diverged(step)
        evaluated, evaluation = self.last_evaluation
        score = evaluation.summary()["return_mean"] if evaluation and evaluated == step else None
        with self.clock.pause():
            self.save(step, score)
        self.last_save = step

    def finish(self, step: int) -> Evaluation:
        """The last log, evaluation and checkpoint."""
        since, seconds = self.learning_since or (0, 0.0)
        self.steps_per_second = (step - since) / max(self.clock.elapsed() - seconds, 1e-9)
        if self.last_log[0] < step:
            self.log(step)
        done, evaluation = self.last_evaluation
        if done < step or evaluation is None:
            evaluation = self.evaluate(step)
        if self.last_audit < step:
            self.look(step)
        self.checkpoint(step)
        return evaluation
