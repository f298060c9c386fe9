"""Checkpoints that are whole or not there: tensors and JSON, every file named with its SHA-256."""

import fnmatch
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from common.errors import ConfigError, Damaged, LogpiError, StorageFault, remedy
from common.tree import join, split
from storage import provenance
from storage.misfit import misfit
from storage.rundir import write_json
from storage.sealed import (
    FORMAT,
    MANIFEST,
    OTHER_FORMAT,
    TENSORS,
    VALUES,
    Damage,
    Record,
    open_manifest,
    own_folder,
    read_file,
    read_sealed,
    seal,
    seal_of,
    sync_directory,
    verify,
    write_synced,
)
from storage.segments import SEGMENTS, Rows, undamaged

if TYPE_CHECKING:
    from configs.schema import TrainConfig

Take = Callable[[dict[str, Any], list[Record], Callable[[list[Record]], Rows]], None]
MOST_NAMED = 2  # differences of a checkpoint of another run
NAME = "step-" + "[0-9]" * 12
LATER = "evaluation.json"  # in a checkpoint that was saved before its evaluation had ended
UNFINISHED = re.compile(r"tmp-\d+(-step-\d{12}|-\d{12}-\d{12}-[0-9a-f]{16}\.safetensors)?")


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
        raise StorageFault(
            f"checkpoint {target}: cannot be written, {error.strerror}; {remedy(error)}"
        ) from error
    try:
        prune(run_dir, step, keep, state.get("config"))
    except OSError as error:  # the save itself is good
        print(f"warning: old checkpoints stay, {error.strerror}", file=sys.stderr)
    return target


def read_back(target: Path, manifest: dict[str, Any]) -> None:
    """Raises StorageFault where what lies there is not what was meant to."""
    try:
        if open_manifest(target) != manifest:
            raise Damage(MANIFEST, "it reads back otherwise")
        for name, sealed in manifest["files"].items():
            verify(target, {**sealed, "name": name})
    except Damage as damage:
        raise StorageFault(f"checkpoint {target}: {damage}; replace the disk") from damage


def load(
    path: Path,
    whole: bool = True,
    config: "TrainConfig | None" = None,
    take: Take | None = None,
) -> tuple[dict[str, Any], Rows]:
    """(state, segments one by one) of a checkpoint, every file verified against the manifest.

    Args:
        path: of the checkpoint.
        whole: else without the rows of the replay up to a damaged segment.
        config: of the run that it has to be of; None: of any.
        take: is given the state, its segments and what reads them, and reads those that it needs:
            each is read once, and verified then. Without it all are verified here.

    Raises:
        Damaged: a file is missing, is a link, or differs from what was written; or it is a
            checkpoint of another run.
        StorageFault: a file cannot be read, for reasons that are not its own.
    """
    folder = path.parent.parent / SEGMENTS
    try:
        manifest = open_manifest(path)
        files = manifest["files"]
        values = read_sealed(path, VALUES, files[VALUES], json.loads)
        state = join(values, read_sealed(path, TENSORS, files[TENSORS], load_tensors))
        if config is not None:
            require_own(path, state, config)
        records = manifest["segments"]
        if not whole:
            records = undamaged(folder, records)
            state |= {"segments": records, "exact": False}
        read = partial(read_segments, folder)
        if take is not None:
            take(state, records, read)
            return state, iter(())
        for record in records:
            verify(folder, record)
    except Damage as damage:
        raise Damaged(f"checkpoint {path} is damaged {damage}; restore it") from damage
    except (
        *(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError),
        SafetensorError,
    ) as error:
        raise Damaged(
            f"checkpoint {path} is damaged ({type(error).__name__} {error}): {MANIFEST}; restore it"
        ) from error
    return state, read(records)


def read_segments(folder: Path, records: list[Record]) -> Rows:
    """The rows of a replay, file by file; raises Damage at one that differs."""
    return (read_sealed(folder, record["name"], record, load_tensors) for record in records)


def require_own(path: Path, state: dict[str, Any], config: "TrainConfig") -> None:
    """Raises Damaged where a checkpoint holds another configuration than its run has."""
    from configs.resume import differing

    try:
        found = differing(state["config"], config)
    except ConfigError as error:
        raise misfit(state, str(error).partition(";")[0]) from error
    if found:
        what = ", ".join(f"{key} was {was}, is {now}" for key, was, now in found[:MOST_NAMED])
        what += f", and {len(found) - MOST_NAMED} more" * (len(found) > MOST_NAMED)
        fault = Damaged(f"checkpoint {path} is of another run ({what}): {VALUES}; remove it")
        fault.differs = found
        raise fault


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
        raise StorageFault(
            f"{folder}: cannot be read, {error.strerror}; make it readable"
        ) from error
    return sorted(path.name for path in found if path.is_dir() and not path.is_symlink())


