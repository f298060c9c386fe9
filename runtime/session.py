"""One process's part in a run: it starts one or takes one up, saves it, and leaves a result."""

import dataclasses
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from runtime import checkpoint, rundir
from runtime.audit import audit
from runtime.build import Parts
from runtime.chores import Chores
from runtime.console import Progress
from runtime.divergence import leave_evidence
from runtime.errors import ConfigError, StorageFault
from runtime.evaluation import Evaluation
from runtime.logger import Logger
from runtime.loop import train
from runtime.signals import Stop

if TYPE_CHECKING:
    from configs.schema import TrainConfig

SEGMENT_ROWS = 1 << 16  # of a replay, in one file
Pieces = Iterator[dict[str, Tensor]]
UNFIT = (RuntimeError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


@contextmanager
def fitting() -> Iterator[None]:
    """What a checkpoint holds is taken up inside: StorageFault where it is not of this run."""
    try:
        yield
    except UNFIT as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise StorageFault(
            f"checkpoint: does not fit config.yaml, {reason}; restore the run"
        ) from error


class Session:
    """Trains in a run directory whose lock this process holds.

    Args:
        path: the run directory.
        config: what is run there.
        parts: fresh ones.
        stop: what signals are noted in.
        started: `time.perf_counter()` when the process began.
    """

    def __init__(
        self, path: Path, config: "TrainConfig", parts: Parts, stop: Stop, started: float
    ) -> None:
        self.path, self.config, self.parts, self.stop = path, config, parts, stop
        self.started = started
        self.step = 0
        self.exact = True
        self.taken_up = False
        self.segments: list[checkpoint.Record] = []
        self.chores: Chores | None = None
        self.earlier: dict[str, Any] | None = None  # the chores of the process before

    def take_up(self, step: int, state: dict[str, Any], pieces: Pieces) -> None:
        """Goes back to a checkpoint of this run; says once where the rest will not be the same.

        Raises:
            ConfigError: config.yaml is not what the checkpoint was made with.
            StorageFault: the checkpoint does not fit.
        """
        from configs.resume import differences

        with fitting():
            for key, was, now in differences(state["config"], dataclasses.asdict(self.config)):
                raise ConfigError(
                    f"{key}: {now} is not what the run was made with, {was}; restore config.yaml"
                )
            self.parts.agent.load_state_dict(state["agent"])
            self.parts.load_buffer(state["buffer"], pieces)
            back = self.parts.envs.load_state_dict(state["envs"])
            self.earlier = state["chores"]
            self.segments = [{**record, "stop": int(record["stop"])}
                             for record in state["segments"]]  # fmt: skip
            self.started -= float(state["wall_seconds"])
            changed = self.changes(state["setting"])
            self.warn_of_horizon(int(state["config"]["total_steps"]))
            self.exact = bool(state["exact"]) and back and not changed
        self.step, self.taken_up = step, True
        if not back:
            changed.append(f"{self.config.env.id} did not come back to its last observation and "
                           "starts a new episode")  # fmt: skip
        if changed:
            print(f"warning: this run is from here on not bit for bit what it would have been: "
                  f"{'; '.join(changed)}", file=sys.stderr)  # fmt: skip

    def warn_of_horizon(self, planned: int) -> None:
        """A schedule keeps its first horizon: steps after it are made at a learning rate of 0."""
        total = self.config.total_steps
        if self.config.agent.lr_schedule == "linear" and total > planned:
            print(f"warning: agent.lr_schedule=linear has fallen to 0 at step {planned:,}, after "
                  "which nothing is learned; train longer from the start instead",
                  file=sys.stderr)  # fmt: skip

    def setting(self) -> dict[str, Any]:
        """What rounding depends on, beside the configuration."""
        device = self.parts.agent.device
        kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        return {"threads": int(self.config.threads), "device": self.config.device,
                "instructions": torch.backends.cpu.get_cpu_capability(), "kind": kind,
                **rundir.versions()}  # fmt: skip

    def changes(self, before: dict[str, Any]) -> list[str]:
        now = self.setting()
        return [f"{name} was {before.get(name)}, is {now[name]}" for name in now
                if before.get(name) != now[name]]  # fmt: skip

    def save(self, step: int, return_mean: float | None) -> None:
        """Commits a checkpoint; nothing in the run changes by it."""
        if self.chores is not None:
            self.chores.logger.sync()
        try:
            self.commit(step, return_mean)
        except StorageFault:
            with suppress(OSError):
                checkpoint.drop_unused(self.path)  # they would fill the disk further
            raise

    def commit(self, step: int, return_mean: float | None) -> None:
        segments = self.write_segments()
        state = {
            "step": step,
            "return_mean": return_mean,
            "config": dataclasses.asdict(self.config),
            "setting": self.setting(),
            "exact": self.exact,
            "wall_seconds": time.perf_counter() - self.started,
            "agent": self.parts.agent.state_dict(),
            "buffer": self.parts.buffer.state_dict(),
            "envs": self.parts.envs.state_dict(),
            "chores": None if self.chores is None else self.chores.state_dict(),
            "segments": segments,
        }
        checkpoint.save(self.path, step, state, self.config.checkpoint.keep, segments)
        self.segments = segments

    def write_segments(self) -> list[checkpoint.Record]:
        """Writes those rows of a replay that no file has yet; the files that hold it all."""
        replay = self.parts.replay
        if replay is None or not replay.count:
            return []
        segments = [s for s in self.segments if s["stop"] > replay.first_row()]
        start = max([replay.first_row(), *(s["stop"] for s in segments)])
        rows = max(1, SEGMENT_ROWS // replay.count) * replay.count
        for first in range(start, replay.added, rows):
            stop = min(first + rows, replay.added)
            piece = replay.rows(first, stop)
            segments.append(checkpoint.write_segment(self.path, first, stop, piece))
        return segments

    def run(self) -> Evaluation:
        """Trains to the end; writes `result.json`."""
        from configs.compose import to_yaml

        self.stop.hold()
        checkpoint.sweep(self.path)
        if not self.taken_up:
            self.save(self.step, None)
        config, parts = self.config, self.parts
        purge_step = self.step + 1 if self.taken_up else None
        logger = Logger(self.path, purge_step, parts.agent.device)
        if self.earlier is None:
            settings = "".join(
                f"| {key} | {value} |\n" for key, value in vars(config.agent).items()
            )
            logger.text("hyperparameters", f"| key | value |\n|---|---|\n{settings}")
            logger.text("config", "```yaml\n" + to_yaml(config) + "```")
        progress = Progress(config.total_steps, self.step)
        self.chores = chores = Chores(
            agent=parts.agent,
            envs=parts.envs,
            logger=logger,
            evaluator=parts.evaluator,
            progress=progress,
            save=self.save,
            log_every=int(config.log.every),
            eval_every=int(config.eval.every),
            checkpoint_every=int(config.checkpoint.every),
            audit=lambda step, obs: audit(parts.agent, obs, config.seed, step, logger),
            audit_every=int(config.audit.every),
            total_steps=config.total_steps,
            stop=self.stop,
            evidence=lambda step, metrics: leave_evidence(self.path, step, parts.agent, metrics),
        )
        if self.earlier is not None:
            with fitting():
                chores.load_state_dict(self.earlier)
            chores.last_save = self.step
        parts.evaluator.check = self.stop.check
        try:
            evaluation = train(parts.agent, parts.envs, parts.buffer, chores, self.step)
        finally:
            progress.close()
            logger.close()
        self.write_result(chores, evaluation)
        return evaluation

    def write_result(self, chores: Chores, evaluation: Evaluation) -> None:
        summary = evaluation.summary()
        rundir.write_json(
            self.path / "result.json",
            {
                "steps": chores.last_evaluation[0],
                "wall_seconds": time.perf_counter() - self.started,
                "steps_per_second": chores.steps_per_second,
                "return_mean": summary["return_mean"],
                "return_std": summary["return_std"],
                "episodes": len(evaluation.returns),
                "seed": self.config.seed,
                "versions": rundir.versions(),
                "revision": rundir.revision(),
                "exact": self.exact,
                "state_digest": self.parts.digest(),
            },
        )
