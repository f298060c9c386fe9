"""Logs, evaluations, audits and checkpoints, each every so many steps."""

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import Divergence, Stopped, StorageFault, warn
from configs.schema import EvalConfig
from data import Batch
from runtime import audits
from runtime.console import Progress
from runtime.divergence import cause, leave_evidence, remedy
from runtime.evaluation import Evaluation
from runtime.launch.signals import Stop
from runtime.logger import BEST, Logger
from runtime.saver import Saver

STATES = 4  # observations at which a policy is audited
MOST_WARNINGS = 5  # of the same kind
LOOK = 60.0  # seconds between two comparisons of the load
RUNAWAY = 100.0  # times its first value: a temperature that settles stays below


def reached(every: int, step: int, stride: int) -> bool:
    """Whether a step is the first at or beyond a multiple of `every`, in strides of `stride`."""
    return step // every > (step - stride) // every


@dataclass
class Record:
    """What the next log, evaluation and checkpoint depend on, by its names in a checkpoint."""

    updates: int = 0
    returns: list[float] = field(default_factory=list)  # mean return of each evaluation
    learning_since: tuple[int, float] | None = None  # (step, seconds of training), first update
    last_log: int = 0  # its step
    last_update: tuple[int, float, int] = (0, 0.0, 0)  # (step, seconds of training, updates)
    timed: tuple[int, float, int] = (0, 0.0, 0)  # the `last_update` up to which speeds are logged
    last_audit: int = 0  # its step
    last_evaluation: tuple[Any, ...] = (-1, [], [], 0)  # its step, the fields of `Evaluation`
    met: list[Tensor] = field(default_factory=list)  # an observation (O,) of each of the last logs

    @property
    def best(self) -> float:
        """Mean return of the best evaluation; -inf before the first."""
        return max(self.returns, default=-math.inf)

    def stopping(self, settings: EvalConfig) -> str | None:
        """Why the run ends by the evaluations so far; None where it continues."""
        last, wanted = self.returns[-settings.stop_after :], settings.stop_at
        if wanted is not None and len(last) == settings.stop_after and min(last) >= wanted:
            times = f" {settings.stop_after} times in a row" * (settings.stop_after > 1)
            return f"eval.stop_at={wanted:g} was reached{times}"
        since = len(self.returns) - 1 - self.returns.index(self.best) if self.returns else 0
        if settings.patience is not None and since >= settings.patience:
            return f"no new best return in eval.patience={settings.patience} evaluations"
        return None

    def evaluation(self, step: int) -> Evaluation | None:
        """The evaluation at this step; None where there is none."""
        evaluated, *played = self.last_evaluation
        return Evaluation(*played) if evaluated == step else None


