"""Metrics that come as one vector, and those of several steps put together."""

import pytest
import torch

from common.metrics import MergedMetrics, Metrics, Packed, packing, split_scalars

PLAIN = {"a": torch.tensor(1.5), "h": torch.arange(3.0), "b_max": torch.tensor(-2.0)}


def test_packed_metrics_are_the_same_mapping():
    packed = Packed(packing(lambda: PLAIN))()
    assert isinstance(packed, Metrics)
    assert set(packed) == set(PLAIN)
    assert len(packed) == 3
    assert all(torch.equal(packed[name], PLAIN[name]) for name in PLAIN)
    for metrics in (packed, PLAIN):
        names, vector, arrays = split_scalars(metrics)
        assert (names, vector.tolist(), list(arrays)) == (("a", "b_max"), [1.5, -2.0], ["h"])
    assert "c" not in packed
    assert packed.get("c") is None
    with pytest.raises(KeyError):
        packed["c"]


def merged(names, table):
    steps = MergedMetrics()
    for vector in table:
        steps.add(Metrics(names, vector, {}))
    return steps.result()


def test_several_steps_become_means_and_extremes_of_those_that_have_a_value():
    nan, inf = float("nan"), float("inf")
    names = ("a", "b_min", "b_max", "none")
    table = torch.tensor([[1.0, 3.0, 3.0, nan], [nan, nan, nan, nan], [4.0, -1.0, 7.0, nan]])
    found = {name: value.item() for name, value in merged(names, table).items()}
    assert found.pop("none") != found.get("none")  # NaN: no tag
    assert found == {"a": 2.5, "b_min": -1.0, "b_max": 7.0}
    low = merged(("b_min",), torch.tensor([[0.0], [-inf]]))
    assert low["b_min"].item() == -inf  # not a large number that would be shown


def test_what_is_one_vector_already_is_not_taken_apart(monkeypatch):
    packed = Packed(packing(lambda: PLAIN))()
    monkeypatch.setattr(Metrics, "__getitem__", lambda self, name: pytest.fail("a slice"))
    assert split_scalars(packed)[1] is packed.vector
