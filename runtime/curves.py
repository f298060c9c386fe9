"""The scalars that a run has logged."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from common.errors import StorageFault

COPIES = "brief/"  # a group of tags, for the eye: their values have other tags, too


def read_curves(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every scalar, as TensorBoard would show it.

    Raises StorageFault where an event file cannot be read.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it logs every purge
    with utf8_path(run_dir) as path:
        events = EventAccumulator(path, size_guidance={"scalars": 0})
        try:
            events.Reload()
        except OSError as error:
            why = f"its event files cannot be read, {error.strerror}"
            raise StorageFault(f"{run_dir}: {why}; make its files readable") from error
    curves: dict[str, list[tuple[int, float]]] = {}
    for tag in events.Tags()["scalars"]:
        if not tag.startswith(COPIES):
            now = re.sub("^audit/", "verification/", tag)  # of a run that older code began
            curves.setdefault(now, []).extend((one.step, one.value) for one in events.Scalars(tag))
    return curves


@contextmanager
def utf8_path(run_dir: Path) -> Iterator[str]:
    """The directory by a name in UTF-8, which TensorBoard needs: its own, or a link to it.

    A locale may encode names otherwise, and a name on the disk may have no encoding at all.
    """
    if os.fsencode(run_dir) == str(run_dir).encode(errors="replace"):
        yield str(run_dir)
        return
    with TemporaryDirectory(prefix="logpi-") as folder:
        link = Path(folder) / "run"
        link.symlink_to(run_dir.absolute(), target_is_directory=True)
        yield str(link)


def read_scalars(run_dir: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) of one tag; empty where it was never logged."""
    return read_curves(run_dir).get(tag, [])
