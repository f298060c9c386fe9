"""One thread: small tensors gain nothing from more, and tests may run side by side."""

from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """A run flushes them to 0 in its process; the next test has them back."""
    yield
    torch.set_flush_denormal(False)
