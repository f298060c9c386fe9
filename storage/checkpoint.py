"""Atomic checkpoints of tensors and JSON, every file recorded by its SHA-256."""

import fnmatch
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from common.errors import ConfigError, Damaged, LogpiError, StorageFault, warn
from common.tree import join, split
from configs.resume import differing
from configs.schema import TrainConfig
from configs.validate import build
from storage import files, provenance
from storage.files import Record
from storage.rundir import beginning, write_json
from storage.segments import SEGMENTS, undamaged

Take = Callable[[dict[str, Any], list[Record]], None]
FORMAT = 2
TENSORS, VALUES, MANIFEST = "state.safetensors", "state.json", "manifest.json"
LATER = "evaluation.json"  # of a checkpoint that was saved before its evaluation ended
NAME = "step-" + "[0-9]" * 12
UNFINISHED = re.compile(r"tmp-\d+(-step-\d{12}|-\d{12}-\d{12}-[0-9a-f]{16}\.safetensors)?")
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


def save(
    run_dir: Path, step: int, state: dict[str, Any], keep: int, segments: list[Record] | None = None
) -> Path:
    """Writes `checkpoints/step-<12 digits>`, reads it back, then removes what is no longer kept.

    It is written beside `checkpoints/`, synced and renamed, so a kill at any instant leaves no
    partial checkpoint. A damaged one of the same step is replaced. The newest `keep` and the best
    are kept. `segments` are the records of the rows of a replay.

    Raises StorageFault if it cannot be written, or is not read back as written.
    """
    target = run_dir / "checkpoints" / f"step-{step:012d}"
    temporary = run_dir / f"tmp-{os.getpid()}"
    values, tensors = split(state)
    written = {TENSORS: save_tensors(tensors), VALUES: json.dumps(values, allow_nan=False).encode()}
    sealed = {name: files.seal(content) for name, content in written.items()}
    manifest = {"format": FORMAT, "step": step, "files": sealed, "segments": segments or []}
    written[MANIFEST] = json.dumps({**manifest, "sha256": seal_of(manifest)}).encode()
    with files.writing(f"checkpoint {target}", temporary):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        files.own_folder(target.parent)
        for name, content in written.items():
            files.write_synced(temporary / name, content)
        files.sync_directory(temporary)
        if target.exists():
            discard(target)
        temporary.rename(target)
        files.sync_directory(target.parent)
    try:
        for name, content in written.items():
            files.verify(target / name, files.seal(content))
        prune(run_dir, step, keep, state.get("config"))
    except Damaged as damage:
        raise StorageFault(f"checkpoint {target}: {damage}; replace the disk") from damage
    except OSError as error:  # the save itself is good
        warn(f"old checkpoints cannot be removed, {error.strerror}")
    return target


def seal_of(manifest: dict[str, Any]) -> str:
    """The hash of the content of a manifest, independent of its formatting."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def open_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint; raises Damaged if it is invalid, or of another checkpoint."""
    file = path / MANIFEST
    manifest = files.read_json(file)
    try:
        if (other := manifest["format"]) != FORMAT:
            raise files.damaged(file, f"its format is {other}, and {FORMAT} is read here", True)
        if path.name != f"step-{manifest['step']:012d}":
            raise files.damaged(file, f"it is that of step {manifest['step']}")
        if manifest["sha256"] != seal_of(manifest):
            raise files.damaged(file, "sha256 does not match")
        if any(Path(record["name"]).name != record["name"] for record in manifest["segments"]):
            raise files.damaged(file, "it refers to a file outside")
    except UNREADABLE as error:
        raise files.damaged(file, f"{type(error).__name__} {error}") from error
    return manifest


