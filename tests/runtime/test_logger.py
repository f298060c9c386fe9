"""What is written to TensorBoard: means, extremes, no NaN, and only once synchronised."""

import io

import numpy as np
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from runtime.logger import Logger
from tests.helpers import saved_and_read


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
