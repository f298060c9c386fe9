"""Metrics -> TensorBoard, synchronised with the device once per interval."""

import io
import math
import os
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from data.metrics import Metrics

HISTOGRAM_EVERY = 5  # flushes: a histogram costs as much as all scalars
MOST = 8  # action components, or actions, with a curve of their own
QUANTILES = {"q05": 0.05, "q50": 0.5, "q95": 0.95}
FRAMES, WIDTH = 100, 300  # of a film: the most, and pixels
EVENTS = "events.out.tfevents."  # what the names of event files begin with
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

    Each event is written at once, without TensorBoard's thread: a full disk is found here.

    Args:
        run_dir: where the event file goes; None: nothing is written.
        purge_step: after a resume, what lies at or beyond this step is no longer shown.
        device: where metrics come from.
        actions: how many discrete ones there are, each of which has a share.
    """

    def __init__(
        self,
        run_dir: Path | None = None,
        purge_step: int | None = None,
        device: torch.device | str = "cpu",
        actions: int = 0,
    ) -> None:
        self.flushes = 0
        self.device, self.actions = device, actions
        self.rows: dict[tuple[str, ...], list[Tensor]] = {}  # names -> 0-d in turn, or (K,)
        self.arrays: dict[str, Tensor] = {}
        self.file: BinaryIO | None = None
        if run_dir is not None:
            self.begin(run_dir, purge_step)

    def begin(self, run_dir: Path, purge_step: int | None) -> None:
        """Opens the event file, and writes its first events."""
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from torch.utils.tensorboard.summary import custom_scalars

        try:
            if purge_step is not None:
                wait_for_a_later_name(run_dir)
            self.file = event_file(run_dir)
        except OSError as error:
            self.stop(error)
        self.event(file_version="brain.Event:2")
        if purge_step is not None:
            self.event(step=purge_step, session_log=SessionLog(status=SessionLog.START))
        self.event(summary=custom_scalars({"logpi": LAYOUT}))

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
        shown = self.write(step, values | last_update(arrays, self.actions))
        self.flushes += 1
        for name, array in arrays.items() if self.flushes % HISTOGRAM_EVERY == 1 else ():
            if array.ndim == 1 and np.isfinite(array).all():
                self.histogram(step, name, array)
        return shown

    def write(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Writes scalars at once, as one event; returns those that had a finite value."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        shown = {name: value for name, value in sorted(values.items()) if math.isfinite(value)}
        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in shown.items()]
        self.event(step=step, summary=Summary(value=scalars))
        return shown

    def histogram(self, step: int, tag: str, array: np.ndarray) -> None:
        """Writes a histogram of an array (K,)."""
        from torch.utils.tensorboard.summary import histogram

        self.event(step=step, summary=histogram(tag, array, bins=64))

    def text(self, tag: str, text: str) -> None:
        """Writes Markdown."""
        from torch.utils.tensorboard.summary import text as summary

        self.event(summary=summary(tag, text))

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Writes an image, (H, W, 3) uint8."""
        from PIL import Image

        png = Png()
        Image.fromarray(pixels).save(png)
        self.picture(tag, pixels.shape[:2], png.getvalue(), step)

    def film(self, tag: str, frames: list[np.ndarray], seconds: float, step: int) -> None:
        """Writes a moving image of at most 100 frames, (H, W, 3) uint8, 300 pixels wide."""
        from PIL import Image

        first, *others = [Image.fromarray(frame) for frame in frames[:: -(-len(frames) // FRAMES)]]
        for image in (first, *others):
            image.thumbnail((WIDTH, WIDTH))
        gif, duration = io.BytesIO(), 1000 * seconds / (1 + len(others))
        first.save(gif, "GIF", save_all=True, append_images=others, loop=0, duration=duration)
        self.picture(tag, (first.height, first.width), gif.getvalue(), step)

    def picture(self, tag: str, size: tuple[int, ...], encoded: bytes, step: int) -> None:
        """Writes an image file of `size` (H, W)."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        height, width = size
        image = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=encoded
        )
        self.event(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)]))

    def event(self, **content: Any) -> None:
        """Writes an event to the file; a disk that is full stops the logging, not the run."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self.file is None:
            return
        try:
            RecordWriter(self.file).write(
                Event(wall_time=time.time(), **content).SerializeToString()
            )
            self.file.flush()
        except OSError as error:
            self.stop(error)

    def stop(self, error: OSError) -> None:
        """Writes nothing from here on, with a warning."""
        self.close()
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

    def close(self) -> None:
        file, self.file = self.file, None
        if file is not None:
            with suppress(OSError):  # of an event that has been warned of
                file.close()


def event_file(run_dir: Path) -> BinaryIO:
    """A new file by such a name as TensorBoard gives: seconds, machine, process, number."""
    run_dir.mkdir(parents=True, exist_ok=True)
    name = f"{EVENTS}{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
    number = sum(path.name.startswith(name) for path in run_dir.iterdir())
    return open(run_dir / f"{name}.{number}", "xb")


def wait_for_a_later_name(run_dir: Path) -> None:
    """Waits until an event file that is made now comes last in the order of names.

    In this order event files are read, and their names begin with the second in which they were
    made. Those made in the future, by the clock of another machine, are renamed to the past in the
    same order.
    """
    now = int(time.time())
    last = 0
    for path in sorted(run_dir.glob(f"{EVENTS}*.*")):
        made, _, rest = path.name.removeprefix(EVENTS).partition(".")
        if made.isdigit() and int(made) > now + 1:
            path.rename(path.with_name(f"{EVENTS}{now - 1:010d}.~{made}.{rest}"))
        elif made.isdigit():
            last = max(last, int(made))
    time.sleep(max(0.0, last + 1.001 - time.time()))


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


def last_update(arrays: Mapping[str, np.ndarray], actions: int = 0) -> dict[str, float]:
    """Scalars from the metrics with dimensions, which are those of the last update.

    Quantiles of log_prob, the share of each action, and the mean of every column of 2-d metrics.

    Args:
        arrays: metrics by name.
        actions: how many there are, so that those not taken have a share of 0.
    """
    values: dict[str, float] = {}
    for name, array in arrays.items():
        if array.ndim == 2:
            means = array.mean(0)[:MOST]
            values |= {f"{name}/{column}": float(mean) for column, mean in enumerate(means)}
        elif name == "policy/log_prob":
            ordered = np.sort(array)
            for ending, share in QUANTILES.items():
                values[f"{name}_{ending}"] = float(ordered[round(share * (len(array) - 1))])
        elif name == "policy/action" and np.issubdtype(array.dtype, np.integer):
            shares = np.bincount(array, minlength=actions)[:MOST] / len(array)
            values |= {f"policy/action_share/{k}": float(share) for k, share in enumerate(shares)}
    return values
