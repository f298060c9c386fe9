"""Rows of a replay on the disk, written once for all checkpoints that need them."""

import os
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from common.errors import Damaged
from data import Replay
from storage.files import Record, own_folder, read_sealed, seal, verify, writing
from storage.rundir import write_bytes

SEGMENTS = "replay"  # the folder beside `checkpoints` whose files several checkpoints share
ROWS = 1 << 16  # in one file
PIECE = 1 << 24  # bytes of rows in one file; writing it takes three times the memory
Rows = Iterator[dict[str, Tensor]]


def write_segments(
    run_dir: Path, replay: Replay | None, known: list[Record], rank: int = 0
) -> list[Record]:
    """Writes the rows that are in no file yet; returns the records of the files of all rows.

    `known` are the records of files with earlier rows. Raises StorageFault.
    """
    if replay is None or not replay.count:
        return []
    segments = [record for record in known if record["stop"] > replay.first_row]
    start = max([replay.first_row, *(record["stop"] for record in segments)])
    for first, stop in pieces(replay, start, ROWS):
        record = write_segment(run_dir, first, stop, replay.copy_rows(first, stop))
        segments.append({**record, "rank": rank})
    return segments


def pieces(replay: Replay, start: int, most: int) -> Iterator[tuple[int, int]]:
    """(first, stop) of the rows from `start` on: whole steps of `most` rows or `PIECE` bytes."""
    if start >= replay.added:
        return
    count = replay.count
    step = replay.copy_rows(start, start + count)
    size = sum(tensor.nbytes for name, tensor in step.items() if not name.startswith("end"))
    rows = max(1, min(most // count, PIECE // size)) * count
    for first in range(start, replay.added, rows):
        yield first, min(first + rows, replay.added)


def write_segment(run_dir: Path, start: int, stop: int, tensors: dict[str, Tensor]) -> Record:
    """Writes rows start..stop of a replay; returns their record. Raises StorageFault."""
    content = save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()})
    record = seal(content)
    name = f"{start:012d}-{stop:012d}-{record['sha256'][:16]}.safetensors"
    path, temporary = run_dir / SEGMENTS / name, run_dir / f"tmp-{os.getpid()}-{name}"
    with writing(path.parent, temporary):
        own_folder(path.parent)
    write_bytes(path, content, temporary)  # it may exist, from before a kill
    return {"name": name, "start": start, "stop": stop, **record}


def read_segments(folder: Path, records: list[Record]) -> Rows:
    """The rows of a replay, file by file; raises Damaged at one that is not as recorded."""
    return (read_sealed(folder / record["name"], record, load_tensors) for record in records)


def undamaged(folder: Path, records: list[Record]) -> list[Record]:
    """The records of each rank after its last damaged one, since a ring has no gaps.

    Raises Damaged if a rank has none left.
    """
    kept: dict[int, list[Record]] = {}
    for record in records:
        of_rank = kept.setdefault(record.get("rank", 0), [])
        try:
            verify(folder / record["name"], record)
            of_rank.append(record)
        except Damaged as error:
            of_rank.clear()
            damage = error
    if not all(kept.values()):
        raise damage
    return [record for of_rank in kept.values() for record in of_rank]
