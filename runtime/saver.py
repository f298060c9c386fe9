"""What of a run is in its checkpoints: how it is saved, and how a process goes on from there."""

import dataclasses
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import ConfigError, Damaged, StorageFault
from envs.spaces import require_same_spaces
from runtime.build import Parts
from runtime.exactness import without_playing
from runtime.launch.ranks import ALONE, Ranks
from storage import checkpoint
from storage.checkpoint import taking_up
from storage.files import Record
from storage.provenance import changes, edited, require_as_long, setting
from storage.segments import Rows, write_segments

if TYPE_CHECKING:
    from configs.schema import TrainConfig

Reader = Callable[[list[Record]], Rows]
IDENTITY = ("seed", "env.id", "agent.name")  # a checkpoint with others is another run's
OWN = ("generators", "held")  # parts of an agent's state that each rank has for itself


class Saver:
    """Saves a run in its directory, whose lock this process holds, and restores it.

    Args:
        path: the run directory.
        config: of the run.
        parts: fresh ones.
        started: `time.perf_counter()` when the process began.
        ranks: the processes of this run, each of which has a saver of its own.

    Attributes:
        step: where the run began in this process.
        resumed: whether it was restored.
        schedule: the state of the schedule there; None before the first step.
        setting_then: of the process that saved it.
        exact: whether the run is bit for bit what it would have been without interruptions.
        lasting: why episodes do not repeat, once that is found.
    """

    def __init__(
        self,
        path: Path,
        config: "TrainConfig",
        parts: Parts,
        started: float,
        ranks: Ranks = ALONE,
    ) -> None:
        self.path, self.config, self.parts, self.ranks = path, config, parts, ranks
        self.started = started
        self.setting = setting(config, parts.agent.device)
        self.step = 0
        self.resumed = False
        self.schedule: dict[str, Any] | None = None
        self.setting_then = self.setting
        self.exact = True
        self.lasting: str | None = None
        self.examined = 0  # step at which it was last looked for
        self.segments: list[Record] = []  # files of the replay that are written

    def restore(self) -> list[str]:
        """Goes back to the newest valid checkpoint; a warning for each that was passed over.

        Raises:
            ConfigError: config.yaml, the ranks or the environment are not those of the run.
            StorageFault: no checkpoint is valid, or it does not fit.
        """
        try:
            step, state, warnings = checkpoint.load_newest(
                self.path, config=self.config, take=self.restore_buffer, agreed=self.ranks.agreed
            )
        except Damaged as fault:
            fault.shared = True  # all ranks have come to it together
            keys = {key for key, _, _ in fault.differs}
            if not keys or keys & set(IDENTITY):
                raise
            raise edited(*fault.differs[0]) from fault
        self.restore_rest(step, state)
        return warnings

    def own(self, state: dict[str, Any]) -> dict[str, Any]:
        """This rank's part of a state."""
        return state if self.ranks.first else state["others"][self.ranks.rank - 1]

    def restore_buffer(self, state: dict[str, Any], files: list[Record], read: Reader) -> None:
        """Restores the buffer; of a replay's files it reads those of this rank.

        Raises:
            Damage: one of them is not as it was written.
        """
        with taking_up(state):
            self.require_ranks(int(state.get("ranks", 1)))
            here = self.parts.envs.spaces
            require_same_spaces(self.config.env.id, state.get("spaces"), here)
            records = [{**record, "stop": int(record["stop"])} for record in state["segments"]]
            mine = [record.get("rank", 0) == self.ranks.rank for record in records]
            self.segments = list(compress(records, mine))
            rows = read(list(compress(files, mine)))
            self.parts.load_buffer(self.own(state)["buffer"], rows)

    def restore_rest(self, step: int, state: dict[str, Any]) -> None:
        """Restores all else; warns once where the rest of the run will not be the same.

        Raises:
            ConfigError: config.yaml is not what the checkpoint was made with.
            StorageFault: it does not fit.
        """
        with taking_up(state):
            require_as_long(state["config"], self.config)
            own, agent = self.own(state), state["agent"]
            if not self.ranks.first:
                agent = {**agent, **{name: own[name] for name in OWN}}
            self.parts.agent.load_state_dict(agent)
            back = self.parts.envs.load_state_dict(own["envs"])
            self.schedule, self.setting_then = state["chores"], state["setting"]
            self.started -= float(state["wall_seconds"])
            changed = changes(state["setting"], self.setting)
            self.lasting = state.get("lasting")
            if self.lasting is not None and self.parts.evaluator is not None:
                self.parts.evaluator.anew = True
            back = not self.ranks.most(int(not back))
            self.exact = bool(state["exact"]) and back and not changed
        self.step, self.resumed = step, True
        if not back:
            changed.append(
                f"{self.config.env.id} did not come back to its last observation and starts a new "
                "episode"
            )
        if changed:
            print(
                "warning: this run is from here on not promised to be bit for bit what it would "
                f"have been: {'; '.join(changed)}",
                file=sys.stderr,
            )

    def require_ranks(self, were: int) -> None:
        """Raises ConfigError where other processes go on with a run than made it."""
        if were != self.ranks.size:
            many = ", or as many on several machines" if were > 1 else ""
            raise ConfigError(
                f"ranks: {self.ranks.size} cannot go on with the run of {were}; "
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
        """Looks, until something is found, whether episodes repeat; warns once where they do not.

        Without evaluations there are no copies to play in.

        Args:
            training: whether an episode of training can be repeated; else it is a short one.
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
            print(f"warning: env {self.config.env.id}: {self.lasting}", file=sys.stderr)

    def save(self, step: int, return_mean: float | None, schedule: dict[str, Any] | None) -> None:
        """Commits a checkpoint; nothing in the run changes by it.

        Args:
            step: that was made last.
            return_mean: of an evaluation at this step.
            schedule: its state; None before the first step.

        Raises:
            StorageFault: there was no room for it.
        """
        self.examine(step, training=schedule is not None)
        try:
            self.commit(step, return_mean, schedule)
        except StorageFault:
            with suppress(OSError):
                if self.ranks.first:
                    checkpoint.drop_unused(self.path)  # they would fill the disk further
            raise

    def commit(self, step: int, return_mean: float | None, schedule: dict[str, Any] | None) -> None:
        """Gathers the states of all ranks, whose weights are the same; the first one writes."""
        segments = self.ranks.together(
            lambda: write_segments(self.path, self.parts.replay, self.segments, self.ranks.rank)
        )
        agent = self.parts.agent.state_dict()
        own = {
            "segments": segments,
            "buffer": self.parts.buffer.state_dict(),
            "envs": self.parts.envs.state_dict(),
            **{name: agent[name] for name in OWN},
        }
        everyone = self.ranks.pieces(own)

        def write() -> None:
            first, *others = everyone
            files = [record for rank in everyone for record in rank.pop("segments")]
            state = {
                "step": step,
                "return_mean": return_mean,
                "config": dataclasses.asdict(self.config),
                "setting": self.setting,
                "spaces": self.parts.envs.spaces,
                "exact": self.exact,
                "lasting": self.lasting,
                "wall_seconds": time.perf_counter() - self.started,
                "agent": agent,
                "buffer": first["buffer"],
                "envs": first["envs"],
                "ranks": self.ranks.size,
                "others": others,
                "chores": schedule,
                "segments": files,
            }
            checkpoint.save(self.path, step, state, self.config.checkpoint.keep, files)

        self.ranks.decided(write)
        self.segments = segments

    def rate(self, step: int, return_mean: float) -> None:
        """Adds its evaluation to a checkpoint that was saved without one."""
        self.ranks.decided(lambda: checkpoint.rate(self.path, step, return_mean))
