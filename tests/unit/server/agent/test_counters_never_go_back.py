"""Whatever happens to workers, server and agent, and whenever a scrape comes: no counter goes back."""

import itertools
import os
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefork.agent.metrics import TableCollector
from prefork.agent.table import TableFile
from prefork.base.log import Log
from prefork.base.run_dir import RunDir
from prefork.base.stats import COUNTERS, HEADER_COUNTERS, Table, WorkerState, create_table

from tests.unit.server.slots import occupy

SLOTS = 4
STEPS = 1500
BOUNDS_US = (1_000, 50_000, 1_000_000)
Key = tuple[str, tuple[tuple[str, str], ...]]


class Server:
    """An arbiter and its workers as far as the table knows them: real cells, random events."""

    def __init__(self, run_dir: RunDir, choose: random.Random) -> None:
        self.run_dir = run_dir
        self.choose = choose
        self.table, self.descriptor = self.start()

    def start(self) -> tuple[Table, int]:
        return create_table(
            self.run_dir.stats,
            worker_slots=SLOTS,
            bounds_us=BOUNDS_US,
            previous=self.run_dir.stats_of_last_run,
        )

    def worker_boots(self) -> None:
        slot = self.choose.randint(1, SLOTS)
        if not self.table.slot(slot, "worker_state"):
            occupy(self.table, slot, state=WorkerState.SERVING)
            self.table.add_header("boot_count")

    def worker_counts(self) -> None:
        for slot in self.table.taken_slots():
            at = self.table._at(slot, self.choose.choice(list(COUNTERS)))
            for _ in range(20):
                self.table._cells[at] += self.choose.randint(1, 1000)

    def worker_dies(self) -> None:
        for slot in self.table.taken_slots()[:1]:
            self.table.add_header("exits_killed")
            self.table.free(slot)

    def reloads(self) -> None:
        for slot in self.table.taken_slots():
            self.table.free(slot)
        self.table.add_header(self.choose.choice(["reloads_ok", "reloads_failed"]))

    def is_killed_and_started(self) -> None:
        self.leave()
        self.table, self.descriptor = self.start()

    def ends_and_starts(self) -> None:
        self.leave()
        self.run_dir.remove(keeps_counters=True)
        self.table, self.descriptor = self.start()

    def leave(self) -> None:
        self.table.close()
        os.close(self.descriptor)


class Scraper:
    """An agent that is scraped without a pause, and started anew now and then."""

    def __init__(self, path: Path, choose: random.Random) -> None:
        self.path = path
        self.choose = choose
        self.seen: dict[Key, float] = {}
        self.scrapes = 0
        self.went_back: list[str] = []

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            # A new agent remembers nothing.
            collector = TableCollector(TableFile(self.path, Log()), lambda _: None, version="1")
            for _ in range(self.choose.randint(1, 5)):
                self.scrape(collector)

    def scrape(self, collector: TableCollector) -> None:
        self.scrapes += 1
        for family in collector.collect():
            if family.type not in ("counter", "histogram", "summary"):
                continue
            for sample in family.samples:
                key = sample.name, tuple(sorted(sample.labels.items()))
                if sample.value < self.seen.get(key, 0.0):
                    self.went_back.append(f"{key}: {self.seen[key]} → {sample.value}")
                self.seen[key] = sample.value


@contextmanager
def hasty_threads() -> Iterator[None]:
    """Let threads change places in the middle of everything."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("seed", range(5))
def test_counters_never_go_back_whatever_happens(seed: int, tmp_path: Path) -> None:
    choose = random.Random(seed)
    server = Server(RunDir(tmp_path, is_private=False), choose)
    scraper = Scraper(tmp_path / "stats", random.Random(seed))
    stop = threading.Event()
    thread = threading.Thread(target=scraper.run, args=(stop,))
    events = [server.worker_boots] * 6 + [server.worker_counts] * 6 + [server.worker_dies] * 3
    events += [server.reloads, server.is_killed_and_started, server.ends_and_starts]
    with hasty_threads():
        thread.start()
        for step in itertools.count():
            choose.choice(events)()
            if step >= STEPS and scraper.scrapes > 10:
                break
        stop.set()
        thread.join()
    server.leave()
    assert scraper.went_back == []
    assert sum(scraper.seen.values()) > 0


def test_other_buckets_begin_anew(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path, is_private=False)
    server = Server(run_dir, random.Random(0))
    server.table.set_header("reloads_ok", 3)
    server.leave()
    for bounds_us, kept in ((BOUNDS_US, 3), ((1_000,), 0)):
        table, descriptor = create_table(run_dir.stats, worker_slots=SLOTS, bounds_us=bounds_us)
        assert table.header("reloads_ok") == kept
        table.close()
        os.close(descriptor)


def test_every_counter_of_the_header_goes_on(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path, is_private=False)
    server = Server(run_dir, random.Random(0))
    for number, name in enumerate(HEADER_COUNTERS):
        server.table.set_header(name, number + 1)
    server.ends_and_starts()
    assert [server.table.header(name) for name in HEADER_COUNTERS] == [
        number + 1 for number in range(len(HEADER_COUNTERS))
    ]
    server.leave()
