"""The rows of a replay on the disk: each is written once, for all checkpoints that need it."""

from pathlib import Path

from data import Replay
from runtime.checkpoint import Record, write_segment

ROWS = 1 << 16  # in one file


def write_segments(
    run_dir: Path, replay: Replay | None, known: list[Record], rank: int = 0
) -> list[Record]:
    """Writes those rows that no file has yet; the records of the files that hold them all.

    Args:
        run_dir: where they go.
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
    rows = max(1, ROWS // replay.count) * replay.count
    for first in range(start, replay.added, rows):
        stop = min(first + rows, replay.added)
        record = write_segment(run_dir, first, stop, replay.rows(first, stop))
        segments.append({**record, "rank": rank})
    return segments
