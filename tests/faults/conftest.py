"""What every campaign starts its runs with."""

import pytest

from tests.faults.harness import Nursery


@pytest.fixture(scope="module")
def nursery():
    with Nursery() as made:
        yield made
