"""Which workers the arbiter finds stuck by itself: a real table, and the time as a number."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prefork.arbiter.events import Event, WorkerStuck
from prefork.arbiter.fleet import Worker
from prefork.arbiter.monitor import Watched, find_silent, find_unreported
from prefork.arbiter.workers import WorkerHandle
from prefork.base.log import Log
from prefork.base.stats import Table, WorkerState, create_table

TIMEOUT_S = 10.0


class Watch:
    """One serving worker, and the arbiter's looks at it."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.now = 1000.0
        self.log = Log(os.open(os.devnull, os.O_WRONLY))
        hook = cast(Any, SimpleNamespace(cfg=SimpleNamespace(timeout=TIMEOUT_S)))
        worker = Worker(
            id=1,
            slot=1,
            generation=1,
            state=WorkerState.SERVING,
            started=990.0,
            graceful_timeout=30.0,
        )
        handle = WorkerHandle(cast(Any, None), hook, slot=1, generation=1, ordered_at=990.0, pid=7)
        self.watched = Watched(worker, handle)

    def become(self, state: WorkerState) -> None:
        worker = self.watched.worker
        self.watched = Watched(
            Worker(
                id=1,
                slot=1,
                generation=1,
                state=state,
                started=worker.started,
                graceful_timeout=30.0,
            ),
            self.watched.handle,
        )

    def look(self, *, after_s: float, beats: bool = True, overdue: int = 0) -> list[Event]:
        self.now += after_s
        self.table.set_slot(1, "overdue", overdue)
        if beats:
            self.table.set_slot(1, "watchdog_us", int(self.now * 1e6))
        found = find_unreported([self.watched], self.table, self.log, self.now)
        return found + find_silent([self.watched], self.table, self.log, self.now)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    table, descriptor = create_table(tmp_path / "stats", worker_slots=2)
    it = Watch(table)
    yield it
    os.close(it.log.fd)
    table.close()
    os.close(descriptor)


def test_overdue_call_that_is_not_reported_makes_the_worker_stuck(watch: Watch):
    assert watch.look(after_s=0.5, overdue=1) == []
    assert watch.look(after_s=1.4, overdue=1) == []
    assert watch.look(after_s=0.2, overdue=1) == [WorkerStuck(1)]
    assert watch.watched.handle.is_unresponsive


def test_call_that_is_not_overdue_is_nobody_s_business_however_long_it_runs(watch: Watch):
    """The engine leaves out the time of the client; the arbiter cannot."""
    watch.table.set_slot(1, "in_flight", 1)
    watch.table.set_slot(1, "oldest_start_us", 1)
    assert [watch.look(after_s=0.5) for _ in range(200)] == [[]] * 200


def test_overdue_call_that_ends_counts_from_the_beginning(watch: Watch):
    assert watch.look(after_s=0.5, overdue=1) == []
    assert watch.look(after_s=1.4) == []
    assert watch.look(after_s=0.2, overdue=1) == []
    assert watch.look(after_s=1.4, overdue=1) == []


def test_worker_whose_watchdog_is_silent_longer_than_the_timeout_is_stuck(watch: Watch):
    watch.look(after_s=0.5)
    quiet = [watch.look(after_s=0.5, beats=False) for _ in range(20)]
    assert quiet == [[]] * 20
    assert watch.look(after_s=0.5, beats=False) == [WorkerStuck(1)]


def test_pause_of_the_arbiter_itself_is_not_the_worker_s_silence(watch: Watch):
    watch.look(after_s=0.5)
    assert watch.look(after_s=3600, beats=False) == []
    assert watch.look(after_s=0.5, beats=False) == []
    assert watch.look(after_s=0.5) == []


def test_worker_that_does_not_serve_yet_has_no_watchdog(watch: Watch):
    assert [watch.look(after_s=0.5, beats=False) for _ in range(100)] == [[]] * 100


@pytest.mark.parametrize("state", [WorkerState.BOOTING, WorkerState.STUCK])
def test_what_is_not_running_or_known_to_be_stuck_is_not_reported(watch: Watch, state: WorkerState):
    watch.look(after_s=0.5)
    watch.become(state)
    assert [watch.look(after_s=1, beats=False, overdue=1) for _ in range(60)] == [[]] * 60


def test_without_a_timeout_nothing_is_silent_too_long(watch: Watch):
    watch.watched.handle.hook.cfg.timeout = 0.0
    watch.look(after_s=0.5)
    assert [watch.look(after_s=1, beats=False) for _ in range(60)] == [[]] * 60
