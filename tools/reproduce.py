"""Repeat a run and compare it, number by number: `python tools/reproduce.py run=runs/...`."""

import dataclasses
import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.errors import ConfigError, StorageFault, shown
from configs.compose import parse, quoted
from configs.files import flat, read_run, require_run
from configs.resume import require_repeated
from configs.schema import TrainConfig
from runtime.curves import read_curves
from runtime.launch.door import tool
from storage import provenance, rundir
from storage.checkpoint import load_newest
from storage.rundir import read_result
from tools.shared import Keys, key, read_keys

USAGE = """\
usage: python tools/reproduce.py run=RUN_DIR [run_dir=DIR] [env.id=ID]
Repeats the training of a run and prints the first step at which a logged number differs.

  run_dir=DIR  where the repetition is kept, a run of its own; without it, in runs/reproduced
  env.id=ID    the id of the run once more, if it names a module to import (MODULE:NAME)

exit code 0: equal; 1: different; otherwise as train.py"""
TRAIN = Path(__file__).resolve().parents[1] / "train.py"
LOOKS = ("eval/", "verification/")  # tags of evaluations and audits
SHOWN = 5  # tags that differ
Rows = dict[tuple[int, str], float]  # (step, tag) -> what was logged


@dataclass(frozen=True)
class Options(Keys):
    run: str = key("")
    run_dir: str | None = key(None)
    env_id: str | None = key(None, name="env.id")

    def check(self) -> None:
        self.require(bool(self.run), "run", "is missing", "give a run directory")


def repeat(arguments: list[str]) -> int:
    """Trains again, and compares."""
    given, _ = read_keys(Options, arguments)
    path = require_run("run", given.run)
    config = read_run(path)
    require_repeated(config.env, given.env_id)
    if not rows(path):
        raise ConfigError(f"run: {path} has logged nothing to compare; train longer")
    origin = origin_of(path)
    for line in surroundings(path, origin):
        print(f"note: {line}")
    names = config.env.id, config.agent.name
    again = rundir.create(given.run_dir, *names, config.seed, root=rundir.REPEATED)
    # train.py takes the folder, which is empty, as it is
    command = overrides(dataclasses.replace(config, run_dir=str(again), resume="auto"))
    ranks = int(origin.get("ranks", 1))
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    launcher = torchrun if ranks > 1 else []
    done = subprocess.run([sys.executable, *launcher, str(TRAIN), *command])
    with suppress(OSError):  # of a run that did not begin
        again.rmdir()
    return done.returncode or verdict(path, again)


def overrides(config: TrainConfig) -> list[str]:
    """The command line that composes to this configuration."""
    plain = dataclasses.asdict(config)
    arguments = plain["env"].pop("kwargs")
    values = dict(flat(plain))
    command = [f"agent={values.pop('agent.name')}"]
    command += [f"{name}={written(value)}" for name, value in values.items()]
    for name, value in arguments.items():
        argument = f"env.kwargs.{name}={written(value)}"
        with suppress(ConfigError):  # a dictionary may have keys that no command line can have
            if parse(argument)[2] == value:
                command.append(argument)
                continue
        why = f"its env.kwargs.{name} cannot be written on a command line"
        raise ConfigError(f"run: {why}; repeat the command that made it, with another run_dir")
    return command


