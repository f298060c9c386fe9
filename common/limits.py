"""Free memory, by every limit that can be read."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch

CONTROL_GROUPS = {  # controllers -> names of limit, use, and what could be freed
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def limits(device: torch.device) -> Iterator[tuple[str, int]]:
    """(name, free bytes) of every limit."""
    if device.type == "cuda":
        yield "the GPU", torch.cuda.mem_get_info(device)[0]
        return
    fields = numbers(Path("/proc/meminfo"))
    if "MemAvailable" in fields:
        yield "this machine", fields["MemAvailable"] * 1024
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):  # macOS reports only the total
        yield "this machine", os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield from control_group()
    yield from process_limits()


def control_group() -> Iterator[tuple[str, int]]:
    """The limits of the control groups of this process, version 1 or 2."""
    for line in read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in CONTROL_GROUPS:
            continue
        most, now, idle = CONTROL_GROUPS[controllers]
        here = Path("/sys/fs/cgroup", controllers, path.lstrip("/"))
        for folder in (here, *here.parents):
            limit, used = read(folder / most).strip(), read(folder / now).strip()
            if limit.isdigit() and used.isdigit():
                reclaimable = numbers(folder / "memory.stat").get(idle, 0)
                yield "the control group", max(0, int(limit) - int(used) + reclaimable)


def process_limits() -> Iterator[tuple[str, int]]:
    """RLIMIT_AS and RLIMIT_DATA, minus the use of this process."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has none
        return
    page = resource.getpagesize()
    pages = [int(word) for word in read(Path("/proc/self/statm")).split()] or [0] * 7
    for name, used in (("RLIMIT_AS", pages[0]), ("RLIMIT_DATA", pages[5])):
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            yield name, max(0, limit - used * page)


def numbers(path: Path) -> dict[str, int]:
    """The lines `name value` or `name: value kB` of a system file."""
    words = (line.replace(":", " ").split() for line in read(path).splitlines())
    return {row[0]: int(row[1]) for row in words if len(row) > 1 and row[1].isdigit()}


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
