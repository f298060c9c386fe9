"""Checkpoints that are whole or not there: tensors and JSON, each file recorded by its SHA-256."""

import fnmatch
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from common.errors import ConfigError, Damaged, LogpiError, StorageFault, remedy
from common.tree import join, split
from storage import provenance
from storage.files import (
    Damage,
    Record,
    own_folder,
    read_file,
    read_sealed,
    seal,
    sync_directory,
    verify,
    write_synced,
)
from storage.rundir import write_json
from storage.segments import SEGMENTS, Rows, read_segments, undamaged

if TYPE_CHECKING:
    from configs.schema import TrainConfig

Take = Callable[[dict[str, Any], list[Record], Callable[[list[Record]], Rows]], None]
FORMAT = 2
TENSORS, VALUES, MANIFEST = "state.safetensors", "state.json", "manifest.json"
LATER = "evaluation.json"  # in a checkpoint that was saved before its evaluation had ended
NAME = "step-" + "[0-9]" * 12
UNFINISHED = re.compile(r"tmp-\d+(-step-\d{12}|-\d{12}-\d{12}-[0-9a-f]{16}\.safetensors)?")
MOST_NAMED = 2  # differences of a checkpoint of another run
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
UNFIT = (RuntimeError, SafetensorError, *UNREADABLE)


def save(
    run_dir: Path, step: int, state: dict[str, Any], keep: int, segments: list[Record] | None = None
) -> Path:
    """Writes `checkpoints/step-<12 digits>`, reads it back, then removes what is no longer kept.

    Written beside `checkpoints/`, synced and renamed, so that a kill at any instant leaves the old
    ones or the new one, never half a one. A step is written once; one that is there but damaged is
    replaced.

    Args:
        run_dir, step: where it goes.
        state: nested dicts and lists of numbers and tensors.
        keep: how many of the newest remain, beside the best.
        segments: files of `write_segment` that belong to it.

    Raises:
        StorageFault: it could not be written, or does not read back; free the disk.
    """
    target = run_dir / "checkpoints" / f"step-{step:012d}"
    temporary = run_dir / f"tmp-{os.getpid()}"
    values, tensors = split(state)
    files = {TENSORS: save_tensors(tensors), VALUES: json.dumps(values, allow_nan=False).encode()}
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "step": step,
        "files": {name: seal(content) for name, content in files.items()},
        "segments": segments or [],
    }
    manifest["sha256"] = seal_of(manifest)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        own_folder(target.parent)
        for name, content in {**files, MANIFEST: json.dumps(manifest).encode()}.items():
            write_synced(temporary / name, content)
        sync_directory(temporary)
        if target.exists():
            bury(target)
        temporary.rename(target)
        sync_directory(target.parent)
        read_back(target, manifest)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        why = f"cannot be written, {error.strerror}"
        raise StorageFault(f"checkpoint {target}: {why}; {remedy(error)}") from error
    try:
        prune(run_dir, step, keep, state.get("config"))
    except OSError as error:  # the save itself is good
        print(f"warning: old checkpoints stay, {error.strerror}", file=sys.stderr)
    return target


def read_back(target: Path, manifest: dict[str, Any]) -> None:
    """Raises StorageFault where the checkpoint on the disk is not what was to be written."""
    try:
        if open_manifest(target) != manifest:
            raise Damage(MANIFEST, "it reads back otherwise")
        for name, sealed in manifest["files"].items():
            verify(target, {**sealed, "name": name})
    except Damage as damage:
        raise StorageFault(f"checkpoint {target}: {damage}; replace the disk") from damage


def seal_of(manifest: dict[str, Any]) -> str:
    """The hash of the content of a manifest, however it is spelled."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def open_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint; raises Damage where it is not one, or another's."""
    try:
        manifest = json.loads(read_file(path, MANIFEST))
        if (other := manifest["format"]) != FORMAT:
            raise Damage(MANIFEST, f"its format is {other}, and {FORMAT} is read here", True)
        if path.name != f"step-{manifest['step']:012d}":
            raise Damage(MANIFEST, f"it is that of step {manifest['step']}")
        if manifest["sha256"] != seal_of(manifest):
            raise Damage(MANIFEST, "sha256 does not match")
        if sorted(manifest["files"]) != sorted((TENSORS, VALUES)):
            raise ValueError("names other files")
        for record in manifest["segments"]:
            if Path(record["name"]).name != record["name"]:
                raise ValueError("names a file elsewhere")
    except Damage:
        raise
    except UNREADABLE as error:
        raise Damage(MANIFEST, f"{type(error).__name__} {error}") from error
    return dict(manifest)


