"""What is due between the steps of a run: logs, evaluations, audits, checkpoints."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.protocol import Agent
from common.clock import Clock
from common.errors import Divergence, Stopped, StorageFault
from data import Batch
from envs.envs import Envs
from runtime.console import Progress
from runtime.evaluation import Evaluation, Evaluator
from runtime.launch.ranks import ALONE, Ranks
from runtime.launch.signals import Stop
from runtime.logger import Logger
from runtime.watchdog import Watchdog

STATES = 4  # observations at which a policy is audited
MOST_WARNINGS = 5  # of the same kind


@dataclass
class Chores:
    """Logging, evaluation, audits, checkpoints, each when the step crosses its next multiple."""

    agent: Agent
    envs: Envs
    logger: Logger
    evaluator: Evaluator | None  # None: nothing is evaluated
    progress: Progress
    save: Callable[[int, float | None], None]  # (step, mean return if just evaluated)
    rate: Callable[[int, float], None]  # the same for a step that was saved before
    log_every: int
    eval_every: int
    checkpoint_every: int
    audit: Callable[[int, Tensor], object]  # (step, observations (N, O))
    audit_every: int
    total_steps: int
    ranks: Ranks = ALONE
    stop: Stop = field(default_factory=Stop)
    remedy: Callable[[Batch], str] = lambda batch: "start again"  # from what diverged
    evidence: Callable[[int, dict[str, Any]], str] = lambda step, metrics: ""  # what to say of it
    clock: Clock = field(default_factory=Clock)
    learning_since: tuple[int, float] | None = None  # (step, seconds of training) at first update
    updates: int = 0
    best: float = float("-inf")
    last_log: tuple[int, float, int] = (0, 0.0, 0)  # (step, seconds, updates)
    last_evaluation: tuple[int, Evaluation | None] = (-1, None)
    improved: bool = False  # the last evaluation was the best, and is not saved yet
    last_save: int = 0
    last_audit: int = 0
    unsaved: int = 0  # checkpoints for which there was no room
    heard: int = 0  # updates when a signal was last looked for
    temperature: Watchdog = field(default_factory=Watchdog)
    met: list[Tensor] = field(default_factory=list)  # an observation (O,) of each of the last logs
    batch: Batch | None = None  # of the last update
    steps_per_second: float = 0.0  # since learning began, if any came after; no evaluations, saving

    def __post_init__(self) -> None:
        on_cpu = self.agent.device.type == "cpu"  # where reading it waits for nothing
        self.diverged: Any = self.agent.diverged.numpy() if on_cpu else None
        self.stride = self.envs.num_envs * self.ranks.size  # steps from one look to the next

    def updated(self, step: int, metrics: dict[str, Any], batch: Batch | None = None) -> None:
        """After every update on `batch`; raises Divergence where that costs no wait for a GPU."""
        if self.learning_since is None:
            self.learning_since = (step, self.clock.elapsed())
        self.updates += 1
        self.batch = batch
        self.logger.add(metrics)
        if self.diverged:
            names = sorted(metrics, key=lambda name: not name.startswith(("loss/", "grad_norm/")))
            first = next(
                (f"{name} is {metrics[name].item()}" for name in names
                 if metrics[name].ndim == 0 and not metrics[name].isfinite()),
                "a gradient is not finite",
            )  # fmt: skip
            raise self.divergence(f"{first} at step {step}", step, metrics)

    def due(self, step: int, before: int) -> None:
        """After every step of the environments; each of it once, also where a run goes on there.

        Raises:
            Stopped: a signal came; this step is saved.
        """
        try:
            if step // self.log_every > before // self.log_every and self.last_log[0] < step:
                self.log(step)
            met = step // self.eval_every > before // self.eval_every
            if met and self.last_evaluation[0] < step and self.evaluator is not None:
                self.evaluate(step, self.evaluator)
            if step // self.audit_every > before // self.audit_every and self.last_audit < step:
                self.look(step)
            crossed = step // self.checkpoint_every > before // self.checkpoint_every
            if step < self.total_steps and (crossed or self.improved):
                self.checkpoint(step)  # the last one waits for the last evaluation
            if self.ranks.size == 1 or self.updates > self.heard or self.last_log[0] == step:
                self.heard = self.updates  # asking other ranks costs as much as a step
                self.stop.check()
        except Stopped:
            self.checkpoint(step, final=True)
            raise

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
        self.temperature.look(shown)
        self.progress.note(shown)
        self.progress.update(step)

    def state_dict(self) -> dict[str, Any]:
        """What the next log, evaluation and checkpoint depend on."""
        return {
            "updates": self.updates,
            "best": self.best if math.isfinite(self.best) else None,
            "learning_since": self.learning_since,
            "last_log": self.last_log,
            "last_audit": self.last_audit,
            "last_evaluation": self.recorded_evaluation(),
            "met": list(self.met),
            "temperature": vars(self.temperature),
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
        self.last_audit = state["last_audit"]
        step, *evaluation = state["last_evaluation"]
        if step >= 0:
            self.last_evaluation = (step, Evaluation.of(*evaluation))
        self.met = list(state["met"])
        self.temperature = Watchdog(**state["temperature"])
        self.clock = Clock(time.perf_counter() - state["seconds"])
        self.logger.load_state_dict(state["logger"])

    def recorded_evaluation(self) -> tuple[int, list[float], list[int], int]:
        """The last evaluation as plain numbers, at step -1 where there is none."""
        step, evaluation = self.last_evaluation
        return (-1, [], [], 0) if evaluation is None else (step, *evaluation.plain())

    def stop_if_diverged(self, step: int) -> None:
        """Raises Divergence where an update since the last log was not finite."""
        if bool(self.agent.diverged):
            between = f"between steps {self.last_log[0]} and {step}"
            raise self.divergence(f"a loss or gradient {between} is not finite", step, {})

    def divergence(self, what: str, step: int, metrics: dict[str, Any]) -> Divergence:
        remedy = "start again" if self.batch is None else self.remedy(self.batch)
        return Divergence(f"training diverged: {what}; {remedy}, the last checkpoint is good"
                          f"{self.evidence(step, metrics)}")  # fmt: skip

    def evaluate(self, step: int, evaluator: Evaluator) -> Evaluation:
        """Evaluates, and notes where it is the best so far."""
        self.stop_if_diverged(step)
        with self.clock.pause():
            played = self.ranks.decided(lambda: evaluator(self.agent, step).plain())
            evaluation = Evaluation.of(*played)
            summary = evaluation.summary()
            tags = ("return_mean", "return_std", "length_mean")
            self.progress.note(self.logger.write(step, {f"eval/{t}": summary[t] for t in tags}))
            self.last_evaluation = (step, evaluation)
        saved, mean = self.last_save == step, summary["return_mean"]
        if saved:  # when a signal had cut this evaluation short
            self.written(lambda: self.rate(step, mean))
        if mean > self.best:
            self.best, self.improved = mean, not saved
        return evaluation

    def look(self, step: int) -> None:
        """Audits the policy at observations that it met."""
        with self.clock.pause():
            self.audit(step, torch.stack([*self.met, self.envs.obs[0]][-STATES:]))
        self.last_audit = step

    def checkpoint(self, step: int, final: bool = False) -> None:
        """Saves this step once, with its evaluation where it has one.

        Where the disk is full the run goes on with a warning, and saves when the next is due; only
        the `final` one has to succeed.
        """
        if self.last_save == step:
            return
        self.stop_if_diverged(step)
        self.improved = False
        evaluated, evaluation = self.last_evaluation
        score = evaluation.summary()["return_mean"] if evaluation and evaluated == step else None
        if self.written(lambda: self.save(step, score), final):
            self.last_save = step

    def written(self, write: Callable[[], None], final: bool = False) -> bool:
        """Whether there was room for it; else a warning, or, of the `final` one, StorageFault."""
        with self.clock.pause():
            try:
                write()
            except StorageFault as fault:
                if final:
                    raise
                self.unsaved += 1
                if self.unsaved <= MOST_WARNINGS:
                    print(f"warning: {fault}; training goes on", file=sys.stderr)
                return False
        return True

    def finish(self, step: int) -> Evaluation | None:
        """The last log, evaluation and checkpoint; like `due`, it can be stopped and gone on."""
        try:
            return self.complete(step)
        except Stopped:
            self.checkpoint(step, final=True)
            raise

    def complete(self, step: int) -> Evaluation | None:
        since, seconds = self.learning_since or (0, 0.0)
        if since == step:  # the first update was the last step
            since, seconds = 0, 0.0
        self.steps_per_second = (step - since) / max(self.clock.elapsed() - seconds, 1e-9)
        if self.last_log[0] < step:
            self.log(step)
        done, evaluation = self.last_evaluation
        if done < step:
            evaluation = None if self.evaluator is None else self.evaluate(step, self.evaluator)
        if self.last_audit < step:
            self.look(step)
        self.checkpoint(step, final=True)
        return evaluation
