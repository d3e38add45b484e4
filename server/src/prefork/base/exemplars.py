"""Exemplars of the stats table: of each bucket of the histograms, the newest request with a trace.

Engines write them without a lock, and a worker may be killed while it does. The last cell of each is a check of the
others: cells that do not belong together are none. Knows one slot's cells; where they are is `stats`' business.
"""

from collections.abc import Sequence
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


def read_newest(slots: Sequence[memoryview]) -> dict[int, Exemplar]:
    """Return the newest exemplar of each bucket over these slots, by its number."""
    newest: dict[int, Exemplar] = {}
    for number, times_us in enumerate(zip(*(times(cells) for cells in slots), strict=True)):
        left = list(times_us)
        while any(left):
            slot = left.index(max(left))
            if (found := read(slots[slot], number)) is not None:
                newest[number] = found
                break
            left[slot] = 0  # half written: the next newest
    return newest


def times(cells: memoryview) -> list[int]:
    """Return when each exemplar of a slot was written, 0 for none."""
    found: list[int] = cells[TIME::CELLS].tolist()
    return found


def fold(source: memoryview, target: memoryview) -> None:
    """Keep a slot's exemplars in another one where they are newer than its own, and clear the slot."""
    for number, (theirs, ours) in enumerate(zip(times(source), times(target), strict=True)):
        is_newer = theirs > ours or read(target, number) is None
        if is_newer and read(source, number) is not None:
            at = number * CELLS
            target[at : at + CELLS] = source[at : at + CELLS]
    for at in range(len(source)):
        source[at] = 0