def load(
    path: Path,
    whole: bool = True,
    config: "TrainConfig | None" = None,
    take: Take | None = None,
) -> dict[str, Any]:
    """The state of a checkpoint, every file of which is verified against the manifest.

    Args:
        path: of the checkpoint.
        whole: else without the rows of the replay up to a damaged segment.
        config: of the run that it has to be of; None: of any.
        take: is called with the state, its segments and what reads them, and reads those that it
            needs: each is read once, and verified then. Without it all are verified here.

    Raises:
        Damaged: a file is missing, is a link, or differs from what was written; or it is a
            checkpoint of another run.
        StorageFault: a file cannot be read, for reasons that are not its own.
    """
    folder = path.parent.parent / SEGMENTS
    try:
        manifest = open_manifest(path)
        files, records = manifest["files"], manifest["segments"]
        values = read_sealed(path, VALUES, files[VALUES], json.loads)
        state = join(values, read_sealed(path, TENSORS, files[TENSORS], load_tensors))
        if config is not None:
            require_own(path, state, config)
        if not whole:
            records = undamaged(folder, records)
            state |= {"segments": records, "exact": False}
        if take is not None:
            take(state, records, partial(read_segments, folder))
        else:
            for record in records:
                verify(folder, record)
    except (SafetensorError, *UNREADABLE) as error:
        if not isinstance(damage := error, Damage):
            damage = Damage(MANIFEST, f"{type(error).__name__} {error}")
        message = f"checkpoint {path} is damaged {damage}; restore it"
        raise Damaged(message, other_format=damage.other_format) from error
    return state


def require_own(path: Path, state: dict[str, Any], config: "TrainConfig") -> None:
    """Raises Damaged where a checkpoint holds another configuration than its run has."""
    from configs.resume import differing

    try:
        found = differing(state["config"], config)
    except ConfigError as error:
        raise misfit(state, error.problem) from error
    if found:
        what = ", ".join(f"{key} was {was}, is {now}" for key, was, now in found[:MOST_NAMED])
        what += f", and {len(found) - MOST_NAMED} more" * (len(found) > MOST_NAMED)
        raise Damaged(f"checkpoint {path} is of another run ({what}): {VALUES}; remove it", found)


@contextmanager
def taking_up(state: dict[str, Any]) -> Iterator[None]:
    """A state is loaded into the parts of a run inside: StorageFault where it does not fit.

    Damage, which is found while rows are read, is passed on.
    """
    try:
        yield
    except Damage:
        raise
    except (*UNFIT, MemoryError) as error:
        if isinstance(error, MemoryError) or "allocate" in str(error):  # torch has no kind for it
            memory = "there is not the memory to take it up; free some, or use a larger machine"
            raise StorageFault(f"checkpoint: {memory}") from error
        raise misfit(state, reason(error)) from error


def misfit(state: dict[str, Any], why: str) -> StorageFault:
    """A checkpoint that does not fit: of another revision, or not of this configuration."""
    made = state.get("setting")
    other = provenance.other_revision(made.get("revision") if isinstance(made, dict) else None)
    if other:
        return StorageFault(f"checkpoint: does not fit this code, {why}: {other}")
    return StorageFault(f"checkpoint: does not fit config.yaml, {why}; restore it from a backup")


