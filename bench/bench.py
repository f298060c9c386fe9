"""Ours beside its peers, in one run: `python bench/bench.py`; --help lists comparisons and keys.

Prints a row of a Markdown table as each comparison ends; writes bench.json, report.md and pictures,
with write=true into docs/, too. Needs the extra `bench`; `make bench` installs it.
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import measure, report  # noqa: E402
from bench.comparisons import COMPARISONS, NAMES, ON_GPU  # noqa: E402
from bench.contestant import PEERS  # noqa: E402
from common.errors import ConfigError  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from storage import provenance, rundir  # noqa: E402
from tools.shared import Keys, described, key, new_folder, read_keys, save, table, table_row  # noqa: E402

PACKAGES = ("stable_baselines3", "sbx-rl", "jax", "flax", "optax")
INSTALL = 'pip install -c constraints.txt ".[bench]"'
REPEATED_RUNS = 3  # of a whole training run, for its memory
PUBLISHED = (
    "Every block is in [performance/bench.json](performance/bench.json). Measurements made once, "
    "such as the cost of each choice, are in [performance_once.md](performance_once.md). Other "
    "machines: [an Intel Xeon](performance_intel.md), [older AMD processors](performance_amd.md), "
    "[a GPU](performance_gpu.md).",
)


@dataclass(frozen=True)
class Options(Keys):
    """Keys of the command."""

    only: str = key("all", "comparisons, separated by commas; or all, but those on a GPU")
    blocks: int = key(7, "of each side of a comparison", ge=1, le=1000)
    seconds: float = key(3.0, "of a block, about", ge=0.01, le=600)
    seeds: int = key(5, "of each side of solve-cartpole and solve-pendulum", ge=1, le=1000)
    out: str = key("", "folder of the report; empty: runs/bench/<date-time>")
    write: bool = key(False, "write docs/performance.md, its blocks and its pictures, too")
    source: str = key("", "bench.json files, with commas, to report from them alone", name="from")

    @property
    def chosen(self) -> list[str]:
        """The names in `only`, in the order in which they are measured."""
        given = self.only.split(",")
        return [n for n in NAMES if n in given or ("all" in given and n not in ON_GPU)]

    @property
    def sources(self) -> list[str]:
        return [path for path in self.source.split(",") if path]

    def check(self) -> None:
        alone = self.only == "all" or "all" not in self.only.split(",")
        self.require(alone, "only", "all goes alone", "leave it or the others out")
        self.require_names("only", ["all", *NAMES])
        if self.source and self.only != "all":
            raise ConfigError("from: reports everything that was measured; leave only out")


def parse(arguments: list[str]) -> Options:
    """The options; raises ConfigError for an unknown key, or a value of a wrong type or range."""
    return read_keys(Options, arguments)[0]


def help_text() -> str:
    """All comparisons and keys."""
    lines = [
        "usage: python bench/bench.py [KEY=VALUE ...]\n",
        "  python bench/bench.py                         everything, most of an hour",
        "  python bench/bench.py only=sac256,startup     some of it",
        "  python bench/bench.py from=runs/bench/.../bench.json write=true",
        "      docs/performance.md from what was measured",
        "\ncomparisons:",
        *(f"  {name:<15} {comparison.title}" for name, comparison in COMPARISONS.items()),
        "  around          what a SAC step costs beside its update",
        "\nkeys:",
        *described(Options, 15),
    ]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    return tool(help_text(), run, arguments, bare=True)


def run(arguments: list[str]) -> int:
    """Measures or reads, then reports; returns 0."""
    options = parse(arguments)
    if options.sources:
        results = read(options.sources)
        folder = new_folder(options.out, "runs/bench")
    else:
        for module in needed(options.chosen):
            if importlib.util.find_spec(module) is None:
                raise ConfigError(f"bench: {module} is not installed; {INSTALL}")
        folder = new_folder(options.out, "runs/bench")
        results = everything(options, folder, arguments)
    rundir.write_json(folder / "bench.json", {"results": results})
    write(results, folder / "report.md", folder)
    print(f"\n{folder / 'report.md'}")
    if options.write:
        pictures = ROOT / "docs" / "performance"
        write(results, ROOT / "docs" / "performance.md", pictures, PUBLISHED)
        rundir.write_json(pictures / "bench.json", {"results": results})
        print("docs/performance.md, docs/performance/bench.json")
    return 0


def everything(options: Options, folder: Path, arguments: list[str]) -> dict[str, measure.Result]:
    """Measures what was chosen, prints a row after each, and saves."""
    print(f"{machine()}\n{report.versions(provenance.versions(*PACKAGES))}\n")
    print(table(report.HEADER, []), flush=True)
    results: dict[str, measure.Result] = {}
    for name in options.chosen:
        about = conditions(arguments)
        result = one(name, options)
        progress("")
        results[name] = {**result, "measured": about}
        rundir.write_json(folder / "bench.json", {"results": results})
        rows = [ratio.cells for ratio in report.ratios({name: results[name]})]
        rows = rows or [[name, "see the report", *[""] * (len(report.HEADER) - 2)]]
        print("\n".join(map(table_row, rows)), flush=True)
    return results


def one(name: str, options: Options) -> measure.Result:
    """Measures one comparison, or what surrounds an update."""

    def say(text: str) -> None:
        progress(f"{name}: {text}")

    if name == "around":
        return measure.around(say)
    comparison = COMPARISONS[name]
    if comparison.measure == "race":
        return {"sides": measure.race(comparison.sides, options.seeds, say)}
    if comparison.measure == "costs":
        rounds = min(options.blocks, REPEATED_RUNS) if name == "memory" else options.blocks
        return {"sides": measure.costs(comparison.sides, rounds, say)}
    return {"sides": measure.rates(comparison.sides, options.blocks, options.seconds, say)}


def needed(chosen: list[str]) -> list[str]:
    """The modules of the peers in these comparisons."""
    sides = [side for name in chosen if name in COMPARISONS for side in COMPARISONS[name].sides]
    libraries = {"SB3" if side.name == "SB3" else side.spec.get("library") for side in sides}
    return [module for name, module in PEERS.items() if name in libraries]


def progress(text: str) -> None:
    """One line on a terminal, over and over."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def conditions(arguments: list[str]) -> dict[str, Any]:
    """Under which conditions a result came about."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "command": shlex.join(["python", "bench/bench.py", *arguments]),
        "revision": provenance.revision(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,  # Windows has none
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


def read(paths: list[str]) -> dict[str, measure.Result]:
    """The results in these files; of one that is in several, the last."""
    results: dict[str, measure.Result] = {}
    for path in paths:
        try:
            held = json.loads(Path(path).read_text())["results"]
            report.markdown(held, {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ConfigError(
                f"from: {path} is no bench.json of this command, {error!r}; give one"
            ) from error
        results |= held
    return {name: results[name] for name in NAMES if name in results}


def write(
    results: dict[str, measure.Result], path: Path, pictures: Path, more: Sequence[str] = ()
) -> None:
    """The report at `path`, its pictures in the folder `pictures`; raises StorageFault."""
    from bench.pictures import draw

    drawn = draw(results)
    rundir.make_folder(pictures)
    for name, figure in drawn.items():
        save(figure, pictures / f"{name}.png")
    places = {name: str((pictures / f"{name}.png").relative_to(path.parent)) for name in drawn}
    rundir.write_text(path, report.markdown(results, places, more))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