def written(value: Any) -> str:
    """A value of a configuration as `parse` reads it."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{written(inner)}' for name, inner in value.items())}}}"
    return json.dumps(value)


def origin_of(path: Path) -> dict[str, Any]:
    """Versions, code and processes of a run, from its result or else its newest checkpoint."""
    if result := read_result(path):
        return result
    with suppress(StorageFault, LookupError, TypeError):
        state = load_newest(path, config=read_run(path))[1]
        known = {name: state[name] for name in ("ranks", "exact")}
        return {"variables": None, **state["setting"], **known, "versions": state["setting"]}
    return {}


def surroundings(path: Path, origin: dict[str, Any]) -> list[str]:
    """Differences between now and the time when the run was made."""
    from torch.backends.cpu import get_cpu_capability

    was = {**origin.get("versions", {}), "revision": origin.get("revision")}
    now = {
        "revision": provenance.revision(),
        **provenance.versions(*provenance.PHYSICS.values()),
        "instructions": get_cpu_capability(),
    }
    changed = [name for name in now if was.get(name) not in (None, now[name])]
    found = [f"{name} was {was[name]}, is {now[name]}" for name in changed]
    found += provenance.changed_variables(origin.get("variables"), provenance.variables())
    if not read_result(path):
        found.append("the run did not reach its end: it is compared up to its last step")
    patch, present = path / provenance.PATCH, b""
    try:
        present = provenance.uncommitted()
    except provenance.GitFailed as error:
        found.append(f"uncommitted changes of the code are unknown: {error}")
    before = patch.read_bytes() if patch.exists() else b""
    if before not in (b"", present):
        found.append(f"the code had uncommitted changes then: git apply {shown(patch)}")
    if present not in (b"", before):
        found.append("the code has uncommitted changes now")
    if not origin.get("exact", True):
        found.append("the run was not exact: its resumption was not, or its episodes do not repeat")
    return found


def verdict(path: Path, again: Path) -> int:
    """Prints the differences; returns 1 if there are any."""
    was, now = comparable(rows(path), rows(again), bool(read_result(path)))
    digests = [read_result(run).get("state_digest") for run in (path, again)]
    if wrong := differing(was, now):
        step = wrong[0][0]
        earlier = [at[0] for at in {**was, **now} if at[0] < step]
        after = f", equal up to {max(earlier):,}" if earlier else ""
        print(f"different from step {step:,} on{after}:")
        here = [at for at in wrong if at[0] == step]
        for at in here[:SHOWN]:
            print(f"  {at[1]} was {was.get(at)}, is {now.get(at)}")
        if len(here) > SHOWN:
            print(f"  and {len(here) - SHOWN} more")
        with suppress(StorageFault):
            spaces = [load_newest(run)[1].get("spaces") or {} for run in (path, again)]
            for kind, one in spaces[0].items():
                if (other := spaces[1].get(kind, one)) != one:
                    print(f"note: the environment's {kind} space was {one}, is {other}")
        return 1
    if None in digests:
        print(f"equal: {len(was):,} logged numbers")
        return 0
    if digests[0] != digests[1]:
        print(f"different: all {len(was):,} logged numbers are equal, the state at the end is not")
        return 1
    print(f"equal: {len(was):,} logged numbers, and the state at the end, to the last bit")
    return 0


def rows(path: Path) -> Rows:
    """All logged numbers of a run, except times."""
    return {
        (step, tag): value
        for tag, curve in read_curves(path).items()
        for step, value in curve
        if not tag.startswith("time/")
    }


def comparable(was: Rows, now: Rows, ended: bool) -> tuple[Rows, Rows]:
    """The rows that both runs should have.

    A run that was made longer has evaluated and logged at its first end, in the middle of an
    interval: evaluations and audits of the first run alone are left out, and so are the two parts
    of that interval. If the first run did not end, rows after its last one are left out.
    """
    if not ended:
        last = max((step for step, _ in was), default=0)
        now = {at: now[at] for at in now if at[0] < last + (not at[1].startswith(LOOKS))}
    was = {at: was[at] for at in was if at in now or not at[1].startswith(LOOKS)}
    logged = [{step for step, tag in one if not tag.startswith(LOOKS)} for one in (was, now)]
    parts = set[int]()  # of intervals
    for end in logged[0] - logged[1]:
        if later := [step for step in logged[1] if step > end]:
            parts |= {end, min(later)}
    was, now = (
        {at: one[at] for at in one if at[0] not in parts or at[1].startswith(LOOKS)}
        for one in (was, now)
    )
    return was, now


def differing(was: Rows, now: Rows) -> list[tuple[int, str]]:
    """(step, tag) of every number that differs, or that one of the logs lacks, by step."""
    return [at for at in sorted({**was, **now}) if was.get(at) != now.get(at)]


main = partial(tool, USAGE, repeat)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
