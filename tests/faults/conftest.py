"""What every campaign starts its runs with, and holds them against."""

import pytest

from tests.faults.harness import Nursery, reference


@pytest.fixture(scope="session")
def nursery():
    with Nursery() as made:
        yield made


@pytest.fixture(scope="session")
def wholes(nursery, tmp_path_factory):
    """Of each run the uninterrupted one, made when first asked for."""
    folder, known = tmp_path_factory.mktemp("wholes"), {}

    def whole(*run):
        if run not in known:
            known[run] = reference(nursery, folder, *run)
        return known[run]

    return whole
