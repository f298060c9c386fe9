"""Ours beside its peers, in one run: `python bench/bench.py`; --help lists comparisons and keys.

Prints a row of a Markdown table as each comparison ends; writes bench.json, report.md and pictures,
with write=true into docs/, too. Needs the extra `bench`; `make bench` installs it.
"""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.benchmark import measure, peers, races, report, settings, studies
from bench.benchmark.comparisons import COMPARISONS, STUDIES
from bench.benchmark.ratios import HEADER, compare, line
from common.errors import ConfigError, StorageFault, remedy
from runtime.launch.door import guarded
from storage import provenance, rundir

ROOT = measure.ROOT
PACKAGES = ("stable_baselines3", "sbx-rl", "jax", "flax", "optax")
REPEATED_RUNS = 3  # of a whole training run, for its memory
PUBLISHED = (
    "Every block is in [performance/bench.json](performance/bench.json). Other machines: [an Intel "
    "Xeon](performance_intel.md), [older AMD processors](performance_amd.md), [a GPU]"
    "(performance_gpu.md).",
)


def main(arguments: list[str]) -> int:
    """The command; returns its exit code."""
    return guarded(lambda: run(arguments), arguments)


def run(arguments: list[str]) -> int:
    """Measures or reads, then reports; returns 0."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(settings.help_text())
        return 0
    options = settings.parse(arguments)
    if options.sources:
        results = read(options.sources)
        folder = make_folder(options.out)
    else:
        peers.require(*needed(options.chosen))
        folder = make_folder(options.out)
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


def everything(
    options: settings.Options, folder: Path, arguments: list[str]
) -> dict[str, measure.Result]:
    """Measures what was chosen, says so as it goes, and saves after each."""
    print(f"{machine()}\n{report.versions(provenance.versions(*PACKAGES))}\n")
    print("\n".join(line(cells) for cells in [HEADER, ["---"] * len(HEADER)]), flush=True)
    results: dict[str, measure.Result] = {}
    for name in options.chosen:
        about = measured(arguments)
        result = one(name, options)
        progress("")
        results[name] = {**result, "measured": about}
        rundir.write_json(folder / "bench.json", {"results": results})
        if name in COMPARISONS:
            rows = [ratio.cells for ratio in compare(name, COMPARISONS[name], result["sides"])]
        else:
            rows = [[name, "see the report", *[""] * (len(HEADER) - 2)]]
        print("\n".join(line(cells) for cells in rows), flush=True)
    return results


def one(name: str, options: settings.Options) -> measure.Result:
    """Measures one comparison or study."""

    def say(text: str) -> None:
        progress(f"{name}: {text}")

    if name in STUDIES:
        if name == "profile":
            return studies.profile(say)
        study = getattr(studies, name)
        return study(max(1, options.blocks // 2), min(options.seconds, 1.0), say)
    comparison = COMPARISONS[name]
    if comparison.measure == "race":
        return {"sides": races.race(comparison.sides, options.seeds, say)}
    if comparison.measure == "costs":
        rounds = min(options.blocks, REPEATED_RUNS) if name == "memory" else options.blocks
        return {"sides": measure.costs(comparison.sides, rounds, say)}
    return {"sides": measure.rates(comparison.sides, options.blocks, options.seconds, say)}


def needed(names: list[str]) -> list[str]:
    """The modules of the peers in these comparisons."""
    sides = [side for name in names if name in COMPARISONS for side in COMPARISONS[name].sides]
    libraries = {"SB3" if side.name == "SB3" else side.spec.get("library") for side in sides}
    return [module for name, module in peers.MODULES.items() if name in libraries]


def progress(text: str) -> None:
    """One line on a terminal, over and over."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def measured(arguments: list[str]) -> dict[str, Any]:
    """Under which conditions a result came about."""
    command = shlex.join(["python", "bench/bench.py", *arguments])
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # Windows has none
    return {"date": time.strftime("%Y-%m-%d %H:%M"), "command": command,
            "revision": provenance.revision(), "load": load, "machine": machine(),
            "versions": provenance.versions(*PACKAGES)}  # fmt: skip


def machine() -> str:
    """Kind of processor, and the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    kind = names[0] if names else "unknown processor"
    return ", ".join([f"{kind} ({platform.machine()})", f"{cores} cores", *gpus()])


def gpus() -> list[str]:
    """The name of every GPU that NVIDIA's driver tells of."""
    if shutil.which("nvidia-smi") is None:
        return []
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()


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
    order = [*COMPARISONS, *STUDIES]
    return {name: results[name] for name in order if name in results}


def make_folder(out: str) -> Path:
    """A new folder; a taken name gets a suffix."""
    return rundir.make_new(Path(out), "out") if out else rundir.make_by_time(Path("runs/bench"))


def write(
    results: dict[str, measure.Result], path: Path, pictures: Path, more: Sequence[str] = ()
) -> None:
    """The report at `path`, its pictures in the folder `pictures`; raises StorageFault."""
    from bench.benchmark.pictures import draw

    drawn = draw(results)
    try:
        pictures.mkdir(exist_ok=True)
        for name, figure in drawn.items():
            figure.savefig(pictures / f"{name}.png")
    except OSError as error:
        raise StorageFault(f"{pictures}: cannot be written, {error}; {remedy(error)}") from error
    places = {name: (pictures / f"{name}.png").relative_to(path.parent) for name in drawn}
    shown = {name: str(at) for name, at in places.items()}
    rundir.write_text(path, report.markdown(results, shown, more))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
