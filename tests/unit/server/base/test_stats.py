"""The stats table between its writer and its readers."""

import itertools
import struct
import threading
from pathlib import Path

import pytest
from prefork._engine import LAYOUT
from prefork.base.stats import (
    COUNTERS,
    Table,
    UnknownTable,
)

from tests.unit.server.slots import occupy


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
