"""What a run has logged, read as TensorBoard would show it."""

import logging
import time
from pathlib import Path


def read_curves(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every scalar, as TensorBoard would show it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every purge
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


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
