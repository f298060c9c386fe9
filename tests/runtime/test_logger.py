"""What is written to TensorBoard: means, extremes, no NaN, and only once synchronised."""

import io
import time

import numpy as np
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.metrics import Packed, packing
from runtime.curves import read_scalars
from runtime.logger import Logger
from tests.helpers import saved_and_read


def pack(metrics):
    """What the graph of an update that gives these metrics returns."""
    return Packed(packing(lambda: metrics))()


def read(path):
    events = EventAccumulator(str(path))
    events.Reload()
    return events


def test_intervals_are_reduced_by_the_names_ending(tmp_path):
    logger = Logger(tmp_path)
    for value in (1.0, 2.0, 6.0):
        tensor = torch.tensor(value)
        logger.add({"a": tensor, "a_min": tensor, "a_max": tensor, "h": torch.full((9,), value)})
    shown = logger.flush(10, {"extra": 5.0})
    assert shown == {"a": 3.0, "a_min": 1.0, "a_max": 6.0, "extra": 5.0}
    logger.add({"a": torch.tensor(7.0)})
    assert logger.flush(20) == {"a": 7.0}
    logger.close()
    events = read(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("a")] == [(10, 3.0), (20, 7.0)]
    assert events.Histograms("h")[0].histogram_value.min == 6.0  # the last one of the interval


def test_packed_metrics_are_logged_like_those_that_come_one_by_one(tmp_path):
    """Two kinds of updates in turn, as with a policy delay; and an interval halved by a resume."""
    single, packed, resumed = (Logger(tmp_path / name) for name in "abc")
    for step in range(6):
        metrics = {"a": torch.tensor(step + 0.5), "h": torch.full((3,), float(step))}
        if step % 2:
            metrics |= {"b_max": torch.tensor(10.0 * step), "b": torch.tensor(float("nan"))}
        single.add(metrics)
        packed.add(pack(metrics))
        if step == 3:
            resumed.load_state_dict(saved_and_read(packed.state_dict()))
        elif step > 3:
            resumed.add(pack(metrics))
    assert single.flush(1) == packed.flush(1) == resumed.flush(1) == {"a": 3.0, "b_max": 50.0}


def test_a_tag_without_a_value_is_left_out(tmp_path):
    logger = Logger(tmp_path)
    logger.add({"bad": torch.tensor(float("nan")), "good": torch.tensor(1.0)})
    assert logger.flush(1, {"inf": float("inf")}) == {"good": 1.0}
    assert logger.flush(2) == {}
    logger.close()
    assert read(tmp_path).Tags()["scalars"] == ["good"]


def test_a_full_disk_stops_the_logging_with_one_warning_and_not_the_run(tmp_path, capsys):
    logger = Logger(tmp_path)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    logger.writer.file_writer.add_summary = full
    for step in range(3):
        logger.add({"a": torch.tensor(1.0)})
        logger.flush(step)
    assert capsys.readouterr().err.count("No space left") == 1


def test_what_was_logged_in_the_future_is_taken_back_all_the_same(tmp_path):
    """Two files of a machine whose clock was an hour fast; the run went back to step 10."""
    ahead = int(time.time()) + 3600
    for number in range(2):
        logger = Logger(tmp_path / "made")
        logger.write(10 + 10 * number, {"a": float(number)})
        logger.close()
        (made,) = (tmp_path / "made").iterdir()
        made.rename(tmp_path / f"events.out.tfevents.{ahead + number}.host.{9 - number}")
    (tmp_path / "made").rmdir()
    logger = Logger(tmp_path, purge_step=11)
    logger.write(20, {"a": 7.0})
    logger.close()
    assert read_scalars(tmp_path, "a") == [(10, 0.0), (20, 7.0)]


def test_the_unwritten_interval_goes_through_a_checkpoint(tmp_path):
    first, second = Logger(tmp_path / "a"), Logger(tmp_path / "b")
    for value in (1.0, 4.0):
        first.add({"a": torch.tensor(value), "a_max": torch.tensor(value), "h": torch.ones(9)})
    second.add({"old": torch.tensor(1.0)})
    second.load_state_dict(saved_and_read(first.state_dict()))
    assert second.flush(10) == first.flush(10) == {"a": 2.5, "a_max": 4.0}
    second.close()
    assert len(read(tmp_path / "b").Histograms("h")) == 1


def test_an_image_comes_back_pixel_by_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    logger = Logger(tmp_path)
    logger.image("audit/actions", pixels, 30)
    logger.close()
    (event,) = read(tmp_path).Images("audit/actions")
    assert (event.step, event.width, event.height) == (30, 7, 5)
    decoded = Image.open(io.BytesIO(event.encoded_image_string))
    assert decoded.format == "PNG"
    assert np.array_equal(np.asarray(decoded), pixels)


def test_of_an_interval_only_what_is_finite_counts(tmp_path):
    logger = Logger(tmp_path)
    for value in (1.0, float("nan"), 4.0, float("-inf")):
        logger.add({"a": torch.tensor(value), "a_min": torch.tensor(value)})
    assert logger.flush(1) == {"a": 2.5, "a_min": 1.0}