@dataclass
class Clock:
    """Seconds since it was started, without those in which it was paused."""

    started: float = field(default_factory=lambda: time.perf_counter())  # tests replace it
    paused: float = 0.0
    stopped: float | None = None  # when the present pause began

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Context whose time does not count: an evaluation, an audit, a checkpoint."""
        self.stopped = begun = time.perf_counter()
        try:
            yield
        finally:
            self.stopped = None
            self.paused += time.perf_counter() - begun

    def elapsed(self) -> float:
        now = time.perf_counter() if self.stopped is None else self.stopped
        return now - self.started - self.paused


@dataclass
class TemperatureWatch:
    """Warns once where alpha has grown a hundredfold and the entropy is still too low."""

    first_alpha: float | None = None  # of the first log
    warned: bool = False

    def look(self, shown: Mapping[str, float]) -> None:
        """Takes what a log has shown, in nats; does nothing where no temperature is learned."""
        tags = ("policy/alpha", "policy/entropy", "policy/target_entropy")
        if not shown.keys() >= {*tags}:
            return
        alpha, entropy, target = (shown[tag] for tag in tags)
        self.first_alpha = self.first_alpha or alpha
        if alpha > RUNAWAY * self.first_alpha and entropy < target and not self.warned:
            self.warned = True
            warn(
                f"the temperature runs away: alpha is {alpha:.3g} and the entropy, {entropy:.3g}, "
                f"still below its target {target:.3g}; lower agent.target_entropy"
            )


@dataclass
class LoadWatch:
    """Warns once if other processes use the cores of this machine."""

    since: tuple[float, float] | None = None  # (time, seconds of a core used until then)
    warned: bool = False

    def look(self, threads: int) -> None:
        """Compares what this process has used of a core since the last look, if that is long."""
        now = (time.perf_counter(), time.process_time())
        if self.warned or not hasattr(os, "getloadavg"):
            return
        seconds, used = (new - old for new, old in zip(now, self.since or now, strict=True))
        if self.since is None or seconds > LOOK:
            self.since = now
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        if seconds > LOOK and used < seconds / 2 and load > 1.5 * cores:
            self.warned = True
            had = f"this run had {used / seconds:.0%} of one core for {seconds:.0f} s"
            remedy = "end some, or give threads=1" if threads > 1 else "end some, or wait"
            warn(f"machine: {load:.0f} processes share {cores} cores, {had}; {remedy}")


class Schedule:
    """Logs, evaluates, audits and saves, each every so many steps, and all at the last step.

    Each of these methods does nothing at a step where it was done before, in this process or in the
    one that was stopped there: a resumed run does what is left.
    """

    def __init__(self, saver: Saver, logger: Logger, progress: Progress, stop: Stop) -> None:
        self.saver, self.logger, self.progress, self.stop = saver, logger, progress, stop
        self.config, self.ranks, parts = saver.config, saver.ranks, saver.parts
        self.agent, self.envs, self.evaluator = parts.agent, parts.envs, parts.evaluator
        self.stride = self.envs.num_envs * self.ranks.size  # steps that are made at once
        self.actions = [
            (int(self.config.eval.every), self.evaluate),
            (int(self.config.log.every), self.log),
            (int(self.config.audit.every), self.audit),
        ]
        self.save_every = int(self.config.checkpoint.every)
        self.record = Record()
        self.temperature, self.load = TemperatureWatch(), LoadWatch()
        self.clock = Clock()  # of training alone
        self.last_save = saver.step
        self.stopped: str | None = None  # why the run ends before `total_steps`
        self.improved = False  # the last evaluation was the best, and is not saved yet
        self.unsaved = 0  # checkpoints for which there was no room
        self.checked = 0  # updates when a signal was last looked for
        self.batch: Any = None  # of the last update

    def state_dict(self) -> dict[str, Any]:
        return {
            **vars(self.record),
            "temperature": vars(self.temperature),
            "seconds": self.clock.elapsed(),
            "logger": self.logger.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave, its times included."""
        best = state.get("best")  # runs from before `returns` have it alone
        state = {"returns": [] if best is None else [best], **state}
        if "timed" not in state:  # of older runs: with the times of the last log
            past = state["last_log"]
            state |= {"last_update": past, "timed": past, "last_log": past[0]}
        self.record = Record(**{name: state[name] for name in vars(self.record)})
        self.stopped = self.record.stopping(self.config.eval)
        self.temperature = TemperatureWatch(**state["temperature"])
        self.clock = Clock(time.perf_counter() - state["seconds"])
        self.logger.load_state_dict(state["logger"])

    @property
    def steps_per_second(self) -> float:
        """Of training since its first update, up to the last save."""
        since, seconds = self.record.learning_since or (0, 0.0)
        if since == self.last_save:  # the first update was the last step
            since, seconds = 0, 0.0
        return (self.last_save - since) / max(self.clock.elapsed() - seconds, 1e-9)

    def updated(self, step: int, metrics: Mapping[str, Tensor], batch: Batch) -> None:
        """After every update on `batch`; raises Divergence where that costs no wait for a GPU."""
        self.record.updates += 1
        self.record.last_update = (step, self.clock.elapsed(), self.record.updates)
        if self.record.learning_since is None:
            self.record.learning_since = self.record.last_update[:2]
            if not self.agent.settings.on_policy:  # steps without updates have another speed
                self.record.timed = self.record.last_update
        self.batch = batch
        self.logger.add(metrics)
        if self.agent.device.type == "cpu":
            self.stop_if_diverged(step, metrics)

    def due(self, step: int) -> None:
        """After every step of the environments; at the last one of the run all is due.

        That is at `total_steps`, or where an evaluation, which comes first, ends the run. Raises
        Stopped where a signal came: this step is saved, and what is left can be done later.
        """
        try:
            for every, action in self.actions:
                if self.over(step) or reached(every, step, self.stride):
                    action(step)
            last = self.over(step)
            if last or self.improved or reached(self.save_every, step, self.stride):
                self.checkpoint(step, final=last)
            # the exchange between ranks takes as long as a step: after updates and logs alone
            updates, logged = self.record.updates, self.record.last_log
            if not last and (self.ranks.size == 1 or updates > self.checked or logged == step):
                self.checked = updates
                self.ranks.check(self.stop)
        except Stopped:
            self.checkpoint(step, final=True)
            raise

    def over(self, step: int) -> bool:
        """Whether this is the last step of the run."""
        return step >= self.config.total_steps or self.stopped is not None

    def log(self, step: int) -> None:
        """Writes the interval; raises Divergence where an update in it was not finite."""
        if self.record.last_log >= step:
            return
        values = self.speeds()
        if self.agent.returns is not None:
            values["train/reward_unit"] = float(self.agent.returns.unit)
        finished = self.envs.drain()
        if finished:
            values["rollout/return"] = float(np.mean([f[1] for f in finished]))
            values["rollout/length"] = float(np.mean([f[2] for f in finished]))
        shown = self.logger.flush(step, values)
        self.stop_if_diverged(step, {})
        self.record.last_log = step
        self.record.met = [*self.record.met[1 - STATES :], self.envs.obs[0]]
        self.temperature.look(shown)
        if self.config.env.vectorization != "async":  # whose workers would count as others
            self.load.look(int(self.config.threads))
        self.progress.note(shown)
        self.progress.update(step)

    def speeds(self) -> dict[str, float]:
        """Steps and updates per second up to the last update; none without one since the last."""
        pairs = zip(self.record.last_update, self.record.timed, strict=True)
        steps, seconds, updates = (now - past for now, past in pairs)
        self.record.timed = self.record.last_update
        interval = max(seconds, 1e-9)
        speeds = {"steps_per_second": steps / interval, "updates_per_second": updates / interval}
        return {f"time/{name}": speed for name, speed in speeds.items() if steps}

    def evaluate(self, step: int) -> None:
        """Evaluates, and notes where it is the best so far, or ends the run."""
        evaluator = self.evaluator
        if evaluator is None or self.record.last_evaluation[0] >= step:
            return
        self.stop_if_diverged(step, {})
        with self.clock.pause():
            played = self.ranks.decided(lambda: evaluator(self.agent, step))
        self.record.last_evaluation = (step, *played)
        summary = Evaluation(*played).summary()
        tags = ("return_mean", "return_std", "length_mean")
        saved, mean = self.last_save == step, summary["return_mean"]
        if saved:  # when a signal had cut this evaluation short
            with self.saving():
                self.saver.rate(step, mean)
        self.improved = mean > self.record.best and not saved
        self.record.returns.append(mean)
        self.stopped = self.record.stopping(self.config.eval)
        values = {**{f"eval/{tag}": summary[tag] for tag in tags}, BEST: self.record.best}
        self.progress.note(self.logger.write(step, values))

    def audit(self, step: int) -> None:
        """Audits the policy at observations of the last logs and at the present one."""
        if self.record.last_audit >= step:
            return
        with self.clock.pause():
            if self.ranks.first:
                obs = torch.stack([*self.record.met, self.envs.obs[0]][-STATES:])
                audits.audit(self.agent, obs, self.config.seed, step, self.logger)
        self.record.last_audit = step

    def checkpoint(self, step: int, final: bool = False) -> None:
        """Saves this step with its evaluation, if it has one."""
        if self.last_save == step:
            return
        self.stop_if_diverged(step, {})
        self.improved = False
        evaluation = self.record.evaluation(step)
        score = evaluation.summary()["return_mean"] if evaluation else None
        with self.saving(final):
            self.saver.save(step, score, self.state_dict())
            self.last_save = step

    @contextmanager
    def saving(self, final: bool = False) -> Iterator[None]:
        """A full disk inside is a warning, but for the `final` save, which has to succeed."""
        with self.clock.pause():
            try:
                yield
            except StorageFault as fault:
                if final:
                    raise
                self.unsaved += 1
                if self.unsaved <= MOST_WARNINGS:
                    warn(f"{fault}; training continues")

    def stop_if_diverged(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        """Raises Divergence if an update was not finite, and writes files that repeat it.

        The `metrics` are those of the update, or empty where it is found later.
        """
        if not self.agent.optimizer.diverged:
            return
        advice = remedy(self.agent, self.batch)
        evidence = leave_evidence(self.saver.path, step, self.agent, metrics, self.ranks.rank)
        raise Divergence(
            f"training diverged: {cause(metrics)}, found at step {step}; {advice}, the last "
            f"checkpoint is good{evidence}"
        )
