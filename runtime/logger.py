"""Metrics -> TensorBoard, synchronised with the device once per interval."""

import math
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime.errors import StorageFault


class Logger:
    """Collects metrics between two flushes; writes their mean (or min, max, by the ending).

    Args:
        run_dir: where the event file goes.
        purge_step: after a resume, what lies at or beyond this step is no longer shown.
    """

    def __init__(self, run_dir: Path, purge_step: int | None = None) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        try:
            self.writer: Any = SummaryWriter(str(run_dir), purge_step=purge_step)
        except OSError as error:
            raise StorageFault(
                f"{run_dir}: no events can be written, {error}; free the disk"
            ) from error
        self.scalars: dict[str, list[Tensor]] = defaultdict(list)
        self.histograms: dict[str, Tensor] = {}
        self.broken = False

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Keeps detached metrics: 0-d are averaged, of 1-d the last is shown as a histogram."""
        for name, value in metrics.items():
            if value.ndim:
                self.histograms[name] = value
            else:
                self.scalars[name].append(value)

    def flush(self, step: int, extra: Mapping[str, float] | None = None) -> dict[str, float]:
        """Writes the interval that ends at `step`; returns what was written. No value, no tag."""
        names = sorted(self.scalars)
        reduced = [reduce(name, torch.stack(self.scalars[name])) for name in names]
        values = torch.stack(reduced).tolist() if reduced else []  # the one synchronisation
        histograms, self.histograms = self.histograms, {}
        self.scalars.clear()
        shown = self.write(step, {**dict(zip(names, values, strict=True)), **(extra or {})})
        for name, tensor in histograms.items():
            if tensor.isfinite().all():
                self.guard("add_histogram", name, tensor.cpu(), step, bins=64)
        return shown

    def write(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Writes scalars at once; returns those that had a finite value."""
        shown = {name: value for name, value in values.items() if math.isfinite(value)}
        for name, value in shown.items():
            self.guard("add_scalar", name, value, step)
        return shown

    def text(self, tag: str, text: str) -> None:
        self.guard("add_text", tag, text, 0)

    def guard(self, method: str, *arguments: Any, **options: Any) -> None:
        """Calls the writer; a disk that is full stops the logging, not the run."""
        if self.broken:
            return
        try:
            getattr(self.writer, method)(*arguments, **options)
        except OSError as error:
            self.broken = True
            print(f"warning: logging stopped: {error}; training goes on", file=sys.stderr)

    def close(self) -> None:
        self.guard("close")


def reduce(name: str, values: Tensor) -> Tensor:
    """Over the updates of an interval: names ending in _min or _max by that, others by the mean."""
    if name.endswith("_min"):
        return values.amin()
    return values.amax() if name.endswith("_max") else values.float().nanmean()


def read_scalars(run_dir: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) of one tag, as TensorBoard would show it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    if tag not in events.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in events.Scalars(tag)]
