"""A deadline in this process holds whatever runs in it."""

import os
import time

import pytest

from common.errors import EnvironmentFault
from envs.deadline import within

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs the system's timer")


def test_what_catches_it_meets_it_again():
    """As an environment may that tries once more, whatever went wrong."""

    def stubborn():
        with within(0.1, "Stubborn-v0", "here"):
            try:
                time.sleep(20.0)
            except EnvironmentFault:
                time.sleep(20.0)

    began = time.monotonic()
    with pytest.raises(EnvironmentFault, match=r"has not answered for 0\.1 s here"):
        stubborn()
    assert time.monotonic() - began < 10.0


def test_what_is_in_time_hears_nothing_of_it():
    with within(0.1, "Quick-v0", "here"):
        pass
    time.sleep(0.3)
