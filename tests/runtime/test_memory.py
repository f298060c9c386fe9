"""What a replay needs, what there is, and that the first is refused where it exceeds the second."""

import pytest
import torch

from data import Replay, Spec, Transition
from runtime import memory
from runtime.errors import ConfigError
from runtime.memory import control_group, limits, require_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [1, 3, 64])
@pytest.mark.parametrize(
    "spec",
    [
        Spec(17, 6, False),
        Spec(3, 4, True),
        Spec(3, 4, True, choices=(4, 2, 3)),
        Spec(12, 4, True, images=((0, (2, 3, 2)),), pixels=True),
    ],
)
def test_the_estimate_is_what_the_arrays_take(spec, count):
    capacity = 10_000
    buffer = Replay(capacity, 4, 1, 1.0, torch.Generator())
    obs = torch.zeros(count, spec.obs_dim, dtype=torch.uint8 if spec.pixels else torch.float32)
    shape = (count, *spec.noise_shape[:-1]) if spec.discrete else (count, spec.action_dim)
    action = torch.zeros(shape, dtype=torch.int64 if spec.discrete else torch.float32)
    flag = torch.zeros(count, dtype=torch.bool)
    buffer.add(Transition(obs, action, torch.zeros(count), obs, flag, flag))
    arrays = (buffer.obs, buffer.pointer, *buffer.fields)
    taken = sum(a.numel() * a.element_size() for a in arrays)
    taken += buffer.ends.numbers.nbytes + buffer.ends.rows.nbytes
    assert Replay.bytes_for(capacity, count, spec) == taken


def test_what_does_not_fit_is_refused_with_the_largest_that_would(monkeypatch):
    spec = Spec(17, 6, discrete=False)
    needed = Replay.bytes_for(1_000_000, 1, spec)
    monkeypatch.setattr(memory, "limits", lambda device: [("this machine", 10 * needed)])
    require_memory(1_000_000, 1, spec, CPU)
    monkeypatch.setattr(memory, "limits", lambda device: [("the control group", needed)])
    with pytest.raises(ConfigError, match="the control group leaves") as caught:
        require_memory(1_000_000, 1, spec, CPU)
    largest = int(str(caught.value).split("at most ")[1].split(" ")[0].replace(",", ""))
    assert largest == pytest.approx(900_000, rel=0.01)
    require_memory(largest - 1000, 1, spec, CPU)
    with pytest.raises(ConfigError):
        require_memory(largest + 20_000, 1, spec, CPU)
    require_memory(largest // 2 - 1000, 1, spec, CPU, replays=2)  # another process makes one, too
    with pytest.raises(ConfigError, match="at most 4"):
        require_memory(largest // 2 + 20_000, 1, spec, CPU, replays=2)


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("0::/jobs/a", {"jobs/memory.max": "1000", "jobs/memory.current": "300",
                        "jobs/memory.stat": "inactive_file 100\n",
                        "jobs/a/memory.max": "max", "jobs/a/memory.current": "200"}),
        ("4:memory:/jobs", {"memory/jobs/memory.limit_in_bytes": "1000",
                            "memory/jobs/memory.usage_in_bytes": "300",
                            "memory/jobs/memory.stat": "total_inactive_file 100\n"}),
    ],
)  # fmt: skip
def test_the_limit_of_a_control_group_above_is_found(line, files, monkeypatch):
    def read(path):
        text = str(path)
        if text == "/proc/self/cgroup":
            return line + "\n"
        return files.get(text.removeprefix("/sys/fs/cgroup/"), "")

    monkeypatch.setattr(memory, "read", read)
    assert list(control_group()) == [("the control group", 800)]


def test_this_machine_tells_its_limits():
    found = dict(limits(CPU))
    assert found["this machine"] > 1 << 20


def test_without_a_proc_the_machine_tells_what_it_has(monkeypatch):
    told = dict(limits(CPU))["this machine"]
    monkeypatch.setattr(memory, "read", lambda path: "")
    assert told < dict(limits(CPU))["this machine"] < 1 << 50
