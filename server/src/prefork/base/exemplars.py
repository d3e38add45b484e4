"""Exemplars of the stats table: of each bucket of the histograms, the newest request with a trace.

Engines write them without a lock, and a worker may be killed while it does. The last cell of each is a check of the
others: cells that do not belong together are none. Knows one slot's cells; where they are is `stats`' business.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from prefork._engine import LAYOUT, exemplar_check

EXEMPLARS: int = LAYOUT["exemplars"]
CELLS: int = LAYOUT["exemplar_cells"]
SLOT_CELLS = EXEMPLARS * CELLS
TIME = 3  # which of an exemplar's cells


class Exemplar(NamedTuple):
    """A request that fell into a bucket; `time_us` since 1970."""

    trace_id: str
    value_us: int
    time_us: int


def read(cells: memoryview, number: int) -> Exemplar | None:
    """Return one exemplar of a slot; None where there is none, or its cells do not belong together."""
    high, low, value_us, time_us, check = cells[number * CELLS : (number + 1) * CELLS].tolist()
    if not time_us or exemplar_check(high, low, value_us, time_us) != check:
        return None
    return Exemplar(f"{high:016x}{low:016x}", value_us, time_us)


def read_newest(slots: Iterable[memoryview]) -> dict[int, Exemplar]:
    """Return the newest exemplar of each bucket over these slots, by its number."""
    newest: dict[int, Exemplar] = {}
    for cells in slots:
        for number in newer_than(newest, cells):
            if (found := read(cells, number)) is not None:
                newest[number] = found
    return newest


def newer_than(known: Mapping[int, Exemplar], cells: memoryview) -> Iterator[int]:
    """Yield the buckets of which a slot has an exemplar that is newer than the known one."""
    for number, time_us in enumerate(cells[TIME::CELLS].tolist()):
        if time_us and (number not in known or known[number].time_us < time_us):
            yield number


def fold(source: memoryview, target: memoryview) -> None:
    """Keep a slot's exemplars in another one where they are newer there than its own, and clear the slot."""
    kept = read_newest([target])
    for number in list(newer_than(kept, source)):
        at = number * CELLS
        if read(source, number) is not None:
            target[at : at + CELLS] = source[at : at + CELLS]
    for at in range(len(source)):
        source[at] = 0
