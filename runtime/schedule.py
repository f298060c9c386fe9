"""What a run does every so many steps: logs, evaluations, audits and checkpoints."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from audit import live
from common.clock import Clock
from common.errors import Divergence, Stopped, StorageFault
from data import Batch
from runtime.build import Parts
from runtime.console import Progress
from runtime.divergence import cause, leave_evidence, remedy
from runtime.evaluation import Evaluation
from runtime.launch.ranks import ALONE, Ranks
from runtime.launch.signals import Stop
from runtime.logger import Logger
from runtime.saver import Saver

if TYPE_CHECKING:
    from configs.schema import TrainConfig

STATES = 4  # observations at which a policy is audited
MOST_WARNINGS = 5  # of the same kind
RUNAWAY = 100.0  # times its first value: a temperature that settles stays below
TEMPERATURE = {"policy/alpha", "policy/target_entropy", "policy/entropy"}


@dataclass(frozen=True)
class Every:
    """Whether a step is the first at or beyond a multiple of `steps`."""

    steps: int

    def __call__(self, step: int, before: int) -> bool:
        """`before` is the step that was made last: all environments move at once."""
        return step // self.steps > before // self.steps


@dataclass
class Record:
    """What the next log, evaluation and checkpoint depend on; checkpoints have the same names.

    Attributes:
        updates: how many there were.
        best: mean return of the best evaluation; None before the first.
        learning_since: (step, seconds of training) at the first update.
        last_log: (step, seconds of training, updates).
        last_audit: its step.
        last_evaluation: its step, and the fields of `Evaluation`; at step -1 there is none.
        met: an observation (O,) of each of the last logs.
    """

    updates: int = 0
    best: float | None = None
    learning_since: tuple[int, float] | None = None
    last_log: tuple[int, float, int] = (0, 0.0, 0)
    last_audit: int = 0
    last_evaluation: tuple[Any, ...] = (-1, [], [], 0)
    met: list[Tensor] = field(default_factory=list)

    def evaluation(self, step: int) -> Evaluation | None:
        """The evaluation at this step; None where there is none."""
        evaluated, *played = self.last_evaluation
        return Evaluation(*played) if evaluated == step else None


@dataclass
class TemperatureWatch:
    """Warns once where alpha has grown a hundredfold and the entropy is still too low.

    Attributes:
        first_alpha: of the first log.
        warned: whether it has.
    """

    first_alpha: float | None = None
    warned: bool = False

    def look(self, shown: Mapping[str, float]) -> None:
        """Takes what a log has shown, in nats; does nothing where no temperature is learned."""
        if not set(shown) >= TEMPERATURE:
            return
        alpha, target = shown["policy/alpha"], shown["policy/target_entropy"]
        self.first_alpha = self.first_alpha or alpha
        runs_away = alpha > RUNAWAY * self.first_alpha and shown["policy/entropy"] < target
        if runs_away and not self.warned:
            self.warned = True
            print(
                f"warning: the temperature runs away: alpha is {alpha:.3g} and the entropy, "
                f"{shown['policy/entropy']:.3g}, still below its target {target:.3g}; lower "
                "agent.target_entropy",
                file=sys.stderr,
            )


class Schedule:
    """Logs, evaluates, audits and saves, each every so many steps and at the end.

    Each of these methods does nothing at a step where it was done before, in this process or in the
    one that was stopped there: a run that goes on does what is left.

    Args:
        config: the intervals, and the length of the run.
        parts: of the run.
        saver: writes its checkpoints.
        logger, progress: get the numbers.
        stop: checked after each step.
        ranks: the processes of the run.
    """

    def __init__(
        self,
        config: "TrainConfig",
        parts: Parts,
        saver: Saver,
        logger: Logger,
        progress: Progress,
        stop: Stop | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config, self.saver, self.ranks = config, saver, ranks
        self.agent, self.envs, self.evaluator = parts.agent, parts.envs, parts.evaluator
        self.logger, self.progress, self.stop = logger, progress, stop or Stop()
        self.total_steps = config.total_steps
        self.stride = self.envs.num_envs * ranks.size  # steps from one call of `due` to the next
        self.actions: list[tuple[Every, Callable[[int], None]]] = [
            (Every(int(config.log.every)), self.log),
            (Every(int(config.eval.every)), self.evaluate),
            (Every(int(config.audit.every)), self.audit),
        ]
        self.checkpoints = Every(int(config.checkpoint.every))
        self.record = Record()
        self.temperature = TemperatureWatch()
        self.clock = Clock()  # of training alone
        self.last_save = saver.step
        self.improved = False  # the last evaluation was the best, and is not saved yet
        self.unsaved = 0  # checkpoints for which there was no room
        self.checked = 0  # updates when a signal was last looked for
        self.batch: Batch | None = None  # of the last update
        self.steps_per_second = 0.0  # since learning began; known at the end
        on_cpu = self.agent.device.type == "cpu"  # where reading it waits for nothing
        self.diverged: Any = self.agent.diverged.numpy() if on_cpu else None

    def state_dict(self) -> dict[str, Any]:
        return {
            **vars(self.record),
            "temperature": vars(self.temperature),
            "seconds": self.clock.elapsed(),
            "logger": self.logger.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave; time goes on from there."""
        self.record = Record(**{field.name: state[field.name] for field in fields(Record)})
        self.temperature = TemperatureWatch(**state["temperature"])
        self.clock = Clock(time.perf_counter() - state["seconds"])
        self.logger.load_state_dict(state["logger"])

    def updated(self, step: int, metrics: dict[str, Any], batch: Batch | None = None) -> None:
        """After every update on `batch`; raises Divergence where that costs no wait for a GPU."""
        if self.record.learning_since is None:
            self.record.learning_since = (step, self.clock.elapsed())
        self.record.updates += 1
        self.batch = batch
        self.logger.add(metrics)
        if self.diverged:
            raise self.divergence(f"{cause(metrics)} at step {step}", step, metrics)

    def due(self, step: int, before: int) -> None:
        """After every step of the environments.

        Raises:
            Stopped: a signal came; this step is saved.
        """
        try:
            for every, action in self.actions:
                if every(step, before):
                    action(step)
            # at the last step, `finish` saves: after the last evaluation
            if step < self.total_steps and (self.checkpoints(step, before) or self.improved):
                self.checkpoint(step)
            self.check(step)
        except Stopped:
            self.checkpoint(step, final=True)
            raise

    def check(self, step: int) -> None:
        """Raises Stopped where a signal came; with other ranks, only after updates and logs.

        Their answers take as long as a step.
        """
        updates, logged = self.record.updates, self.record.last_log[0]
        if self.ranks.size == 1 or updates > self.checked or logged == step:
            self.checked = updates
            self.stop.check()

    def finish(self, step: int) -> Evaluation | None:
        """The last log, evaluation, audit and checkpoint; returns that evaluation.

        Raises:
            Stopped: a signal came; this step is saved, and what is left can be done later.
        """
        since, seconds = self.record.learning_since or (0, 0.0)
        if since == step:  # the first update was the last step
            since, seconds = 0, 0.0
        self.steps_per_second = (step - since) / max(self.clock.elapsed() - seconds, 1e-9)
        try:
            for _, action in self.actions:
                action(step)
        except Stopped:
            self.checkpoint(step, final=True)
            raise
        self.checkpoint(step, final=True)
        return self.record.evaluation(step)

    def log(self, step: int) -> None:
        """Writes the interval; raises Divergence where an update in it was not finite."""
        past_step, past_seconds, past_updates = self.record.last_log
        if past_step >= step:
            return
        seconds, updates = self.clock.elapsed(), self.record.updates
        interval = max(seconds - past_seconds, 1e-9)
        values = {
            "time/steps_per_second": (step - past_step) / interval,
            "time/updates_per_second": (updates - past_updates) / interval,
        }
        finished = self.envs.drain()
        if finished:
            values["rollout/return"] = float(np.mean([f[1] for f in finished]))
            values["rollout/length"] = float(np.mean([f[2] for f in finished]))
        shown = self.logger.flush(step, values)
        self.stop_if_diverged(step)
        self.record.last_log = (step, seconds, updates)
        self.record.met = [*self.record.met[1 - STATES :], self.envs.obs[0]]
        self.temperature.look(shown)
        self.progress.note(shown)
        self.progress.update(step)

    def evaluate(self, step: int) -> None:
        """Evaluates, and notes where it is the best so far."""
        if self.evaluator is None or self.record.last_evaluation[0] >= step:
            return
        self.stop_if_diverged(step)
        evaluator = self.evaluator
        with self.clock.pause():
            played = self.ranks.decided(lambda: evaluator(self.agent, step))
            summary = Evaluation(*played).summary()
            tags = ("return_mean", "return_std", "length_mean")
            self.progress.note(self.logger.write(step, {f"eval/{t}": summary[t] for t in tags}))
            self.record.last_evaluation = (step, *played)
        saved, mean = self.last_save == step, summary["return_mean"]
        if saved:  # when a signal had cut this evaluation short
            self.written(lambda: self.saver.rate(step, mean))
        if mean > (-math.inf if self.record.best is None else self.record.best):
            self.record.best, self.improved = mean, not saved

    def audit(self, step: int) -> None:
        """Audits the policy at observations of the last logs and at the present one."""
        if self.record.last_audit >= step:
            return
        with self.clock.pause():
            if self.ranks.first:
                obs = torch.stack([*self.record.met, self.envs.obs[0]][-STATES:])
                live.audit(self.agent, obs, self.config.seed, step, self.logger)
        self.record.last_audit = step

    def checkpoint(self, step: int, final: bool = False) -> None:
        """Saves this step with its evaluation, if it has one.

        Where the disk is full the run goes on with a warning, and saves when the next is due; only
        the `final` one has to succeed.
        """
        if self.last_save == step:
            return
        self.stop_if_diverged(step)
        self.improved = False
        evaluation = self.record.evaluation(step)
        score = None if evaluation is None else evaluation.summary()["return_mean"]
        if self.written(lambda: self.saver.save(step, score, self.state_dict()), final):
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

    def stop_if_diverged(self, step: int) -> None:
        """Raises Divergence where an update since the last log was not finite."""
        if bool(self.agent.diverged):
            between = f"between steps {self.record.last_log[0]} and {step}"
            raise self.divergence(f"a loss or gradient {between} is not finite", step, {})

    def divergence(self, what: str, step: int, metrics: dict[str, Any]) -> Divergence:
        """The error, once the update is written down so that it can be repeated."""
        change = "start again"
        if self.batch is not None:
            change = remedy(self.config.agent, self.batch, images=self.envs.spec.bytes)
        evidence = leave_evidence(self.saver.path, step, self.agent, metrics, self.ranks.rank)
        return Divergence(
            f"training diverged: {what}; {change}, the last checkpoint is good{evidence}"
        )
