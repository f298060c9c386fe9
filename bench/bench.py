"""Ours beside its peers, in one run: `python bench/bench.py`; --help lists comparisons and keys.

Prints a row of a Markdown table as each comparison ends; writes bench.json and report.md, and with
write=true docs/performance.md. Needs the extra `bench`; `make bench` installs it.
"""

import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import report  # noqa: E402
from bench.contestant import PEERS  # noqa: E402
from bench.measure import COMPARISONS, Result, measured  # noqa: E402
from common.errors import ConfigError  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from storage import provenance, rundir  # noqa: E402
from tools.shared import Keys, key, new_folder, read_keys, table, table_row  # noqa: E402

PACKAGES = ("stable_baselines3", "sbx-rl", "jax", "flax", "optax")
INSTALL = 'pip install -c constraints.txt ".[bench]"'
KEPT = ROOT / "docs" / "performance" / "bench.json"  # all that docs/performance.md has
PUBLISHED = (
    "Up to revision da5fa3d one process of each side stayed warm and waited for its turns; while "
    "waiting, none used more than 11.1 ms of a processor a round.",
    "Every block is in [performance/bench.json](performance/bench.json). Measurements made once, "
    "such as the cost of each choice and the time to a solved task, are in "
    "[performance_once.md](performance_once.md). Other machines: "
    "[an Intel Xeon](performance_intel.md), [older AMD processors](performance_amd.md), "
    "[a GPU](performance_gpu.md).",
)


TITLES = "\n".join(f"  {name:<15} {one.title}" for name, one in COMPARISONS.items())
USAGE = f"""\
usage: python bench/bench.py [only=NAME,...] [blocks=7] [seconds=3] [out=FOLDER] [write=true]
Measures all comparisons but those on a GPU, most of an hour, or those that are named (or none).
blocks=N: of each side of a comparison, of about seconds=S where a rate is measured.
write=true: replaces in docs/performance.md what is measured, too.
comparisons:
{TITLES}"""


@dataclass(frozen=True)
class Options(Keys):
    only: str = key(",".join(name for name, one in COMPARISONS.items() if not one.on_gpu))
    blocks: int = key(7, ge=1, le=1000)
    seconds: float = key(3.0, ge=0.01, le=600)
    out: str = key("")
    write: bool = key(False)

    def check(self) -> None:
        self.require_names("only", ["none", *COMPARISONS])


def run(arguments: list[str]) -> int:
    """Measures, prints a row of each ratio, and reports; returns 0."""
    options = read_keys(Options, arguments)[0]
    chosen = [name for name in COMPARISONS if name in options.only.split(",")]
    for module in needed(chosen):
        if importlib.util.find_spec(module) is None:
            raise ConfigError(f"bench: {module} is not installed; {INSTALL}")
    folder = new_folder(options.out, "runs/bench")
    print(f"{machine()}\n{report.versions(provenance.versions(*PACKAGES))}\n")
    print(table(report.HEADER, []), flush=True)
    results: dict[str, Result] = {}
    for name in chosen:
        about, comparison = conditions(arguments), COMPARISONS[name]
        sides = measured(comparison, options.blocks, options.seconds)
        results[name] = {"sides": sides, "measured": about}
        rundir.write_json(folder / "bench.json", {"results": results})
        print(*map(table_row, report.ratios({name: results[name]})), sep="\n", flush=True)
    rundir.write_text(folder / "report.md", report.markdown(results))
    print(f"\n{folder / 'report.md'}")
    if options.write:
        results = json.loads(KEPT.read_text())["results"] | results
        ordered = {name: results[name] for name in COMPARISONS if name in results}
        rundir.write_json(KEPT, {"results": ordered})
        page = report.markdown(ordered, PUBLISHED)
        rundir.write_text(ROOT / "docs" / "performance.md", page)
        print("docs/performance.md, docs/performance/bench.json")
    return 0


def needed(chosen: list[str]) -> list[str]:
    """The modules of the peers in these comparisons."""
    specs = [spec for name in chosen for spec in COMPARISONS[name].sides.values()]
    libraries = {spec.get("library", "SB3") for spec in specs if "overrides" not in spec}
    return [module for name, module in PEERS.items() if name in libraries]


def conditions(arguments: list[str]) -> dict[str, Any]:
    """Under which conditions a result came about."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "command": shlex.join(["python", "bench/bench.py", *arguments]),
        "revision": provenance.revision(),
        "load": os.getloadavg()[0],
        "machine": machine(),
        "versions": provenance.versions(*PACKAGES),
    }


def machine() -> str:
    """Kind of processor, the cores that this process may use, and every GPU of NVIDIA's driver."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.*)", info.read_text() if info.exists() else "", re.M)
    kind = found[1].strip() if found else "unknown processor"
    gpus = []
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        gpus = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return ", ".join([f"{kind} ({platform.machine()})", f"{cores} cores", *gpus])


main = partial(tool, USAGE, run, bare=True)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
