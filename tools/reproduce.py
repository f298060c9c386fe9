"""Repeat a run and compare it, number by number: `python tools/reproduce.py run=runs/...`.

Trains again with the configuration of the run, then names the first step at which a logged number
differs, or says that none does.
"""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common.errors import ConfigError, shown  # noqa: E402
from configs.compose import parse, quoted  # noqa: E402
from configs.files import read_run, require_run  # noqa: E402
from configs.resume import require_repeated  # noqa: E402
from configs.schema import TrainConfig  # noqa: E402
from configs.validate import unknown_key  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from storage.rundir import read_result  # noqa: E402

USAGE = """\
usage: python tools/reproduce.py run=RUN_DIR [run_dir=DIR] [env.id=ID]
Trains a run again and names the first step at which a logged number differs.
The repetition is a run of its own, at run_dir or in runs/reproduced, and stays there;
env.id repeats the id where it names a module to import.
exit code 0: equal; 1: different, and where; otherwise as train.py"""
LOOKS = ("eval/", "audit/")
SHOWN = 5  # tags that differ, of which there may be dozens


@dataclass
class Difference:
    """The first step at which two runs differ, and the tags that do."""

    step: int
    before: int | None  # the last step at which they were equal
    tags: list[tuple[str, float | None, float | None]]  # (name, was, is)


def main(arguments: list[str]) -> int:
    """Repeats; returns the exit code."""
    return tool(USAGE, repeat, arguments)


def repeat(arguments: list[str]) -> int:
    """Trains again, and compares."""
    given = {name: value for name, _, value in map(parse, arguments)}
    for name in given:
        if name not in (known := ["run", "run_dir", "env.id", "debug"]):
            raise ConfigError(unknown_key(name, known))
    if "run" not in given:
        raise ConfigError("run: is missing; give a run directory")
    path = require_run("run", str(given["run"]))
    config = read_run(path)
    require_repeated(config.env.id, given.get("env.id"))
    from runtime.curves import read_curves

    if not any(map(counts, read_curves(path))):
        raise ConfigError(f"run: {path} has logged nothing that could be compared; train longer")
    made = made_with(path)
    for line in surroundings(path, made):
        print(f"note: {line}")
    from storage import rundir

    again = rundir.create(
        given.get("run_dir"), config.env.id, config.agent.name, config.seed, root=rundir.REPEATED
    )
    # It is this command's from now on: train.py takes it as it is.
    command = overrides(dataclasses.replace(config, run_dir=str(again.absolute()), resume="auto"))
    ranks = int(made.get("ranks", 1))
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    launcher = torchrun if ranks > 1 else []
    done = subprocess.run([sys.executable, *launcher, str(ROOT / "train.py"), *command])
    with suppress(OSError):  # of a run that did not begin
        again.rmdir()
    return done.returncode or verdict(path, again)


def overrides(config: TrainConfig) -> list[str]:
    """The command line that composes to this very configuration."""
    values = dict(leaves(dataclasses.asdict(config)))
    command = [f"agent={values.pop('agent.name')}"]
    command += [f"{key}={written(value)}" for key, value in values.items()]
    for name, value in config.env.kwargs.items():
        read = None
        with suppress(ConfigError):  # a dictionary may have keys that no command line has
            read = parse(f"env.kwargs.{name}={written(value)}")[2]
        if read != value:
            remedy = "repeat the command that made it, with another run_dir"
            why = f"its env.kwargs.{name} cannot be written on a command line"
            raise ConfigError(f"run: {why}; {remedy}")
    return command


