"""What is written to TensorBoard: means, extremes, no NaN, and only once synchronised."""

import io
import time
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.metrics import Packed, packing
from runtime.curves import read_curves, read_scalars
from runtime.launch.door import enter
from runtime.logger import Logger, last_update
from tests.helpers import saved_and_read
from train import run as train


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

    def full(content):
        raise OSError(28, "No space left on device")

    logger.file = SimpleNamespace(write=full, close=logger.file.close)
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


def test_a_run_that_older_code_began_goes_on_under_the_new_names(tmp_path):
    for step, group in ((10, "audit"), (20, "verification")):
        logger = Logger(tmp_path, purge_step=step)
        logger.write(step, {f"{group}/pit_ks": 5 / step, "policy/alpha": 1.0})
        logger.close()
    curves = read_curves(tmp_path)
    assert curves.keys() == {"policy/alpha", "verification/pit_ks"}
    assert curves["verification/pit_ks"] == [(10, 0.5), (20, 0.25)]


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
    logger.image("verification/actions", pixels, 30)
    logger.close()
    (event,) = read(tmp_path).Images("verification/actions")
    assert (event.step, event.width, event.height) == (30, 7, 5)
    decoded = Image.open(io.BytesIO(event.encoded_image_string))
    assert decoded.format == "PNG"
    assert np.array_equal(np.asarray(decoded), pixels)


def test_of_an_interval_only_what_is_finite_counts(tmp_path):
    logger = Logger(tmp_path)
    for value in (1.0, float("nan"), 4.0, float("-inf")):
        logger.add({"a": torch.tensor(value), "a_min": torch.tensor(value)})
    assert logger.flush(1) == {"a": 2.5, "a_min": 1.0}


def test_scalars_of_the_last_update():
    values = last_update(
        {
            "policy/log_prob": np.arange(101.0),
            "policy/action": np.array([0, 2, 2, 2]),
            "ledger/scale": np.array([[1.0, 2.0], [3.0, 6.0]]),
            "other": np.array([1.0]),
        }
    )
    assert values == {
        "policy/log_prob_q05": 5.0,
        "policy/log_prob_q50": 50.0,
        "policy/log_prob_q95": 95.0,
        "policy/action_share/0": 0.25,
        "policy/action_share/1": 0.0,
        "policy/action_share/2": 0.75,
        "ledger/scale/0": 2.0,
        "ledger/scale/1": 4.0,
    }


def test_an_action_that_was_not_taken_has_a_share_of_zero():
    shares = last_update({"policy/action": np.array([0, 0, 1])}, actions=4)
    assert shares == {f"policy/action_share/{k}": v for k, v in enumerate((2 / 3, 1 / 3, 0, 0))}
    assert len(last_update({"policy/action": np.zeros(3, np.int64)}, actions=20)) == 8
    assert last_update({"policy/action": np.array([0.5, 1.0])}, actions=0) == {}


def test_a_run_tells_the_share_of_each_action_in_every_log(tmp_path):
    """Each of its batches is one action."""
    one = ["env.num_envs=1", "agent.n_steps=1", "agent.normalise_advantage=false", "log.every=10"]
    short = ["total_steps=40", "eval.episodes=2"]
    assert enter("train", train, [*one, *short, f"run_dir={tmp_path / 'run'}"]) == 0
    shares = [read_scalars(tmp_path / "run", f"policy/action_share/{k}") for k in (0, 1)]
    assert [step for step, _ in shares[0]] == [10, 20, 30, 40]
    assert [(step, 1.0 - value) for step, value in shares[0]] == shares[1]


def test_continuous_actions_have_no_shares_and_eight_columns_are_the_most():
    assert last_update({"policy/action": np.array([0.5, 1.0])}) == {}
    assert len(last_update({"ledger/scale": np.zeros((3, 20))})) == 8
