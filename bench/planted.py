"""Plants each error of `bench/planted/*.yaml` in a copy, and runs the tests that should see it."""

import ast
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common.errors import ConfigError  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from tools.shared import Keys, key, read_keys  # noqa: E402

USAGE = """\
usage: python bench/planted.py [only=WORDS] [file=NAME] [all=true] [jobs=N]
Plants each error of bench/planted/*.yaml, alone, and runs the tests that should detect it.
only=WORDS: errors whose name or file contains them. file=NAME: one list, e.g. file=learning.
all=true: the whole fast suite for errors that their tests do not detect.
jobs=N: number of errors at once, two by default, each in its own copy.
Exit code 1 if an error is not detected."""
LIMIT, SUITE = 300.0, 3600.0  # seconds of one error's tests, and of the fast suite
FAST = ("--ignore=tests/bench/test_planted.py", "-m", "not slow and not faults")
ENVIRONMENT = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Options(Keys):
    only: str = key("")
    file: str = key("*")
    all: bool = key(False)
    jobs: int = key(2, ge=1)


@dataclass(frozen=True)
class Plant:
    """One error: `find`, which occurs once in `file`, becomes `replace`."""

    name: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...] = ()
    equivalent: str = ""  # why nothing changes; such an error is not planted

    def apply(self, root: Path) -> str:
        """Plants it below `root`; returns the text of the file as it was."""
        text = (root / self.file).read_text(encoding="utf-8")
        if (count := text.count(self.find)) != 1:
            why = f"{self.file} has its text {count} times"
            raise ConfigError(f"{self.name}: {why}; correct the list")
        planted = text.replace(self.find, self.replace)
        if self.file.endswith(".py"):
            ast.parse(planted, self.file)
        (root / self.file).write_text(planted, encoding="utf-8")
        return text


def plants(name: str, words: str) -> list[Plant]:
    """Those of one list, or of all, whose name or file contains the words."""
    lists = [path.read_text(encoding="utf-8") for path in (ROOT / "bench/planted").glob(name)]
    found = [Plant(**entry) for text in sorted(lists) for entry in yaml.safe_load(text)]
    if not (found := [plant for plant in found if words in plant.name or words in plant.file]):
        raise ConfigError("only, file: no listed error has these words; leave them out")
    return found


def copy_to(root: Path) -> None:
    """The checkout's files as they are now, committed in a repository of their own."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(lambda name: (ROOT / name).is_file(), names.split("\0")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes((ROOT / name).read_bytes())
    author = ["-c", "user.name=planted", "-c", "user.email=planted@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-q", "-m", "copy"]):
        subprocess.run(["git", *command], cwd=root, check=True)


def run(root: Path, tests: list[str], limit: float) -> tuple[int, str]:
    """(exit code of pytest, the first test that failed)."""
    command = [sys.executable, "-m", "pytest", "-x", "-rfE", "--tb=no", *tests]
    try:
        done = subprocess.run(
            command, cwd=root, env=ENVIRONMENT, timeout=limit, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        return 1, f"no end after {limit:g} s"
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.M)
    return done.returncode, failed[1] if failed else done.stdout[-500:]


def seen(plant: Plant, root: Path, whole: bool) -> bool:
    """Plants one error in the copy at `root`, prints what its tests found, and takes it out."""
    began, text = time.monotonic(), plant.apply(root)
    code, failed = run(root, [*plant.tests], LIMIT) if plant.tests else (0, "")
    if code in (4, 5):  # pytest's
        raise ConfigError(f"{plant.name}: no such test, {failed}; correct the list")
    if not code and whole:
        code, failed = run(root, [*FAST], SUITE)
    (root / plant.file).write_text(text, encoding="utf-8")
    seconds = time.monotonic() - began
    print(f"{plant.name}: {failed if code else 'NOT SEEN'}, {seconds:.1f} s", flush=True)
    return bool(code)


def measure(arguments: list[str]) -> int:
    """Plants each error; 1 where one is not seen."""
    given, _ = read_keys(Options, arguments)
    chosen = plants(f"{given.file}.yaml", given.only)
    tried = [plant for plant in chosen if not plant.equivalent]
    copies = SimpleQueue[Path]()

    def try_one(plant: Plant) -> bool:
        root = copies.get()
        try:
            return seen(plant, root, given.all)
        finally:
            copies.put(root)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.jobs) as pool:
        for root in (Path(folder).resolve() / str(job) for job in range(given.jobs)):
            root.mkdir()
            copy_to(root)
            copies.put(root)
        code, failed = run(root, sorted({t for plant in tried for t in plant.tests}), SUITE)
        if code:
            raise ConfigError(f"tests: without an error, {failed} fails; fix that first")
        found = sum(pool.map(try_one, tried))
    print(f"{found} of {len(tried)} seen; {len(chosen) - len(tried)} change nothing")
    return 0 if found == len(tried) else 1


main = partial(tool, USAGE, measure, bare=True)

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
