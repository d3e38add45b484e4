"""Exemplars in the stats table: the newest of each bucket, never cells that do not belong together."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefork._engine import exemplar_check
from prefork.base import exemplars
from prefork.base.exemplars import Exemplar
from prefork.base.stats import Table, create_table, exemplar_place

from tests.unit.server.slots import occupy

FIRST, SECOND = "0af7651916cd43dd8448eb211c80319c", "b9c7c989f97918e1ed3ec1a1e7cb3f1d"


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    table, descriptor = create_table(tmp_path / "stats", worker_slots=2, keeps_exemplars=True)
    yield table
    table.close()
    os.close(descriptor)


def put(table: Table, slot: int, number: int, trace_id: str, time_us: int) -> None:
    """As an engine does it."""
    cells = int(trace_id[:16], 16), int(trace_id[16:], 16), 700, time_us
    at = number * exemplars.CELLS
    table._exemplars(slot)[at : at + 5] = memoryview(
        b"".join(cell.to_bytes(8, "little") for cell in (*cells, exemplar_check(*cells)))
    ).cast("Q")


def test_the_newest_of_all_workers_is_shown(table: Table) -> None:
    for slot in (1, 2):
        occupy(table, slot)
    put(table, 1, 0, FIRST, 2_000)
    put(table, 2, 0, SECOND, 1_000)
    put(table, 2, 118, SECOND, 1_000)
    assert table.exemplars() == {
        ("duration", 0): Exemplar(FIRST, 700, 2_000),
        ("response", 16): Exemplar(SECOND, 700, 1_000),
    }


def test_every_exemplar_has_a_place_of_its_own() -> None:
    places = [exemplar_place(number) for number in range(exemplars.EXEMPLARS)]
    assert len(set(places)) == len(places)
    assert {name for name, _ in places} == {"duration", "queue", "response"}
    # Not the cell of the sum.
    assert {cell % 18 for _, cell in places} == set(range(17))


@pytest.mark.parametrize("cell", range(5))
def test_cells_that_do_not_belong_together_are_no_exemplar(table: Table, cell: int) -> None:
    occupy(table, 1)
    put(table, 1, 3, FIRST, 2_000)
    table._exemplars(1)[3 * exemplars.CELLS + cell] += 1
    assert table.exemplars() == {}


def test_a_half_written_one_leaves_the_one_before(table: Table) -> None:
    for slot, time_us in ((1, 2_000), (2, 3_000)):
        occupy(table, slot)
        put(table, slot, 0, FIRST, time_us)
    table._exemplars(2)[0] ^= 1
    assert table.exemplars() == {("duration", 0): Exemplar(FIRST, 700, 2_000)}
    table.free(2)
    assert table.exemplars() == {("duration", 0): Exemplar(FIRST, 700, 2_000)}


def test_exemplars_of_a_dead_worker_stay_unless_there_are_newer_ones(table: Table) -> None:
    for trace_id, time_us in ((FIRST, 2_000), (SECOND, 1_000)):
        occupy(table, 1)
        put(table, 1, 0, trace_id, time_us)
        put(table, 1, int(trace_id == SECOND), trace_id, time_us)
        put(table, 1, 5, trace_id, time_us)
        table._exemplars(1)[5 * exemplars.CELLS] ^= 1  # killed while it wrote
        table.free(1)
        assert not any(table._exemplars(1))
    assert table.exemplars() == {
        ("duration", 0): Exemplar(FIRST, 700, 2_000),
        ("duration", 1): Exemplar(SECOND, 700, 1_000),
    }


def test_there_are_none_unless_there_is_room(writer: Table) -> None:
    occupy(writer, 1)
    assert writer.exemplars() == {}
    writer.free(1)
