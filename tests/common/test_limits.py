"""The limits of memory that are known here."""

import pytest
import torch

from common import limits

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("line", "files"),
    [
        (
            "0::/jobs/a",
            {
                "jobs/memory.max": "1000",
                "jobs/memory.current": "300",
                "jobs/memory.stat": "inactive_file 100\n",
                "jobs/a/memory.max": "max",
                "jobs/a/memory.current": "200",
            },
        ),
        (
            "4:memory:/jobs",
            {
                "memory/jobs/memory.limit_in_bytes": "1000",
                "memory/jobs/memory.usage_in_bytes": "300",
                "memory/jobs/memory.stat": "total_inactive_file 100\n",
            },
        ),
    ],
)
def test_the_limit_of_a_control_group_above_is_found(line, files, monkeypatch):
    def read(path):
        text = str(path)
        if text == "/proc/self/cgroup":
            return line + "\n"
        return files.get(text.removeprefix("/sys/fs/cgroup/"), "")

    monkeypatch.setattr(limits, "read", read)
    assert list(limits.control_group()) == [("the control group", 800)]


def test_this_machine_tells_its_limits():
    found = dict(limits.limits(CPU))
    assert found["this machine"] > 1 << 20


def test_without_a_proc_the_machine_tells_what_it_has(monkeypatch):
    told = dict(limits.limits(CPU))["this machine"]
    monkeypatch.setattr(limits, "read", lambda path: "")
    assert told < dict(limits.limits(CPU))["this machine"] < 1 << 50
