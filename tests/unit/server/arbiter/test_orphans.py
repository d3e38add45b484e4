"""Children of an ended import are known by more than their pids."""

import signal
import subprocess

import pytest
from prefork.arbiter.orphans import Orphans
from prefork.arbiter.proc import Identity, identify


@pytest.mark.parametrize("is_later", [False, True], ids=["itself", "later one with its pid"])
def test_only_the_process_that_the_import_started_is_ended(is_later: bool):
    child = subprocess.Popen(["sleep", "600"])
    try:
        (found,) = identify([child.pid])
        orphans = Orphans()
        orphans.take([Identity(found.pid, found.started - 1) if is_later else found], 0.0)
        assert list(orphans.kill_at) == ([] if is_later else [child.pid])
        if not is_later:
            assert child.wait(60) == -signal.SIGTERM
        assert (child.poll() is None) == is_later
    finally:
        child.kill()
        child.wait()


def test_a_process_that_is_gone_is_nobody():
    child = subprocess.Popen(["true"])
    child.wait()
    assert identify([child.pid]) == ()
