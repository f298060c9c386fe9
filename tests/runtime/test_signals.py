"""A second signal ends a run at once; what only comes twice is no second one."""

import os
import signal
from contextlib import suppress

import pytest

import train
from common.errors import Halt, Stopped
from configs.compose import train_config
from runtime.launch import signals
from runtime.launch.ranks import Ranks
from runtime.launch.signals import Stop, passing_on


class Ended(BaseException):
    """In place of the end of the process."""


@pytest.mark.parametrize("passed_on", [False, True])
@pytest.mark.parametrize("after", [0.0, 0.5, 1.5])
def test_what_a_parent_passes_on_is_no_second_signal(after, passed_on, monkeypatch):
    def end(code):
        raise Ended(code)

    now = [100.0]
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    if passed_on:
        monkeypatch.setattr(os, "environ", passing_on())
    stop = Stop()
    stop.note(signal.SIGINT, None)
    now[0] += after
    if passed_on and after < 1.0:
        stop.note(signal.SIGTERM, None)
    else:
        with pytest.raises(Ended, match="143"):
            stop.note(signal.SIGTERM, None)
    with pytest.raises(Stopped, match="interrupted: by SIGINT") as caught:
        stop.check()
    assert caught.value.code == 130


def test_an_import_that_a_signal_breaks_off_is_no_failure(monkeypatch):
    stop = Stop()

    def learn(*_):
        with suppress(Halt):  # as a library does
            stop.note(signal.SIGINT, None)
        raise ImportError("cannot load module more than once per process")

    monkeypatch.setattr(train, "learn", learn)
    with pytest.raises(Stopped, match="interrupted: by SIGINT"):
        train.run(train_config([]), stop)


@pytest.mark.parametrize(("own", "others", "code"), [(0, 0, None), (75, 0, 75), (0, 130, 130)])
def test_all_ranks_stop_where_a_signal_came_to_one(own, others, code):
    class Two(Ranks):
        def most(self, number):
            return max(number, others)

    stop, ranks = Stop(), Two(0, 2)
    stop.noted = Stopped("stopped: by a test; go on", own) if own else None
    stop.hold(ranks.size)
    if own:
        stop.note(signal.SIGTERM, None)  # as torchrun passes it on: it does not end the process
    if code is None:
        ranks.check(stop)
        return
    with pytest.raises(Stopped) as raised:
        ranks.check(stop)
    assert raised.value.code == code
    assert ("another rank" in str(raised.value)) == (not own)
