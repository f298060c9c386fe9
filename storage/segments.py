"""The rows of a replay on the disk: each is written once, for all checkpoints that need it."""

import os
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from common.errors import StorageFault, remedy
from data import Replay
from storage.files import (
    Damage,
    Record,
    own_folder,
    read_sealed,
    seal,
    sync_directory,
    verify,
    write_synced,
)

SEGMENTS = "replay"  # the folder beside `checkpoints` whose files several checkpoints share
ROWS = 1 << 16  # in one file
PIECE = 1 << 24  # bytes of rows in one file, which are three times in memory while it is written
Rows = Iterator[dict[str, Tensor]]


def write_segments(
    run_dir: Path, replay: Replay | None, known: list[Record], rank: int = 0
) -> list[Record]:
    """Writes the rows that no file has yet; returns the records of the files that hold all rows.

    Args:
        run_dir: where the files go.
        replay: whose rows; None or empty: there are none.
        known: records of the files that hold the earlier rows.
        rank: whose replay it is.

    Raises:
        StorageFault: they cannot be written; free the disk.
    """
    if replay is None or not replay.count:
        return []
    segments = [record for record in known if record["stop"] > replay.first_row()]
    start = max([replay.first_row(), *(record["stop"] for record in segments)])
    for first, stop in pieces(replay, start, ROWS):
        record = write_segment(run_dir, first, stop, replay.rows(first, stop))
        segments.append({**record, "rank": rank})
    return segments


def pieces(replay: Replay, start: int, most: int) -> Iterator[tuple[int, int]]:
    """(first, stop) of the rows from `start` on, in whole steps.

    Of at most `most` rows, and of at most `PIECE` bytes, where a step is not larger.
    """
    if start >= replay.added:
        return
    count = replay.count
    one = replay.rows(start, min(start + count, replay.added))
    size = sum(tensor.nbytes for name, tensor in one.items() if not name.startswith("end"))
    rows = max(1, min(most // count, PIECE // max(size, 1))) * count
    for first in range(start, replay.added, rows):
        yield first, min(first + rows, replay.added)


def write_segment(run_dir: Path, start: int, stop: int, tensors: dict[str, Tensor]) -> Record:
    """Writes rows start..stop of a replay once, for all checkpoints to come; returns its record.

    Raises:
        StorageFault: it could not be written; free the disk.
    """
    content = save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()})
    sealed = seal(content)
    name = f"{start:012d}-{stop:012d}-{sealed['sha256'][:16]}.safetensors"
    folder = run_dir / SEGMENTS
    temporary = run_dir / f"tmp-{os.getpid()}-{name}"
    try:
        own_folder(folder)
        write_synced(temporary, content)
        temporary.replace(folder / name)  # which may be there, from before a kill
        sync_directory(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageFault(
            f"replay {folder}: cannot be written, {error.strerror}; {remedy(error)}"
        ) from error
    return {"name": name, "start": start, "stop": stop, **sealed}


def read_segments(folder: Path, records: list[Record]) -> Rows:
    """The rows of a replay, file by file; raises Damage at one that differs."""
    return (read_sealed(folder, record["name"], record, load_tensors) for record in records)


def undamaged(folder: Path, records: list[Record]) -> list[Record]:
    """Of each rank the records after its last damaged one: a ring cannot have a gap.

    Raises:
        Damage: of a rank none is left.
    """
    kept: dict[int, list[Record]] = {}
    for record in records:
        rank = record.get("rank", 0)
        try:
            verify(folder, record)
        except Damage as damage:
            kept[rank], last = [], damage
        else:
            kept.setdefault(rank, []).append(record)
    if not all(kept.values()):
        raise last
    return [record for one in kept.values() for record in one]
