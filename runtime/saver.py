"""The contents of checkpoints: saving and restoring a run."""

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import ConfigError, Damaged, StorageFault, warn
from configs.schema import TrainConfig
from envs.spaces import require_same_spaces
from runtime.build import Parts
from runtime.exactness import without_playing
from runtime.launch.ranks import ALONE, Ranks
from storage import checkpoint
from storage.checkpoint import taking_up
from storage.files import Record
from storage.provenance import changes, setting
from storage.segments import SEGMENTS, read_segments, write_segments

IDENTITY = ("seed", "env.id", "agent.name")  # a checkpoint with others is another run's
OWN = ("generators", "held")  # parts of an agent's state that each rank has for itself


@dataclass
class Saver:
    """Saves a run in its directory, whose lock this process holds, and restores it.

    Each of the `ranks` has a saver of its own, with fresh `parts`.
    """

    path: Path
    config: TrainConfig
    parts: Parts
    started: float  # `time.perf_counter()` when the process began, less the seconds before it
    ranks: Ranks = ALONE
    step: int = 0  # where the run began in this process
    resumed: bool = False
    schedule: dict[str, Any] | None = None  # its state there; None before the first step
    lasting: str | None = None  # why episodes do not repeat, once that is found
    examined: int = 0  # step at which it was last looked for
    segments: list[Record] = field(default_factory=list)  # files of the replay that are written

    def __post_init__(self) -> None:
        self.setting = setting(self.config, self.parts.agent.device)
        self.setting_then = self.setting  # of the process that saved the run
        # whether it is bit for bit what it would have been alone and without interruptions
        self.exact = self.config.init is None

    def restore(self) -> list[str]:
        """Restores the newest valid checkpoint; returns warnings.

        One for each that was passed over, and one where the rest of the run is not the same.

        Raises:
            ConfigError: config.yaml, the ranks or the environment are not those of the run.
            StorageFault: no checkpoint is valid, or it does not fit.
        """
        try:
            self.step, state, warnings = checkpoint.load_newest(
                self.path, config=self.config, take=self.restore_buffer, agreed=self.ranks.agreed
            )
        except Damaged as fault:
            fault.shared = True  # all ranks have come to it together
            if not fault.differs or any(key in IDENTITY for key, _, _ in fault.differs):
                raise
            raise edited(*fault.differs[0]) from fault
        self.resumed = True
        with taking_up(state):
            warnings += require_as_long(state["config"], self.config)
            own, agent = self.own(state), state["agent"]
            if not self.ranks.first:
                agent = {**agent, **{name: own[name] for name in OWN}}
            self.parts.agent.load_state_dict(agent)
            back = self.parts.envs.load_state_dict(own["envs"])
            back = not self.ranks.most(int(not back))
            self.schedule, self.setting_then = state["chores"], state["setting"]
            self.started -= float(state["wall_seconds"])
            self.lasting = state.get("lasting")
            if self.lasting is not None and self.parts.evaluator is not None:
                self.parts.evaluator.anew = True
            changed = changes(state["setting"], self.setting)
            self.exact = bool(state["exact"]) and back and not changed
        if not back:
            stray = "did not come back to its last observation and starts a new episode"
            changed.append(f"{self.config.env.id} {stray}")
        if changed:
            lost = "from here on this run may differ from an uninterrupted one"
            warnings.append(f"{lost}: {'; '.join(changed)}")
        return warnings

    def own(self, state: dict[str, Any]) -> dict[str, Any]:
        """This rank's part of a state."""
        return state if self.ranks.first else state["others"][self.ranks.rank - 1]

    def restore_buffer(self, state: dict[str, Any], records: list[Record]) -> None:
        """Restores the buffer; of a replay's files it reads those of this rank. Raises Damaged."""
        with taking_up(state):
            self.require_ranks(int(state.get("ranks", 1)))
            here = self.parts.envs.spaces
            require_same_spaces(self.config.env.id, state.get("spaces"), here)
            rank = self.ranks.rank
            self.segments = [record for record in records if record.get("rank", 0) == rank]
            rows = read_segments(self.path / SEGMENTS, self.segments)
            self.parts.buffer.restore(self.own(state)["buffer"], rows)

    def require_ranks(self, were: int) -> None:
        """Raises ConfigError where the number of processes is not that of the run."""
        if were != self.ranks.size:
            many = ", or as many on several machines" if were > 1 else ""
            raise ConfigError(
                f"ranks: {self.ranks.size} cannot continue the run of {were}; "
                f"start {Ranks(0, were, 0, were).launcher} train.py{many}"
            )

    def begin(self) -> None:
        """Before the first step of this process: a new run is saved, too."""
        self.ranks.decided(lambda: checkpoint.sweep(self.path))
        if self.resumed:
            self.examine(self.step)
        else:
            self.save(self.step, None, None)

    def examine(self, step: int, training: bool = False) -> None:
        """Checks whether episodes repeat, until one does not; then warns once.

        An episode of `training`, or else a short one; without evaluations there is no copy for it.
        """
        since, self.examined = step - self.examined, step
        if self.lasting is not None:
            return
        look = partial(without_playing, self.parts.envs)
        if self.parts.evaluator is not None:
            played = self.parts.envs.state_dict() if training else None
            look = partial(self.parts.evaluator.examine, played, since)
        self.lasting = self.ranks.decided(look)
        if self.lasting is not None:
            self.exact = False
            warn(f"env {self.config.env.id}: {self.lasting}")

    def save(self, step: int, return_mean: float | None, schedule: dict[str, Any] | None) -> None:
        """Commits a checkpoint; nothing in the run changes by it. Raises StorageFault.

        The first rank writes the states of all of them, whose weights are the same. `return_mean`
        is of an evaluation at this step; the state of the `schedule` is None before the first one.
        """
        self.examine(step, training=schedule is not None)
        agent, keep = self.parts.agent.state_dict(), self.config.checkpoint.keep
        own = {
            "buffer": self.parts.buffer.state_dict(),
            "envs": self.parts.envs.state_dict(),
            **{name: agent[name] for name in OWN},
        }
        state: dict[str, Any] = {
            "step": step,
            "return_mean": return_mean,
            "config": asdict(self.config),
            "setting": self.setting,
            "spaces": self.parts.envs.spaces,
            "exact": self.exact,
            "lasting": self.lasting,
            "wall_seconds": time.perf_counter() - self.started,
            "agent": agent,
            "ranks": self.ranks.size,
            "chores": schedule,
        }
        try:
            segments = self.ranks.together(
                lambda: write_segments(self.path, self.parts.replay, self.segments, self.ranks.rank)
            )
            first, *others = everyone = self.ranks.pieces({**own, "segments": segments})
            files = [record for rank in everyone for record in rank.pop("segments")]
            state |= {"buffer": first["buffer"], "envs": first["envs"]}
            state |= {"others": others, "segments": files}
            self.ranks.decided(lambda: str(checkpoint.save(self.path, step, state, keep, files)))
        except StorageFault:
            with suppress(OSError):
                if self.ranks.first:
                    checkpoint.drop_unused(self.path)  # they would fill the disk further
            raise
        self.segments = segments

    def rate(self, step: int, return_mean: float) -> None:
        """Adds its evaluation to a checkpoint that was saved without one."""
        self.ranks.decided(lambda: checkpoint.rate(self.path, step, return_mean))


def require_as_long(recorded: dict[str, Any], config: TrainConfig) -> list[str]:
    """A warning where a run is longer than its learning rate, which keeps its first horizon.

    Raises ConfigError where it has fewer steps than the configuration of its checkpoint.
    """
    total, planned = config.total_steps, int(recorded["total_steps"])
    if total < planned:
        raise edited("total_steps", planned, total)
    if config.agent.lr_schedule == "linear" and total > planned:
        fallen = f"agent.lr_schedule=linear: the learning rate has fallen to 0 at step {planned:,}"
        return [f"{fallen}, nothing is learned after it; train longer from the start instead"]
    return []


def edited(key: str, was: object, now: object) -> ConfigError:
    return ConfigError(f"{key}: {now} is not the run's value, {was}; restore config.yaml")