def reason(error: BaseException) -> str:
    """The line of an exception that names what does not fit."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Error(s) in loading"):  # torch's, of a module
        return lines[1].rstrip(".")
    return lines[0] if lines else type(error).__name__


def names(run_dir: Path) -> list[str]:
    """The checkpoints of a run, oldest first."""
    folder = run_dir / "checkpoints"
    if folder.is_symlink():
        raise StorageFault(f"{folder}: is a link, which a run directory does not have; restore it")
    try:
        found = [folder / name for name in fnmatch.filter(os.listdir(folder), NAME)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        message = f"{folder}: cannot be read, {error.strerror}; make it readable"
        raise StorageFault(message) from error
    return sorted(path.name for path in found if path.is_dir() and not path.is_symlink())


def load_newest(
    run_dir: Path,
    which: str = "latest",
    whole: bool = True,
    config: "TrainConfig | None" = None,
    take: Take | None = None,
    agreed: Callable[[LogpiError | None], LogpiError | None] = lambda fault: fault,
) -> tuple[int, dict[str, Any], list[str]]:
    """The newest checkpoint that is valid, with a warning for each that was passed over.

    Where a segment that all of them need is damaged, the newest without the rows up to there. Where
    the run goes on meanwhile, and removes what is about to be read, the reading begins again.

    Args:
        run_dir: of the run.
        which: `latest`, `best`, or the name of one.
        whole, config, take: as for `load`.
        agreed: this process's fault -> that of the first process with one.

    Returns:
        (step, state, warnings).

    Raises:
        Damaged: none is valid.
        StorageFault: one cannot be read, for reasons that are not its own.
    """
    candidates = names(run_dir)
    if which not in ("latest", "best"):
        if which not in candidates:
            raise ConfigError(f"checkpoint: {which} is not in {run_dir}; use latest or best")
        candidates = [which]
    elif which == "best":
        candidates.sort(key=lambda name: (best_key(run_dir / "checkpoints" / name), name))
    passed: list[Damaged] = []
    for name in reversed(candidates):
        fault: LogpiError | None = None
        try:
            state = load(run_dir / "checkpoints" / name, whole, config, take)
        except StorageFault as error:
            fault = error
        if (first := agreed(fault)) is None:
            return int(name[5:]), state, [f"{fault.problem}; using {name}" for fault in passed]
        if not isinstance(first, Damaged):
            raise first
        passed.append(fault if isinstance(fault, Damaged) else first)
    damaged = [fault for fault in passed if not fault.differs]
    if damaged and names(run_dir) != sorted(candidates) and which in ("latest", "best"):
        return load_newest(run_dir, which, whole, config, take, agreed)
    if damaged and whole:
        with suppress(Damaged):
            step, state, _ = load_newest(run_dir, which, False, config, take, agreed)
            used = f"using step-{step:012d}"
            if state["segments"]:
                used += f" without the transitions before {state['segments'][0]['start']}"
            shown = [fault for fault in passed if fault not in damaged[1:]]
            return step, state, [f"{fault.problem}; {used}" for fault in shown]
    if not candidates:
        raise StorageFault(f"{run_dir} has no checkpoint yet; begin it again, with resume=auto")
    if damaged:
        help = "no valid checkpoint is left, restore one from a backup"
        if damaged[0].other_format:
            help = provenance.other_revision(provenance.made_by(run_dir)) or help
        raise Damaged(f"{damaged[0].problem}; {help}")
    help = "none of this run is left, restore config.yaml or a checkpoint"
    raise Damaged(f"{passed[0].problem}; {help}", passed[0].differs)


def rate(run_dir: Path, step: int, return_mean: float) -> None:
    """Adds to a checkpoint, saved when a signal cut its evaluation short, what came of it later.

    Raises:
        StorageFault: it could not be written; free the disk.
    """
    score = {"step": step, "return_mean": return_mean}
    path = run_dir / "checkpoints" / f"step-{step:012d}" / LATER
    write_json(path, {**score, "sha256": seal_of(score)})


def best_key(path: Path) -> float:
    """The evaluation recorded in a checkpoint; -inf where there is none or it cannot be read."""
    try:
        score = json.loads(read_file(path, VALUES))["return_mean"]
        if score is None:
            later = json.loads(read_file(path, LATER))
            own = {"step": int(path.name[5:]), "return_mean": later["return_mean"]}
            score = own["return_mean"] if later["sha256"] == seal_of(own) else None
        return float("-inf") if score is None else float(score)
    except (StorageFault, *UNREADABLE):
        return float("-inf")


def is_own(path: Path, config: dict[str, Any]) -> bool:
    """Whether a checkpoint is of the run with this configuration, as far as it can be read."""
    from configs.resume import differing
    from configs.schema import TrainConfig
    from configs.validate import build

    try:
        recorded = join(json.loads(read_file(path, VALUES))["config"], {})
        return not differing(recorded, build(TrainConfig, config, recorded=True))
    except (LogpiError, *UNREADABLE):
        return True


def prune(run_dir: Path, step: int, keep: int, config: dict[str, Any] | None = None) -> None:
    """Removes all checkpoints up to `step` but the newest `keep` and the best, then old segments.

    Later ones are damaged, or the run would have gone on from there: they count for nothing, and
    stay until the run gets there. So do those that are of another configuration.
    """
    paths = [run_dir / "checkpoints" / name for name in names(run_dir) if int(name[5:]) <= step]
    if config is not None:
        paths = [path for path in paths if is_own(path, config)]
    best = max(paths, key=lambda path: (best_key(path), path.name))
    for path in paths[:-keep]:
        if path != best:
            bury(path)
    drop_unused(run_dir)


def drop_unused(run_dir: Path) -> None:
    """Removes the segments that no checkpoint names."""
    if (run_dir / SEGMENTS).is_symlink():
        return
    left = [run_dir / "checkpoints" / name for name in names(run_dir)]
    try:
        used = {record["name"] for path in left for record in open_manifest(path)["segments"]}
    except Damage:
        return  # what it would still need is not known
    for segment in (run_dir / SEGMENTS).glob("[0-9]*-[0-9]*-*.safetensors"):
        if segment.name not in used:
            segment.unlink(missing_ok=True)


def sweep(run_dir: Path) -> None:
    """Removes what a killed process left half written; whoever calls it holds the directory."""
    for path in run_dir.glob("tmp-[0-9]*"):
        if UNFINISHED.fullmatch(path.name):
            remove(path)


def bury(path: Path) -> None:
    """Removes a checkpoint: first out of sight, so that no half of it is ever there."""
    dying = path.parent.parent / f"tmp-{os.getpid()}-{path.name}"
    path.rename(dying)
    remove(dying)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