def written(value: Any) -> str:
    """A value of a configuration as `parse` reads it."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{written(inner)}' for key, inner in value.items())}}}"
    return json.dumps(value)


def leaves(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """(key in full, value) of everything that is no group."""
    for name, value in values.items():
        if isinstance(value, dict) and before != "env.kwargs.":
            yield from leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def made_with(path: Path) -> dict[str, Any]:
    """What is known of how the run was made: its result, or else its newest checkpoint."""
    from common.errors import StorageFault
    from storage.checkpoint import load_newest

    result = read_result(path)
    if result:
        return result
    try:
        state = load_newest(path, config=read_run(path))[1]
        setting = state["setting"]
        return {
            "ranks": state["ranks"],
            "exact": state["exact"],
            "versions": setting,
            "variables": setting.get("variables"),
            "revision": setting["revision"],
        }
    except (StorageFault, LookupError, TypeError):
        return {}


def surroundings(path: Path, made: dict[str, Any]) -> list[str]:
    """What is not as it was when the run was made."""
    from torch.backends.cpu import get_cpu_capability

    from storage import provenance
    from storage.provenance import PHYSICS, changed_variables, variables

    was = {**made.get("versions", {}), "revision": made.get("revision")}
    now = {
        "revision": provenance.revision(),
        **provenance.versions(*PHYSICS.values()),
        "instructions": get_cpu_capability(),
    }
    changed = [name for name in now if was.get(name) not in (None, now[name])]
    found = [f"{name} was {was[name]}, is {now[name]}" for name in changed]
    found += changed_variables(made.get("variables"), variables())
    if not read_result(path):
        found.append("the run did not come to its end: it is compared as far as it went")
    patch, present = path / provenance.PATCH, b""
    try:
        present = provenance.uncommitted()
    except provenance.GitFailed as error:
        found.append(f"what is not committed cannot be told: {error}")
    if (patch.read_bytes() if patch.exists() else b"") != present:
        if patch.exists():
            found.append(f"the code had changes that were not committed: git apply {shown(patch)}")
        if present:
            found.append("the code has changes that are not committed")
    if not made.get("exact", True):
        found.append(
            "the run itself was not exact: it was resumed so, or its episodes do not repeat"
        )
    return found


def verdict(path: Path, again: Path) -> int:
    """Says what differs; returns 1 where something does."""
    from runtime.curves import read_curves

    ended = bool(read_result(path))
    was, now = comparable(read_curves(path), read_curves(again), ended)
    difference = first_difference(was, now)
    digests = [read_result(run).get("state_digest") for run in (path, again)]
    if difference is not None:
        after = f", equal up to {difference.before:,}" if difference.before is not None else ""
        print(f"different from step {difference.step:,} on{after}:")
        for tag, one, other in difference.tags[:SHOWN]:
            print(f"  {tag} was {one}, is {other}")
        if len(difference.tags) > SHOWN:
            print(f"  and {len(difference.tags) - SHOWN} more")
        for line in changed_spaces(path, again):
            print(f"note: {line}")
        return 1
    count = sum(len(curve) for tag, curve in was.items() if counts(tag))
    if None not in digests and digests[0] != digests[1]:
        print(f"different: all {count:,} logged numbers are equal, the state at the end is not")
        return 1
    ends = "" if None in digests else ", and the state at the end, to the last bit"
    print(f"equal: {count:,} logged numbers{ends}")
    return 0


def changed_spaces(path: Path, again: Path) -> list[str]:
    """Where the environment has other spaces now than when the run was made."""
    from common.errors import StorageFault
    from storage.checkpoint import load_newest

    try:
        was, now = (load_newest(run)[1].get("spaces") or {} for run in (path, again))
    except StorageFault:
        return []
    return [
        f"the environment's {kind} space was {was[kind]}, is {now[kind]}"
        for kind in was
        if was[kind] != now.get(kind, was[kind])
    ]


Curves = dict[str, list[tuple[int, float]]]


def comparable(was: Curves, now: Curves, ended: bool) -> tuple[Curves, Curves]:
    """What both runs came to.

    Evaluations and audits that only the first one made are left out: a run that was made longer has
    looked at its first end, and has logged there, and next, a part of an interval. Of a run that
    did not end, nothing after its last row can be missed.
    """
    if not ended:
        last = max((step for curve in was.values() for step, _ in curve), default=0)
        now = {
            tag: [row for row in curve if row[0] < last + (not tag.startswith(LOOKS))]
            for tag, curve in now.items()
        }
    known = {(tag, step) for tag, curve in now.items() for step, _ in curve}
    was = {
        tag: [row for row in curve if not tag.startswith(LOOKS) or (tag, row[0]) in known]
        for tag, curve in was.items()
    }
    split = first_ends(was, now)
    was, now = (
        {
            tag: [row for row in curve if tag.startswith(LOOKS) or row[0] not in split]
            for tag, curve in curves.items()
        }
        for curves in (was, now)
    )
    return was, now


def first_ends(was: Curves, now: Curves) -> set[int]:
    """Where a run that was made longer logged at its first end, and next: parts of an interval."""
    logged = [
        {step for tag, curve in curves.items() if not tag.startswith(LOOKS) for step, _ in curve}
        for curves in (was, now)
    ]
    later = {
        end: min((step for step in logged[1] if step > end), default=None)
        for end in logged[0] - logged[1]
    }
    return {step for end, after in later.items() if after is not None for step in (end, after)}


def counts(tag: str) -> bool:
    return not tag.startswith("time/")


def first_difference(was: Curves, now: Curves) -> Difference | None:
    """Where two logs part; a number that one of them lacks is a difference."""
    rows: list[dict[tuple[int, str], float]] = [
        {
            (step, tag): value
            for tag, curve in curves.items()
            if counts(tag)
            for step, value in curve
        }
        for curves in (was, now)
    ]
    keys = sorted(set(rows[0]) | set(rows[1]))
    wrong = [key for key in keys if rows[0].get(key) != rows[1].get(key)]
    if not wrong:
        return None
    step = wrong[0][0]
    equal = [key[0] for key in keys if key[0] < step]
    tags = [
        (tag, rows[0].get((at, tag)), rows[1].get((at, tag))) for at, tag in wrong if at == step
    ]
    return Difference(step, equal[-1] if equal else None, tags)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
