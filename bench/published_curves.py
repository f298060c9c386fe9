"""Make docs/learning/published/curves.csv: `python bench/published_curves.py CLONES > FILE`."""

import csv
import itertools
import re
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.errors import ConfigError
from runtime.launch.door import tool
from tools.comparison import interquartile_mean
from tools.published import FOLDER

USAGE = """\
usage: python bench/published_curves.py CLONES > docs/learning/published/curves.csv
CLONES is a folder with the repositories of sources.csv, each at the revision in its address."""
TASKS = ["HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid"]
APART, CLOSE = 10_000, 100_000  # evaluations so far apart up to here, then the nearest to
LATER = (150_000, 200_000, 300_000, 500_000, 1_000_000)
Returns = dict[str, dict[int, list[float]]]  # task -> step -> one of each seed


def returns(path: Path) -> Returns:
    """Of a file with a row for each evaluation, or of XuanCe's folder with a file for each seed."""
    found: Returns = defaultdict(lambda: defaultdict(list))
    for file in [path] if path.is_file() else sorted(path.glob("*/sac/results/*/*curve.csv")):
        task = file.relative_to(path).parts[0] if path.is_dir() else ""
        for row in csv.DictReader(file.read_text().splitlines()):
            if row.get("metric", "avg_return") == "avg_return":
                step = int(float(row.get("env_step") or row["step"]))
                value = row.get("value") or row["avg_return"]
                name = row.get("env_name", task).replace("_v", "-v")
                found[name][step].append(float(value))
    return found


def chosen(steps: list[int]) -> list[int]:
    """The steps that are kept, of all evaluations."""
    kept = [0]
    for step in steps:
        if kept[-1] + APART <= step <= CLOSE:
            kept.append(step)
    kept += [min(steps, key=lambda step: abs(step - later)) for later in LATER]
    return sorted({*kept[1:]})


def write(arguments: list[str]) -> int:
    """Writes the file to stdout."""
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["who", "task", "seeds", "step", "mean", "std", "iqm"])
    sources = list(csv.DictReader((FOLDER / "sources.csv").read_text().splitlines()))
    for source in sources:
        address = r"https://github.com/[^/]+/([^/]+)/[^/]+/[0-9a-f]{40}/(.+)"
        ((repository, path),) = re.findall(address, source["source"])
        at = Path(arguments[0]) / repository / path
        if not at.exists():
            raise ConfigError(f"{at}: is missing; clone {repository} there, see sources.csv")
        found = returns(at)
        for family, task in itertools.product(TASKS, found):
            if task.startswith(f"{family}-v"):
                most = max(map(len, found[task].values()))
                for step in chosen(sorted(found[task])):
                    seeds = np.array(found[task][step])
                    if len(seeds) == most:
                        figures = seeds.mean(), seeds.std(ddof=1), interquartile_mean([seeds])
                        out.writerow([source["who"], task, most, step, *map(round, figures)])
    return 0


main = partial(tool, USAGE, write)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
