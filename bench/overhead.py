"""What logging and audits cost: `python bench/overhead.py env=pendulum agent=sac`.

Takes what `train.py` takes, trains with a clock around each log and each audit, and prints their
shares of the time of training. Evaluations and checkpoints are not counted on either side.
"""

import json
import runpy
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from configs.compose import quoted  # noqa: E402


def main(arguments: list[str]) -> int:
    """Trains once; returns the exit code of training."""
    if {"-h", "--help"} & {*arguments}:
        print(f"usage: python bench/overhead.py [KEY=VALUE ...]\n\n{__doc__}")
        return 0
    from runtime.logger import Logger
    from runtime.schedule import Schedule

    spent: dict[str, float] = defaultdict(float)
    for owner, method, name in (
        (Logger, "add", "logging"),
        (Schedule, "log", "logging"),
        (Schedule, "audit", "audits, the last one included"),
    ):
        timed(owner, method, name, spent)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        sys.argv = ["train.py", *arguments, f"run_dir={quoted(run_dir)}"]
        try:
            runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        except SystemExit as end:
            if end.code or not run_dir.exists():  # an error that has been told, or --help
                return int(end.code or 0)
        result = json.loads((run_dir / "result.json").read_text())
    training = result["steps"] / result["steps_per_second"]
    for name, seconds in spent.items():
        print(f"{name}: {seconds:.3f} s, {100 * seconds / training:.2f} % of {training:.1f} s")
    return 0


def timed(owner: Any, method: str, name: str, spent: dict[str, float]) -> None:
    """Lets `owner.method` add its seconds to spent[name]."""
    inner = getattr(owner, method)

    def outer(*given: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return inner(*given, **options)
        finally:
            spent[name] += time.perf_counter() - started

    setattr(owner, method, outer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
