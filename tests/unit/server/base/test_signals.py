"""Signals as the loop sees them."""

import os
import select
import signal

import pytest
from prefork.base.signals import SignalSocket

NUMBERS = (signal.SIGCHLD, signal.SIGTERM)


@pytest.fixture
def signals():
    before = {number: signal.getsignal(number) for number in NUMBERS}
    made = SignalSocket(NUMBERS)
    yield made
    made.close_in_child()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_after_hundreds_of_others_is_seen(signals: SignalSocket):
    for _ in range(2000):
        os.kill(os.getpid(), signal.SIGCHLD)
    os.kill(os.getpid(), signal.SIGTERM)
    assert select.select([signals], [], [], 0)[0]
    taken = signals.take()
    assert set(taken) == set(NUMBERS)
    assert taken[-1] == signal.SIGTERM


def test_each_signal_is_taken_once_and_wakes_again(signals: SignalSocket):
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.take() == [signal.SIGTERM]
    assert signals.take() == []
    assert not select.select([signals], [], [], 0)[0]
    os.kill(os.getpid(), signal.SIGCHLD)
    assert select.select([signals], [], [], 0)[0]