def load(
    path: Path, config: TrainConfig | None = None, take: Take | None = None, whole: bool = True
) -> dict[str, Any]:
    """The state of a checkpoint, every file of which is verified against the manifest.

    Args:
        config: that of its run, which is checked; None: any.
        take: function of the state and the records of its segments, which reads and verifies each
            segment; without it they are verified here.
        whole: if false, rows of the replay up to a damaged segment are left out.

    Raises:
        Damaged: a file is not as it was written, or of another run.
        StorageFault: a file cannot be read, for lack of memory, handles or permissions.
    """
    folder = path.parent.parent / SEGMENTS
    try:
        manifest = open_manifest(path)
        sealed, records = manifest["files"], manifest["segments"]
        values = files.read_sealed(path / VALUES, sealed[VALUES], json.loads)
        tensors = files.read_sealed(path / TENSORS, sealed[TENSORS], load_tensors)
        state: dict[str, Any] = join(values, tensors)
        if config is not None:
            require_own(path, state, config)
        if not whole:
            records = undamaged(folder, records)
            state |= {"segments": records, "exact": False}
        if take is not None:
            take(state, records)
        else:
            for record in records:
                files.verify(folder / record["name"], record)
    except (Damaged, SafetensorError, *UNREADABLE) as error:
        if not isinstance(error, Damaged):
            error = files.damaged(path / MANIFEST, f"{type(error).__name__} {error}")
        elif error.differs:
            raise
        message = f"checkpoint {path} is damaged {error}; restore it"
        raise Damaged(message, other_format=error.other_format) from error
    return state


def require_own(path: Path, state: dict[str, Any], config: TrainConfig) -> None:
    """Raises Damaged if a checkpoint contains another configuration than its run."""
    try:
        found = differing(state["config"], config)
    except ConfigError as error:
        raise misfit(state, error.problem) from error
    if found:
        what = ", ".join(f"{key} was {was}, is {now}" for key, was, now in found)
        raise Damaged(f"checkpoint {path} is of another run ({what}): {VALUES}; remove it", found)


@contextmanager
def taking_up(state: dict[str, Any]) -> Iterator[None]:
    """Context in which a state is loaded into a run; StorageFault if it does not fit."""
    try:
        yield
    except (MemoryError, RuntimeError, SafetensorError, *UNREADABLE) as error:
        if isinstance(error, MemoryError) or "allocate" in str(error):  # torch has no type for it
            memory = "there is not enough memory to load it; free some, or use a larger machine"
            raise StorageFault(f"checkpoint: {memory}") from error
        last = f"{type(error).__name__} {error}".strip().splitlines()[-1]  # the reason
        raise misfit(state, last.strip("\t.")) from error


def misfit(state: dict[str, Any], why: str) -> StorageFault:
    """The error for a checkpoint of another revision or configuration, which does not fit."""
    made = state.get("setting")
    revision = made.get("revision") if isinstance(made, dict) else None
    help = provenance.other_revision(revision) or "restore it or config.yaml from a backup"
    return StorageFault(f"checkpoint: does not fit, {why}; {help}")


def names(run_dir: Path) -> list[str]:
    """The checkpoints of a run, oldest first."""
    folder = run_dir / "checkpoints"
    if folder.is_symlink():
        raise StorageFault(f"{folder}: is a link, which a run directory does not have; restore it")
    try:
        found = fnmatch.filter(os.listdir(folder), NAME)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        why = f"cannot be read, {error.strerror}"
        raise StorageFault(f"{folder}: {why}; make it readable") from error
    paths = [folder / name for name in sorted(found)]
    return [path.name for path in paths if path.is_dir() and not path.is_symlink()]


