"""One process's part in a run: it starts one or takes one up, saves it, and leaves a result."""

import dataclasses
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit.live import audit
from common.errors import ConfigError, Damaged, StorageFault
from common.tree import digest
from envs.spaces import require_same_spaces
from runtime.build import Parts
from runtime.chores import Chores
from runtime.console import Progress
from runtime.divergence import leave_evidence, remedy
from runtime.evaluation import Evaluation
from runtime.exactness import kept_openly
from runtime.launch.ranks import ALONE, Ranks
from runtime.launch.signals import AgreedStop, Stop
from runtime.logger import Logger, Silent
from runtime.loop import train
from storage import checkpoint, provenance, rundir
from storage.checkpoint import taking_up
from storage.files import Record
from storage.provenance import PHYSICS, changes, edited, require_as_long, setting
from storage.segments import Rows, write_segments

if TYPE_CHECKING:
    from configs.schema import TrainConfig

Reader = Callable[[list[Record]], Rows]
IDENTITY = ("seed", "env.id", "agent.name")  # that no one edits: they tell of another run
OWN = ("generators", "held")  # of an agent's state: what each rank has for itself


class Session:
    """Trains in a run directory whose lock this process holds.

    Args:
        path: the run directory.
        config: what is run there.
        parts: fresh ones.
        stop: what signals are noted in.
        started: `time.perf_counter()` when the process began.
        ranks: the processes of this run, each of which has a session of its own.
    """

    def __init__(
        self,
        path: Path,
        config: "TrainConfig",
        parts: Parts,
        stop: Stop,
        started: float,
        ranks: Ranks = ALONE,
    ) -> None:
        self.path, self.config, self.parts, self.stop = path, config, parts, stop
        self.ranks = ranks
        self.setting = setting(config, parts.agent.device)
        self.started = started
        self.step = 0
        self.exact = True
        self.lasting: str | None = None  # why episodes do not repeat, once that is found
        self.looked = 0  # step at which it was last looked for
        self.taken_up = False
        self.segments: list[Record] = []
        self.chores: Chores | None = None
        self.earlier: dict[str, Any] | None = None  # the chores of the process before
        self.setting_then = self.setting  # of that process

    def restore(self) -> list[str]:
        """Goes back to the newest valid checkpoint; a warning for each that was passed over.

        Raises:
            ConfigError: config.yaml, the ranks or the environment are not those of the run.
            StorageFault: no checkpoint is valid, or it does not fit.
        """
        try:
            step, state, warnings = checkpoint.load_newest(
                self.path, config=self.config, take=self.take_rows, agreed=self.ranks.agreed
            )
        except Damaged as fault:
            fault.shared = True  # all ranks have come to it together
            keys = {key for key, _, _ in fault.differs}
            if not keys or keys & set(IDENTITY):
                raise
            raise edited(*fault.differs[0]) from fault
        self.take_up(step, state)
        return warnings

    def own(self, state: dict[str, Any]) -> dict[str, Any]:
        """This rank's part of a state."""
        return state if self.ranks.first else state["others"][self.ranks.rank - 1]

    def take_rows(self, state: dict[str, Any], files: list[Record], read: Reader) -> None:
        """Goes back to the buffer of a checkpoint; of a replay's files it reads its rank's.

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

    def take_up(self, step: int, state: dict[str, Any]) -> None:
        """Goes back to all else of a checkpoint; says once where the rest will not be the same.

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
            self.earlier, self.setting_then = state["chores"], state["setting"]
            self.started -= float(state["wall_seconds"])
            changed = changes(state["setting"], self.setting)
            self.note(state.get("lasting"))
            back = not self.ranks.most(int(not back))
            self.exact = bool(state["exact"]) and back and not changed
        self.step, self.taken_up = step, True
        if not back:
            changed.append(f"{self.config.env.id} did not come back to its last observation and "
                           "starts a new episode")  # fmt: skip
        if changed:
            print("warning: this run is from here on not promised to be bit for bit what it would "
                  f"have been: {'; '.join(changed)}", file=sys.stderr)  # fmt: skip

    def require_ranks(self, were: int) -> None:
        """Raises ConfigError where other processes go on with a run than made it."""
        if were != self.ranks.size:
            many = ", or as many on several machines" if were > 1 else ""
            raise ConfigError(f"ranks: {self.ranks.size} cannot go on with the run of {were}; "
                              f"start {Ranks(0, were, 0, were).launcher} train.py{many}"
                              )  # fmt: skip

    def note(self, found: str | None) -> bool:
        """Whether that is news: from here on, then, the run is not promised to be exact."""
        if found is None or self.lasting is not None:
            return False
        self.lasting, self.exact = found, False
        if self.parts.evaluator is not None:
            self.parts.evaluator.anew = True
        return True

    def examine(self, step: int) -> None:
        """Looks, until something is found, whether episodes repeat; warns once where they do not.

        Without evaluations there are no copies to play in.
        """
        evaluator, since, self.looked = self.parts.evaluator, step - self.looked, step
        if self.lasting is not None:
            return
        look = partial(kept_openly, self.parts.envs)
        if evaluator is not None:
            training = None if self.chores is None else self.parts.envs.state_dict()
            look = partial(evaluator.examine, training, since)
        if self.note(self.ranks.decided(look)):
            print(f"warning: env {self.config.env.id}: {self.lasting}", file=sys.stderr)

    def save(self, step: int, return_mean: float | None) -> None:
        """Commits a checkpoint; nothing in the run changes by it."""
        self.examine(step)
        if self.chores is not None:
            self.chores.logger.sync()
        try:
            self.commit(step, return_mean)
        except StorageFault:
            with suppress(OSError):
                if self.ranks.first:
                    checkpoint.drop_unused(self.path)  # they would fill the disk further
            raise

    def commit(self, step: int, return_mean: float | None) -> None:
        segments = self.ranks.together(
            lambda: write_segments(self.path, self.parts.replay, self.segments, self.ranks.rank)
        )
        agent, buffer, envs = (
            part.state_dict() for part in (self.parts.agent, self.parts.buffer, self.parts.envs)
        )
        own = {"segments": segments, "buffer": buffer, "envs": envs}
        own |= {name: agent[name] for name in OWN}
        all_of_them = self.ranks.pieces(own)
        self.ranks.decided(lambda: self.write(step, return_mean, agent, all_of_them))
        self.segments = segments

    def write(
        self, step: int, return_mean: float | None, agent: dict[str, Any], pieces: list[Any]
    ) -> None:
        """One checkpoint of all ranks; their weights are the same."""
        first, *others = pieces
        first = {name: part for name, part in first.items() if name not in OWN}  # in its agent
        segments = [record for piece in pieces for record in piece.pop("segments")]
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
            **first,
            "ranks": self.ranks.size,
            "others": others,
            "chores": None if self.chores is None else self.chores.state_dict(),
            "segments": segments,
        }
        checkpoint.save(self.path, step, state, self.config.checkpoint.keep, segments)

    def run(self) -> Evaluation | None:
        """Trains to the end; writes `result.json`."""
        from configs.files import to_yaml

        self.stop.hold()
        self.ranks.decided(lambda: checkpoint.sweep(self.path))
        if self.taken_up:
            self.examine(self.step)
        else:
            self.save(self.step, None)
        config, parts = self.config, self.parts
        purge_step = self.step + 1 if self.taken_up else None
        device, spec = parts.agent.device, parts.agent.spec
        actions = spec.action_dim if spec.discrete else 0
        logger = (Logger(self.path, purge_step, device, actions) if self.ranks.first
                  else Silent(device))  # fmt: skip
        if self.earlier is None and self.ranks.first:
            settings = "".join(
                f"| {key} | {value} |\n" for key, value in vars(config.agent).items()
            )
            logger.text("hyperparameters", f"| key | value |\n|---|---|\n{settings}")
            logger.text("config", "```yaml\n" + to_yaml(config) + "```")
        starts = getattr(config.agent, "learning_starts", 0)
        progress = Progress(config.total_steps, self.step, starts)
        self.chores = chores = Chores(
            agent=parts.agent,
            envs=parts.envs,
            logger=logger,
            evaluator=parts.evaluator,
            progress=progress,
            save=self.save,
            rate=lambda step, mean: self.ranks.decided(
                lambda: checkpoint.rate(self.path, step, mean)
            ),
            log_every=int(config.log.every),
            eval_every=int(config.eval.every),
            checkpoint_every=int(config.checkpoint.every),
            audit=lambda step, obs: (
                self.ranks.first and audit(parts.agent, obs, config.seed, step, logger)
            ),
            audit_every=int(config.audit.every),
            total_steps=config.total_steps,
            ranks=self.ranks,
            stop=self.stop if self.ranks.size == 1 else AgreedStop(self.stop, self.ranks),
            remedy=partial(remedy, config.agent, images=parts.envs.spec.bytes),
            evidence=lambda step, metrics: leave_evidence(
                self.path, step, parts.agent, metrics, self.ranks.rank
            ),
        )
        if self.earlier is not None:
            with taking_up({"setting": self.setting_then}):
                chores.load_state_dict(self.earlier)
            chores.last_save = self.step
        if parts.evaluator is not None:
            parts.evaluator.check = self.stop.check
        try:
            evaluation = train(parts.agent, parts.envs, parts.buffer, chores, self.step)
        finally:
            progress.close()
            logger.close()
        self.write_result(chores, evaluation)
        return evaluation

    def write_result(self, chores: Chores, evaluation: Evaluation | None) -> None:
        digests = [piece["digest"] for piece in self.ranks.pieces({"digest": self.parts.digest()})]
        if not self.ranks.first:
            return
        summary: dict[str, Any] = evaluation.summary() if evaluation is not None else {}
        told = (*provenance.versions(), *PHYSICS.values(), "instructions")
        rundir.write_json(
            self.path / "result.json",
            {
                "steps": chores.last_save,
                "wall_seconds": time.perf_counter() - self.started,
                "steps_per_second": chores.steps_per_second,
                "return_mean": summary.get("return_mean"),
                "return_std": summary.get("return_std"),
                "episodes": 0 if evaluation is None else len(evaluation.returns),
                "episodes_cut": summary.get("episodes_cut", 0),
                "seed": self.config.seed,
                "versions": {name: self.setting[name] for name in told if name in self.setting},
                "variables": self.setting["variables"],
                "revision": self.setting["revision"],  # not that of now
                "exact": self.exact,
                **({"ranks": self.ranks.size} if self.ranks.size > 1 else {}),
                "state_digest": digests[0] if len(digests) == 1 else digest({"ranks": digests}),
            },
        )
