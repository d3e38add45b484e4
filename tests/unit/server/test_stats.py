"""The stats table between its writer and its readers."""

import itertools
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefork._engine import LAYOUT
from prefork.agent.metrics import add_histogram, collect_requests
from prefork.agent.readiness import Readiness, find_liveness_fault
from prefork.agent.table import TableFile
from prefork.arbiter.fleet import Life, Phase
from prefork.base.log import Log
from prefork.base.stats import BOUNDS_US, CODES, COUNTERS, Table, UnknownTable, create_table


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stats"


@pytest.fixture
def writer(path: Path) -> Iterator[Table]:
    table, descriptor = create_table(path, worker_slots=4)
    yield table
    table.close()
    os.close(descriptor)


@pytest.fixture
def reader(path: Path, writer: Table) -> Iterator[Table]:
    table = Table.open(path)
    yield table
    table.close()


def occupy(table: Table, slot: int, *, life: Life = Life.SERVING, generation: int = 1) -> None:
    table.set_slot(slot, "worker_state", life.value)
    table.set_slot(slot, "slot_generation", generation)


def test_counters_of_a_dead_worker_stay_in_the_sums_and_its_slot_is_empty(
    writer: Table, reader: Table
):
    for slot in (1, 2):
        occupy(writer, slot)
        writer.set_slot(slot, "accepted", 10 * slot)
        writer.set_slot(slot, "requests", slot)
        writer.set_slot(slot, "in_flight", 1)
    assert reader.sum_counters()["accepted"] == [30]
    writer.free(2)
    assert reader.sum_counters()["accepted"] == [30]
    assert reader.sum_counters()["requests"][0] == 3
    assert reader.taken_slots() == [1]
    assert {reader.slot(2, name) for name in LAYOUT["slot"]} == {0}
    writer.free(1)
    assert reader.sum_counters()["accepted"] == [30]


def test_counters_never_go_back_while_workers_are_folded(writer: Table, reader: Table):
    stop = threading.Event()

    def fold_for_ever() -> None:
        while not stop.is_set():
            occupy(writer, 1)
            writer.set_slot(1, "accepted", 5)
            writer.set_slot(1, "requests", 5)
            writer.free(1)

    folding = threading.Thread(target=fold_for_ever)
    folding.start()
    seen = [reader.sum_counters()["accepted"][0] for _ in range(300)]
    stop.set()
    folding.join()
    assert seen == sorted(seen)
    assert reader.sum_counters()["accepted"] == [reader.sum_counters()["requests"][0]]


def test_counters_fit_into_a_slot_without_overlap():
    cells = sorted((LAYOUT["slot"][name], length) for name, length in COUNTERS.items())
    for (start, length), (following, _) in itertools.pairwise(cells):
        assert start + length <= following
    assert sum(cells[-1]) * 8 <= LAYOUT["slot_bytes"]


@pytest.mark.parametrize(("cell", "value"), [("magic", 1), ("version", 99)])
def test_table_of_another_version_is_refused(path: Path, writer: Table, cell: str, value: int):
    writer.set_header(cell, value)
    with pytest.raises(UnknownTable, match="this agent reads"):
        Table.open(path)


def test_file_that_is_no_table_is_refused(path: Path):
    path.write_bytes(struct.pack("<Q", LAYOUT["magic"]))
    with pytest.raises(UnknownTable, match="8 bytes long"):
        Table.open(path)


def test_new_table_of_a_restarted_server_is_found(path: Path, writer: Table):
    file = TableFile(path, Log())
    first = file.boot_id()
    assert first == writer.header("boot_id")
    other, descriptor = create_table(path, worker_slots=4)
    assert file.boot_id() == other.header("boot_id") != first
    path.unlink()
    assert file.get() is None
    other.close()
    os.close(descriptor)


def test_liveness_is_the_heartbeat(writer: Table):
    writer.beat(100.0)
    assert find_liveness_fault(writer, 109.0) == ""
    assert find_liveness_fault(writer, 111.0) == "the arbiter's last heartbeat is 11 s old"
    assert find_liveness_fault(None, 111.0) == ""


def test_readiness_bears_a_short_gap_and_no_long_one(writer: Table):
    readiness = Readiness()
    assert readiness.find_fault(None, 0) == "the server has not started"
    writer.beat(100.0)
    writer.set_header("workers_desired", 2)
    assert readiness.find_fault(writer, 100) == "the server is booting"
    writer.set_header("state", Phase.SERVING.value)
    writer.set_header("generation", 1)
    occupy(writer, 1)
    occupy(writer, 2, life=Life.BOOTING)
    assert readiness.find_fault(writer, 100) == "1 of 2 workers are ready"
    occupy(writer, 2)
    assert readiness.find_fault(writer, 101) == ""
    writer.free(2)
    assert readiness.find_fault(writer, 102) == ""
    assert readiness.find_fault(writer, 104) == "1 of 2 workers are ready"
    occupy(writer, 2)
    assert readiness.find_fault(writer, 105) == ""
    occupy(writer, 1, generation=2)
    occupy(writer, 2, generation=2)
    writer.free(1)
    writer.free(2)
    assert readiness.find_fault(writer, 105.1) == "0 of 2 workers are ready"
    writer.set_header("state", Phase.STOPPING.value)
    assert readiness.find_fault(writer, 105) == "the server is stopping"


def test_histograms_are_summed_up_to_each_bound():
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily("x", "help", labels=[])
    cells = [1, 2, *[0] * (len(BOUNDS_US) - 2), 4, 9_000_000]
    add_histogram(family, [], cells)
    values = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    assert values["0.001"] == 1
    assert values["0.0025"] == 3
    assert values["30.0"] == 3
    assert values["+Inf"] == values["x_count"] == 7
    assert values["x_sum"] == 9.0


def test_requests_are_named_by_method_and_code():
    sums = {name: [0] * length for name, length in COUNTERS.items()}
    sums["requests"][2 * len(CODES) + CODES.index("404")] = 7
    family = next(iter(collect_requests(sums)))
    assert [(s.labels, s.value) for s in family.samples] == [({"method": "POST", "code": "404"}, 7)]