def load_newest(
    run_dir: Path,
    which: str = "latest",
    config: TrainConfig | None = None,
    take: Take | None = None,
    agreed: Callable[[LogpiError | None], LogpiError | None] = lambda fault: fault,
) -> tuple[int, dict[str, Any], list[str]]:
    """(step, state) of the newest valid checkpoint, and a warning for each that was skipped.

    If a segment that all of them need is damaged, it is the newest without the rows up to there. If
    the run continues meanwhile and removes files, reading starts again.

    Args:
        which: `latest`, `best`, or the name of one.
        config, take: as for `load`, whose errors are raised; Damaged if none is valid.
        agreed: maps the error of this process to that of the first process with one.
    """
    found = candidates = names(run_dir)
    if which == "best":
        candidates = sorted(found, key=lambda name: best_key(run_dir / "checkpoints" / name))
    elif which != "latest":
        if which not in found:
            raise ConfigError(f"checkpoint: {which} is not in {run_dir}; use latest or best")
        candidates = [which]
    passed: list[Damaged] = []
    for whole in (True, False):
        for name in reversed(candidates):
            fault: LogpiError | None = None
            try:
                state = load(run_dir / "checkpoints" / name, config, take, whole)
            except StorageFault as error:
                fault = error
            if (first := agreed(fault)) is None:
                used = f"using {name}"
                if not whole and state["segments"]:
                    used += f" without the transitions before {state['segments'][0]['start']}"
                return int(name[5:]), state, [f"{fault.problem}; {used}" for fault in passed]
            if not isinstance(first, Damaged):
                raise first
            if whole:
                passed.append(fault if isinstance(fault, Damaged) else first)
        broken = [fault for fault in passed if not fault.differs]
        if not broken:
            break
        if names(run_dir) != found:
            return load_newest(run_dir, which, config, take, agreed)
        passed = [fault for fault in passed if fault not in broken[1:]]  # all lack the same rows
    if not candidates:
        raise StorageFault(f"{run_dir} has no checkpoint yet; {beginning(run_dir)}")
    worst, help = passed[0], "this run has none left, restore config.yaml or a checkpoint"
    if broken:
        worst, help = broken[0], "no valid checkpoint is left, restore one from a backup"
    if worst.other_format:
        help = provenance.other_revision(provenance.made_by(run_dir)) or help
    raise Damaged(f"{worst.problem}; {help}", worst.differs)


def rate(run_dir: Path, step: int, return_mean: float) -> None:
    """Adds the evaluation to a checkpoint that was saved when a signal interrupted it."""
    score = {"step": step, "return_mean": return_mean}
    path = run_dir / "checkpoints" / f"step-{step:012d}" / LATER
    write_json(path, {**score, "sha256": seal_of(score)})


def best_key(path: Path) -> float:
    """The mean return recorded in a checkpoint; -inf if there is none or it cannot be read."""
    try:
        score = files.read_json(path / VALUES)["return_mean"]
        if score is None:
            later = files.read_json(path / LATER)
            if (later["step"], later["sha256"]) == (int(path.name[5:]), seal_of(later)):
                score = later["return_mean"]
        return float(score)
    except (StorageFault, *UNREADABLE):
        return float("-inf")


def is_own(path: Path, config: dict[str, Any] | None) -> bool:
    """Whether a checkpoint is of the run with this configuration; true if it cannot be read."""
    try:
        recorded = join(files.read_json(path / VALUES)["config"], {})
        if config is None or recorded == config:
            return True
        return not differing(recorded, build(TrainConfig, config, recorded=True))
    except (LogpiError, *UNREADABLE):
        return True


def prune(run_dir: Path, step: int, keep: int, config: dict[str, Any] | None) -> None:
    """Removes all checkpoints up to `step` but the newest `keep` and the best, then old segments.

    Later ones, which are damaged since the run was not resumed from them, are kept until the run
    reaches their step. Those of another configuration are kept.
    """
    paths = [run_dir / "checkpoints" / name for name in names(run_dir) if int(name[5:]) <= step]
    if len(paths) > keep:
        paths = [path for path in paths if is_own(path, config)]
        best = max(paths, key=lambda path: (best_key(path), path.name))
        for path in paths[:-keep]:
            if path != best:
                discard(path)
    drop_unused(run_dir)


def drop_unused(run_dir: Path) -> None:
    """Removes the segments that no checkpoint names."""
    folder = run_dir / SEGMENTS
    manifests = (open_manifest(run_dir / "checkpoints" / name) for name in names(run_dir))
    try:
        used = {record["name"] for manifest in manifests for record in manifest["segments"]}
    except Damaged:
        return  # the segments that it needs are not known
    for segment in folder.glob("[0-9]*-[0-9]*-*.safetensors"):
        if segment.name not in used and not folder.is_symlink():
            segment.unlink(missing_ok=True)


def sweep(run_dir: Path) -> None:
    """Removes partly written files of killed processes; the caller holds the lock."""
    for path in run_dir.glob("tmp-[0-9]*"):
        if UNFINISHED.fullmatch(path.name):
            files.remove(path)


def discard(path: Path) -> None:
    """Removes a checkpoint; renamed first, it is never found partly removed."""
    temporary = path.parent.parent / f"tmp-{os.getpid()}-{path.name}"
    path.rename(temporary)
    files.remove(temporary)
