"""Metrics -> TensorBoard, synchronised with the device once per interval."""

import io
import math
import sys
import threading
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.metrics import Metrics
from runtime.curves import utf8_path, wait_for_a_later_name
from runtime.ledger import ledger

HISTOGRAM_EVERY = 5  # flushes: a histogram costs as much as all scalars
FRAMES, WIDE = 100, 300  # of a film: how many, and pixels
LAYOUT = {  # the tab Custom Scalars
    "entropy, its target and alpha": [
        "Multiline",
        ["policy/entropy", "policy/target_entropy", "policy/alpha"],
    ],
    "log-probability: median, 5 % and 95 %": [
        "Margin",
        ["policy/log_prob_q50", "policy/log_prob_q05", "policy/log_prob_q95"],
    ],
    "return": ["Multiline", ["rollout/return", "eval/return_mean"]],
    "loss": ["Multiline", ["loss/actor", "loss/critic", "loss/alpha"]],
}


class Png(io.BytesIO):
    """A file in memory, by whose name Pillow loads what writes PNG, and nothing else."""

    name = "image.png"


class Logger:
    """Collects metrics between two flushes; writes their mean (or min, max, by the ending).

    Args:
        run_dir: where the event file goes.
        purge_step: after a resume, what lies at or beyond this step is no longer shown.
        device: where metrics come from.
        actions: how many discrete ones there are, each of which has a share.
    """

    def __init__(
        self,
        run_dir: Path,
        purge_step: int | None = None,
        device: torch.device | str = "cpu",
        actions: int = 0,
    ) -> None:
        self.flushes = 0
        self.device, self.actions = device, actions
        self.broken = False
        self.hook = threading.excepthook
        threading.excepthook = self.excuse
        self.open = ExitStack()
        self.guard("begin", run_dir, purge_step)
        self.rows: dict[tuple[str, ...], list[Tensor]] = {}  # names -> 0-d in turn, or (K,)
        self.arrays: dict[str, Tensor] = {}

    def begin(self, run_dir: Path, purge_step: int | None) -> None:
        """Opens the event file, and writes its first events."""
        from torch.utils.tensorboard.writer import SummaryWriter

        if purge_step is not None:
            wait_for_a_later_name(run_dir)
        path = self.open.enter_context(utf8_path(run_dir))
        self.writer: Any = SummaryWriter(path, purge_step=purge_step)
        self.writer.add_custom_scalars({"logpi": LAYOUT})

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Keeps detached metrics: every 0-d one, and the last of those with dimensions."""
        if not isinstance(metrics, Metrics):
            names = tuple(name for name, value in metrics.items() if not value.ndim)
            self.arrays |= {name: value for name, value in metrics.items() if value.ndim}
            self.rows.setdefault(names, []).extend(metrics[name] for name in names)
            return
        self.arrays.update(metrics.arrays)
        self.rows.setdefault(metrics.names, []).append(metrics.vector)

    def columns(self) -> dict[str, np.ndarray]:
        """What was kept of each 0-d metric: a synchronisation for each kind of update."""
        parts: dict[str, list[np.ndarray]] = defaultdict(list)
        for names, rows in self.rows.items():
            table = torch.hstack(rows).cpu().numpy().reshape(-1, len(names))
            for name, column in zip(names, table.T, strict=True):
                parts[name].append(column)
        return {name: np.concatenate(columns) for name, columns in parts.items()}

    def flush(self, step: int, extra: Mapping[str, float] | None = None) -> dict[str, float]:
        """Writes the interval that ends at `step`; returns what was written. No value, no tag."""
        values = dict(extra or {})
        values |= reduce(self.columns())
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.arrays.items()}
        self.rows.clear()
        self.arrays.clear()
        shown = self.write(step, values | ledger(arrays, self.actions))
        self.flushes += 1
        for name, array in arrays.items() if self.flushes % HISTOGRAM_EVERY == 1 else ():
            if array.ndim == 1 and np.isfinite(array).all():
                self.guard("add_histogram", name, array, step, bins=64)
        return shown

    def write(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Writes scalars at once, as one event; returns those that had a finite value."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        shown = {name: value for name, value in sorted(values.items()) if math.isfinite(value)}
        event = Summary(value=[Summary.Value(tag=n, simple_value=v) for n, v in shown.items()])
        self.guard("file_writer.add_summary", event, step)
        return shown

    def text(self, tag: str, text: str) -> None:
        """Writes Markdown."""
        self.guard("add_text", tag, text, 0)

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Writes an image, (H, W, 3) uint8; `SummaryWriter.add_image` takes four times as long."""
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        png = Png()
        Image.fromarray(pixels).save(png)
        height, width, channels = pixels.shape
        image = Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=png.getvalue()
        )
        event = Summary(value=[Summary.Value(tag=tag, image=image)])
        self.guard("file_writer.add_summary", event, step)

    def film(self, tag: str, frames: list[np.ndarray], seconds: float, step: int) -> None:
        """Writes a moving image of at most 100 frames, (H, W, 3) uint8, 300 pixels wide."""
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        kept = [Image.fromarray(frame) for frame in frames[:: -(-len(frames) // FRAMES)]]
        for image in kept:
            image.thumbnail((WIDE, WIDE))
        gif = io.BytesIO()
        kept[0].save(gif, "GIF", save_all=True, append_images=kept[1:], loop=0,
                     duration=1000 * seconds / len(kept))  # fmt: skip
        image = Summary.Image(height=kept[0].height, width=kept[0].width, colorspace=3,
                              encoded_image_string=gif.getvalue())  # fmt: skip
        event = Summary(value=[Summary.Value(tag=tag, image=image)])
        self.guard("file_writer.add_summary", event, step)

    def guard(self, name: str, *arguments: Any, **options: Any) -> None:
        """Calls a method of the writer; a disk that is full stops the logging, not the run."""
        if self.broken:
            return
        try:
            write = self.begin if name == "begin" else attrgetter(name)(self.writer)
            write(*arguments, **options)
        except OSError as error:
            self.broken = True
            print(f"warning: logging stopped: {error}; training goes on", file=sys.stderr)

    def state_dict(self) -> dict[str, Any]:
        """The metrics of the interval that is not written yet."""
        rows = [[list(names), torch.hstack(rows)] for names, rows in self.rows.items()]
        return {"rows": rows, "arrays": dict(self.arrays), "flushes": self.flushes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.rows = {tuple(names): [row.to(self.device)] for names, row in state["rows"]}
        self.arrays = dict(state["arrays"])
        self.flushes = state["flushes"]

    def sync(self) -> None:
        """Leaves nothing in memory: what a checkpoint follows must not be lost with the process."""
        self.guard("flush")

    def close(self) -> None:
        self.guard("close")
        self.open.close()
        threading.excepthook = self.hook

    def excuse(self, failure: threading.ExceptHookArgs) -> None:
        """A writer's thread that finds the disk full ends without a traceback: `guard` tells."""
        if not isinstance(failure.exc_value, OSError):
            self.hook(failure)


class Silent(Logger):
    """Reduces metrics like a logger, and writes them nowhere."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.flushes, self.device, self.broken = 0, device, True
        self.rows, self.arrays = {}, {}

    def flush(self, step: int, extra: Mapping[str, float] | None = None) -> dict[str, float]:
        self.rows.clear()
        self.arrays.clear()
        self.flushes += 1
        return {}

    def write(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        return {}

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


def reduce(columns: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of each name's numbers: minimum or maximum, by the name's ending, or mean.

    Over the updates that had a value; NaN where none had.
    """
    if not columns:
        return {}
    starts = np.cumsum([0, *map(len, columns.values())])[:-1]
    numbers = np.concatenate(list(columns.values()))
    finite = np.isfinite(numbers)
    with np.errstate(invalid="ignore"):
        means = np.add.reduceat(np.where(finite, numbers, 0.0), starts) / np.add.reduceat(
            finite.astype(np.float64), starts
        )
    values = dict(zip(columns, means.tolist(), strict=True))
    for name, column in columns.items():
        if name.endswith(("_min", "_max")):
            part = column[np.isfinite(column)]
            if len(part):
                values[name] = float(part.min() if name.endswith("_min") else part.max())
    return values
