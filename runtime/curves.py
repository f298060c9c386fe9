"""What a run has logged, read as TensorBoard would show it."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from common.errors import StorageFault


def read_curves(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every scalar, as TensorBoard would show it.

    Raises:
        StorageFault: an event file cannot be read.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every purge
    with utf8_path(run_dir) as path:
        events = EventAccumulator(path, size_guidance={"scalars": 0})
        try:
            events.Reload()
        except OSError as error:
            what = f"{run_dir}: what it has logged cannot be read, {error.strerror}"
            raise StorageFault(f"{what}; make its files readable") from error
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


@contextmanager
def utf8_path(run_dir: Path) -> Iterator[str]:
    """The directory by a name in UTF-8, which TensorBoard takes every name for: its own, or a link.

    A locale may spell names otherwise, and names on the disk need have no encoding at all.
    """
    try:
        own = os.fsencode(run_dir) == str(run_dir).encode()
    except UnicodeEncodeError:
        own = False
    if own:
        yield str(run_dir)
        return
    with TemporaryDirectory(prefix="logpi-") as folder:
        link = Path(folder) / "run"
        link.symlink_to(run_dir.absolute(), target_is_directory=True)
        yield str(link)


def read_scalars(run_dir: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) of one tag; empty where it was never logged."""
    return read_curves(run_dir).get(tag, [])


def wait_for_a_later_name(run_dir: Path) -> None:
    """Event files are read in the order of their names, which begin with the second of their birth.

    One that takes back what another says has to come after it. Those that were born in the future,
    by the clock of another machine, are given names of the past in the same order.
    """
    prefix, now = "events.out.tfevents.", int(time.time())
    last = 0
    for path in sorted(run_dir.glob(f"{prefix}*.*")):
        born, _, rest = path.name.removeprefix(prefix).partition(".")
        if born.isdigit() and int(born) > now + 1:
            path.rename(path.with_name(f"{prefix}{now - 1:010d}.~{born}.{rest}"))
        elif born.isdigit():
            last = max(last, int(born))
    time.sleep(max(0.0, last + 1.001 - time.time()))
