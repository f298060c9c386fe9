"""Checkpoints that are whole or not there: tensors and JSON, every file named with its SHA-256."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from runtime.errors import ConfigError, StorageFault, remedy
from runtime.rundir import write_json
from runtime.sealed import (
    FORMAT,
    MANIFEST,
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
from runtime.segments import SEGMENTS, undamaged
from runtime.tree import join, split

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
            f"checkpoint {target}: cannot be written, {error.strerror}; {remedy(error)} or "
            "choose another run_dir"
        ) from error
    try:
        prune(run_dir, step, keep)
    except OSError as error:  # the save itself is good
        print(f"warning: old checkpoints stay, {error.strerror}", file=sys.stderr)
    return target


def read_back(target: Path, manifest: dict[str, Any]) -> None:
    """Raises StorageFault where what lies there is not what was meant to."""
    try:
        if open_manifest(target) != manifest:
            raise Damage(MANIFEST, "it reads back otherwise")
        for name in manifest["files"]:
            read_sealed(target, name, manifest["files"][name])
    except Damage as damage:
        raise StorageFault(f"checkpoint {target}: {damage}; replace the disk") from damage


def load(path: Path, whole: bool = True) -> tuple[dict[str, Any], Iterator[dict[str, Tensor]]]:
    """(state, segments one by one) of a checkpoint, every file verified against the manifest.

    Args:
        path: of the checkpoint.
        whole: else without the rows of the replay up to a damaged segment.

    Raises:
        StorageFault: a file is missing, is a link, or differs from what was written.
    """
    try:
        manifest = open_manifest(path)
        contents = {n: read_sealed(path, n, manifest["files"][n]) for n in (TENSORS, VALUES)}
        state = join(json.loads(contents[VALUES]), load_tensors(contents[TENSORS]))
        folder = path.parent.parent / SEGMENTS
        records = manifest["segments"]
        if not whole:
            records = undamaged(folder, records)
            state |= {"segments": records, "exact": False}
        for record in records:
            verify(folder, record)
    except Damage as damage:
        raise StorageFault(f"checkpoint {path} is damaged {damage}; restore it") from damage
    except (
        *(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError),
        SafetensorError,
    ) as error:
        raise StorageFault(
            f"checkpoint {path} is damaged ({type(error).__name__} {error}): {MANIFEST}; restore it"
        ) from error
    return state, (load_tensors(read_sealed(folder, r["name"], r)) for r in records)


def names(run_dir: Path) -> list[str]:
    """The checkpoints of a run, oldest first."""
    folder = run_dir / "checkpoints"
    if folder.is_symlink():
        raise StorageFault(f"{folder}: is a link, which a run directory does not have; restore it")
    return sorted(path.name for path in folder.glob(NAME)
                  if path.is_dir() and not path.is_symlink())  # fmt: skip


def load_newest(
    run_dir: Path, which: str = "latest", whole: bool = True
) -> tuple[int, dict[str, Any], Iterator[dict[str, Tensor]], list[str]]:
    """The newest checkpoint that is valid (or `best`, or a name), with a warning per damaged one.

    Where a segment that all of them need is damaged, the newest without the rows up to there. Where
    the run goes on meanwhile, and removes what is about to be read, the reading begins again.

    Returns:
        (step, state, segments, warnings).

    Raises:
        StorageFault: none is valid.
    """
    candidates = names(run_dir)
    if which not in ("latest", "best"):
        if which not in candidates:
            raise ConfigError(f"checkpoint: {which} is not in {run_dir}; use latest or best")
        candidates = [which]
    elif which == "best":
        candidates.sort(key=lambda name: (best_key(run_dir / "checkpoints" / name), name))
    damaged: list[str] = []
    for name in reversed(candidates):
        try:
            state, segments = load(run_dir / "checkpoints" / name, whole)
        except StorageFault as fault:
            damaged.append(str(fault).rsplit("; ", 1)[0])
            continue
        return int(name[5:]), state, segments, [f"{text}; using {name}" for text in damaged]
    if damaged and names(run_dir) != sorted(candidates) and which in ("latest", "best"):
        return load_newest(run_dir, which, whole)
    if whole and damaged:
        with suppress(StorageFault):
            step, state, segments, _ = load_newest(run_dir, which, whole=False)
            used = f"using step-{step:012d}"
            if state["segments"]:
                used += f" without the transitions before {state['segments'][0]['start']}"
            return step, state, segments, [f"{damaged[0]}; {used}"]
    if not candidates:
        raise StorageFault(f"{run_dir} has no checkpoint yet; begin it again, with resume=auto")
    found = damaged[0] if damaged else f"{run_dir} has no checkpoint {which}"
    raise StorageFault(f"{found}; no valid checkpoint is left, restore one from a backup")


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
        score = json.loads(read_file(path, VALUES))["return_mean"]
        if score is None:
            later = json.loads(read_file(path, LATER))
            said = {"step": int(path.name[5:]), "return_mean": later["return_mean"]}
            score = said["return_mean"] if later["sha256"] == seal_of(said) else None
        return float("-inf") if score is None else float(score)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return float("-inf")


def prune(run_dir: Path, step: int, keep: int) -> None:
    """Removes all checkpoints up to `step` but the newest `keep` and the best, then old segments.

    Later ones are damaged, or the run would have gone on from there: they count for nothing, and
    stay until the run gets there.
    """
    paths = [run_dir / "checkpoints" / name for name in names(run_dir) if int(name[5:]) <= step]
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
