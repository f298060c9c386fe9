"""One thread: small tensors gain nothing from more, and tests may run side by side.

Configurations are those of the project: files of one's own in `configs/` change no test.
"""

import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

import configs.files
from tests.tracked import copied, files

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests begin
os.environ |= {  # a checkout of another user's is no warning, whoever runs the tests
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
}
# pytest-xdist puts the checkout there, where a command would find modules that users' do not.
os.environ.pop("PYTHONPATH", None)


def pytest_configure(config: pytest.Config) -> None:
    """Composes from a copy of `configs/`, before any test asks what there is."""
    folder = TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    configs.files.DIRECTORY = copied(Path(folder.name), files("configs/**/*.yaml")) / "configs"
    configs.files.composed = remembering(configs.files.composed)
    configs.files.read_yaml = remembering(configs.files.read_yaml)
    os.fsync = unsynced
    os.getloadavg = lambda: (0.0, 0.0, 0.0)  # however busy the machine is, no test is told so


def unsynced(descriptor: int) -> None:
    """In place of `os.fsync`: no test cuts the power, and each save would wait a dozen times.

    What is synced, and in which order, is seen where this is called; killed runs do sync.
    """


def remembering(read: Any) -> Any:
    """Reads `configs/` once for the same arguments and files: most tests are faster."""
    known: dict[Any, Any] = {}

    def remembered(*given: Any, **options: Any) -> Any:
        folders = configs.files.folders()
        paths = sorted(path for folder in folders for path in folder.glob("**/*.yaml"))
        paths += [path for path in given if isinstance(path, Path) and path.is_file()]
        stats = [path.stat() for path in paths]
        state = tuple(
            (path, at.st_mtime_ns, at.st_size) for path, at in zip(paths, stats, strict=True)
        )
        key = state, repr((given, options))
        if key not in known:
            known[key] = read(*given, **options)
        return deepcopy(known[key])

    return remembered


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """A run flushes them to 0 in its process; the next test has them back."""
    yield
    torch.set_flush_denormal(False)