def load_newest(
    run_dir: Path,
    which: str = "latest",
    whole: bool = True,
    config: "TrainConfig | None" = None,
    take: Take | None = None,
    agreed: Callable[[LogpiError | None], LogpiError | None] = lambda fault: fault,
) -> tuple[int, dict[str, Any], Rows, list[str]]:
    """The newest checkpoint that is valid (or `best`, or a name), with a warning per other one.

    Where a segment that all of them need is damaged, the newest without the rows up to there. Where
    the run goes on meanwhile, and removes what is about to be read, the reading begins again.

    Args:
        run_dir, which: as said.
        whole, config, take: as for `load`.
        agreed: makes of this process's fault that of the first process with one.

    Returns:
        (step, state, segments, warnings).

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
    passed: list[str] = []
    damaged: list[str] = []
    others: list[Damaged] = []  # of other runs
    for name in reversed(candidates):
        fault: LogpiError | None = None
        try:
            state, segments = load(run_dir / "checkpoints" / name, whole, config, take)
        except StorageFault as error:
            fault = error
        if (first := agreed(fault)) is None:
            return int(name[5:]), state, segments, [f"{text}; using {name}" for text in passed]
        if not isinstance(first, Damaged):
            raise first
        passed.append(str(first).rsplit("; ", 1)[0])
        if isinstance(fault, Damaged) and fault.differs:
            others.append(fault)
        else:
            damaged.append(passed[-1])
    if damaged and names(run_dir) != sorted(candidates) and which in ("latest", "best"):
        return load_newest(run_dir, which, whole, config, take, agreed)
    if whole and damaged:
        with suppress(Damaged):
            step, state, segments, _ = load_newest(run_dir, which, False, config, take, agreed)
            used = f"using step-{step:012d}"
            if state["segments"]:
                used += f" without the transitions before {state['segments'][0]['start']}"
            told = [text for text in passed if text not in damaged[1:]]
            return step, state, segments, [f"{text}; {used}" for text in told]
    if not candidates:
        raise StorageFault(f"{run_dir} has no checkpoint yet; begin it again, with resume=auto")
    if damaged or not others:
        found = damaged[0] if damaged else f"{run_dir} has no checkpoint {which}"
        help = "no valid checkpoint is left, restore one from a backup"
        if OTHER_FORMAT in found:
            help = provenance.other_revision(provenance.made_by(run_dir)) or help
        raise Damaged(f"{found}; {help}")
    none = Damaged(f"{passed[0]}; none of this run is left, restore config.yaml or a checkpoint")
    none.differs = others[0].differs
    raise none


def rate(run_dir: Path, step: int, return_mean: float) -> None:
    """Leaves in a checkpoint, saved when a signal cut its evaluation short, what came of it later.

    Raises:
        StorageFault: it could not be written; free the disk.
    """
    said = {"step": step, "return_mean": return_mean}
    path = run_dir / "checkpoints" / f"step-{step:012d}" / LATER
    write_json(path, {**said, "sha256": seal_of(said)})


def best_key(path: Path) -> float:
    """The evaluation recorded in a checkpoint; -inf where there is none or it cannot be read."""
    try:
        score = values_of(path)["return_mean"]
        if score is None:
            later = json.loads(read_file(path, LATER))
            said = {"step": int(path.name[5:]), "return_mean": later["return_mean"]}
            score = said["return_mean"] if later["sha256"] == seal_of(said) else None
        return float("-inf") if score is None else float(score)
    except (StorageFault, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return float("-inf")


def values_of(path: Path) -> dict[str, Any]:
    """The numbers and texts of a checkpoint, not verified; raises ValueError."""
    return dict(json.loads(read_file(path, VALUES)))


def is_own(path: Path, config: dict[str, Any]) -> bool:
    """Whether a checkpoint is of the run with this configuration, as far as it can be read."""
    from configs.resume import differing
    from configs.schema import TrainConfig
    from configs.validate import build

    try:
        recorded = join(values_of(path)["config"], {})
        return not differing(recorded, build(TrainConfig, config, recorded=True))
    except (LogpiError, ValueError, KeyError, TypeError, RecursionError):
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
        if UNFINISHED.fullmatch(path.name) is None:
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def bury(path: Path) -> None:
    """Removes a checkpoint: first out of sight, so that no half of it is ever there."""
    dying = path.parent.parent / f"tmp-{os.getpid()}-{path.name}"
    path.rename(dying)
    shutil.rmtree(dying) if dying.is_dir() and not dying.is_symlink() else dying.unlink()
