"""What is the project's in a checkout, which is somebody's desk, too."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OTHERS = ("runs", "multirun", "build", "__pycache__")  # what .gitignore names, and what is hidden


@cache
def tracked(root: Path = ROOT) -> list[Path]:
    """The files that git has below `root`; without git all but those that it would not take."""
    if (root / ".git").exists():
        own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(["git", "ls-files", "-z"], cwd=root, env=own, capture_output=True)
        if done.returncode == 0 and done.stdout:
            names = os.fsdecode(done.stdout).split("\0")[:-1]
            return sorted(root / name for name in names if (root / name).is_file())
    found = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in OTHERS and name[0] != "."]
        found += [Path(folder, name) for name in names]
    return sorted(found)


def files(pattern: str) -> list[Path]:
    """Those of them that a pattern matches, such as docs/*.md."""
    return sorted({*ROOT.glob(pattern)} & {*tracked()})


def copied(target: Path, which: list[Path]) -> Path:
    """Copies files of the project, as they are now, to a place of their own."""
    for file in which:
        place = target / file.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, place)
    return target
