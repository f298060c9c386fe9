"""Metrics -> TensorBoard, synchronised with the device once per interval."""

import io
import math
import os
import socket
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard import summary

from common.errors import warn
from common.metrics import split_scalars
from runtime.curves import COPIES

HISTOGRAM_EVERY = 5  # flushes: a histogram costs as much as all scalars
MOST = 8  # action components, or actions, with a curve of their own
QUANTILES = {"q05": 0.05, "q50": 0.5, "q95": 0.95}
FRAMES, WIDTH = 100, 300  # of a film: the most, and pixels
EVENTS = "events.out.tfevents."  # what the names of event files begin with
COPIED = {  # the first group of the tab Time Series; its first five are columns of HPARAMS
    "rollout/return": "1_return",
    "eval/return_mean": "2_evaluation",
    "time/steps_per_second": "4_steps_per_s",
    "policy/log_prob_mean": "5_log_prob",
    "policy/entropy": "6_entropy",
    "policy/target_entropy": "7_target_entropy",
    "policy/alpha": "8_alpha",
}
BEST = f"{COPIES}3_best_evaluation"  # in that group, and nowhere else
LAYOUT = {  # the tab Custom Scalars: a run has one colour, so that a chart has two lines at most
    "return: in training, evaluated": ["Multiline", ["rollout/return", "eval/return_mean"]],
    "entropy and its target": ["Multiline", ["policy/entropy", "policy/target_entropy"]],
    "alpha": ["Multiline", ["policy/alpha"]],
    "log-probability: median, 5 % and 95 %": [
        "Margin",
        ["policy/log_prob_q50", "policy/log_prob_q05", "policy/log_prob_q95"],
    ],
    "loss of the actor": ["Multiline", ["loss/actor"]],
    "loss of the critic": ["Multiline", ["loss/critic"]],
    "loss of alpha": ["Multiline", ["loss/alpha"]],
}


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
        self.device, self.actions, self.flushes = device, actions, 0
        self.rows: dict[tuple[str, ...], list[Tensor]] = {}  # names (K) -> (K,) of each update
        self.arrays: dict[str, Tensor] = {}  # of the last update
        self.charts: list[str] = []  # of LAYOUT: those that have a value
        self.file: BinaryIO | None = None
        if run_dir is None:
            return
        try:
            self.file = event_file(run_dir)
        except OSError as error:
            self.stop(error)
        self.event(file_version="brain.Event:2")
        if purge_step is not None:
            self.event(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Keeps detached metrics: every 0-d one, and the last of those with dimensions."""
        names, vector, arrays = split_scalars(metrics)
        self.rows.setdefault(names, []).append(vector)
        self.arrays |= arrays

    def flush(self, step: int, extra: Mapping[str, float] | None = None) -> dict[str, float]:
        """Writes the interval that ends at `step`; returns what was written. No value, no tag."""
        values = {**(extra or {}), **reduced(self.rows)}
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.arrays.items()}
        self.rows.clear()
        self.arrays.clear()
        shown = self.write(step, values | last_update(arrays, self.actions))
        self.flushes += 1
        if self.flushes % HISTOGRAM_EVERY == 1:
            for name, array in arrays.items():
                if array.ndim == 1 and np.isfinite(array).all():
                    self.event(step=step, summary=summary.histogram(name, array, bins=64))
        return shown

    def write(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Writes scalars at once, as one event; returns those that had a finite value."""
        shown = {name: value for name, value in sorted(values.items()) if math.isfinite(value)}
        copies = {f"{COPIES}{COPIED[tag]}": shown[tag] for tag in COPIED if tag in shown}
        scalars = [Summary.Value(tag=tag, simple_value=v) for tag, v in (copies | shown).items()]
        self.event(step=step, summary=Summary(value=scalars))
        filled = [title for title, (_, tags) in LAYOUT.items() if shown.keys() & tags]
        if new := [title for title in filled if title not in self.charts]:
            self.charts += new
            own = {title: LAYOUT[title] for title in LAYOUT if title in self.charts}
            self.event(summary=summary.custom_scalars({"overview": own}))
        return shown

    def text(self, tag: str, text: str, step: int = 0) -> None:
        """Writes Markdown."""
        self.event(step=step, summary=summary.text(tag, text))

    def settings(self, values: Mapping[str, Any]) -> None:
        """Writes what the tab HPARAMS has of the run; of two in one run the first counts."""
        info = SessionStartInfo(start_time_secs=time.time())
        for name, value in values.items():
            if isinstance(value, bool):
                info.hparams[name].bool_value = value
            elif isinstance(value, int | float):
                info.hparams[name].number_value = value
            elif value not in (None, [], {}):
                info.hparams[name].string_value = str(value)
        data = metadata.create_summary_metadata(HParamsPluginData(session_start_info=info))
        tag = metadata.SESSION_START_INFO_TAG
        value = Summary.Value(tag=tag, metadata=data, tensor=metadata.NULL_TENSOR)
        self.event(summary=Summary(value=[value]))

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Writes an image, (H, W, 3) uint8."""
        self.event(step=step, summary=summary.image(tag, pixels, dataformats="HWC"))

    def film(self, tag: str, frames: list[np.ndarray], seconds: float, step: int) -> None:
        """Writes a moving image of at most 100 frames, (H, W, 3) uint8, 300 pixels wide."""
        from PIL import Image

        first, *others = [Image.fromarray(frame) for frame in frames[:: -(-len(frames) // FRAMES)]]
        for image in (first, *others):
            image.thumbnail((WIDTH, WIDTH))
        gif, duration = io.BytesIO(), 1000 * seconds / (1 + len(others))
        first.save(gif, "GIF", save_all=True, append_images=others, loop=0, duration=duration)
        moving = Summary.Image(
            height=first.height,
            width=first.width,
            colorspace=3,
            encoded_image_string=gif.getvalue(),
        )
        self.event(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=moving)]))

    def event(self, **content: Any) -> None:
        """Writes an event to the file; a disk that is full stops the logging, not the run."""
        if self.file is None:
            return
        event = Event(wall_time=time.time(), **content)
        try:
            RecordWriter(self.file).write(event.SerializeToString())
            self.file.flush()
        except OSError as error:
            self.stop(error)

    def stop(self, error: OSError) -> None:
        """Writes nothing from here on, with a warning."""
        self.close()
        warn(f"logging stopped: {error}; training continues")

    def state_dict(self) -> dict[str, Any]:
        """The metrics of the interval that is not written yet, and the charts that are."""
        rows = [[list(names), torch.hstack(rows)] for names, rows in self.rows.items()]
        own = {"flushes": self.flushes, "charts": list(self.charts)}
        return {"rows": rows, "arrays": dict(self.arrays), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = {tuple(names): [row.to(self.device)] for names, row in state["rows"]}
        self.arrays = dict(state["arrays"])
        self.flushes = state["flushes"]
        self.charts = list(state.get("charts", []))

    def close(self) -> None:
        file, self.file = self.file, None
        if file is not None:
            with suppress(OSError):  # of an event that has been warned of
                file.close()


def event_file(run_dir: Path) -> BinaryIO:
    """A new file, by such a name as TensorBoard gives: seconds, machine, process, number.

    Files are read in the order of names: it is the last also where another is of the future.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    names = (path.name.removeprefix(EVENTS) for path in run_dir.glob(f"{EVENTS}*"))
    stamps = (name.partition(".")[0] for name in names)
    last = max((int(stamp) for stamp in stamps if stamp.isdecimal()), default=0)
    seconds = max(int(time.time()), last + 1)
    return open(run_dir / f"{EVENTS}{seconds:010d}.{socket.gethostname()}.{os.getpid()}.0", "xb")


def reduced(rows: Mapping[tuple[str, ...], list[Tensor]]) -> dict[str, float]:
    """Of each name's finite numbers: minimum or maximum, by the name's ending, or mean.

    A name without any is left out. The device is waited for once for each kind of update.
    """
    columns: dict[str, list[np.ndarray]] = defaultdict(list)
    for names, kept in rows.items():
        table = torch.hstack(kept).cpu().numpy().reshape(-1, len(names))
        for name, column in zip(names, table.T, strict=True):
            columns[name].append(column[np.isfinite(column)])
    values = {}
    for name, parts in columns.items():
        numbers = np.concatenate(parts)
        if len(numbers):
            extreme = {"min": np.min, "max": np.max}.get(name.rpartition("_")[2])
            total = np.add.reduceat(numbers, [0])[0]  # whose last bit is not that of `sum`
            values[name] = float(extreme(numbers) if extreme else total / len(numbers))
    return values


def last_update(arrays: Mapping[str, np.ndarray], actions: int = 0) -> dict[str, float]:
    """Scalars from the metrics with dimensions, which are those of the last update.

    Quantiles of log_prob, the share of each of `actions` also where it was not taken, and the mean
    of every column of 2-d metrics.
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
