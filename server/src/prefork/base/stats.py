"""The stats table: created and written by the arbiter, counted into by engines, read by the agent.

Where each cell is, the engine alone declares (`LAYOUT`). Cells are u64, aligned; assigning through
`memoryview.cast("Q")` stores a cell whole, so a reader in another process never sees half a number.
"""

import enum
import json
import mmap
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from prefork._engine import LAYOUT
from prefork.base import exemplars
from prefork.base.exemplars import Exemplar
from prefork.errors import Exit, StartupError

METHODS: tuple[str, ...] = tuple(LAYOUT["methods"])
CODES: tuple[str, ...] = tuple(LAYOUT["codes"])
BOUNDS_MAX: int = LAYOUT["bounds_max"]
# Buckets, the overflow bucket, the sum in microseconds.
HISTOGRAM_CELLS = BOUNDS_MAX + 2
# A bound that is not used: everything is below it.
NO_BOUND = 2**64 - 1
CODE_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")

# Counters of a slot and their number of cells; the other cells are gauges or the arbiter's own.
COUNTERS = {
    "requests": len(METHODS) * len(CODES),
    "duration": len(CODE_CLASSES) * HISTOGRAM_CELLS,
    "queue": HISTOGRAM_CELLS,
    "response": HISTOGRAM_CELLS,
    "busy_us": 1,
    "timeouts": 1,
    "rejects": 1,
    "bytes_in": 1,
    "bytes_out": 1,
    "disconnects": 1,
    "accepted": 1,
    "handed_over": 1,
    "probes": 1,
}

# Cells of the header that only grow.
HEADER_COUNTERS = (
    "reloads_ok", "reloads_failed", "exits_crash", "exits_timeout", "exits_memory", "exits_max_requests",
    "exits_retired", "exits_killed", "listen_overflows", "listen_drops", "boot_us_sum", "boot_count",
)  # fmt: skip

RETIRED_SLOT = 0
HEADER_CELLS = LAYOUT["header_bytes"] // 8
SLOT_CELLS = LAYOUT["slot_bytes"] // 8


class ServerState(enum.Enum):
    """State of the server as a whole; the values are the cell `state` of the stats table."""

    BOOTING = 0
    SERVING = 1
    STOPPING = 2


class WorkerState(enum.Enum):
    """State of a worker; the values are the cell `worker_state` of the stats table."""

    BOOTING = 1
    SERVING = 2
    DRAINING = 3
    STUCK = 4


class ExitReason(enum.Enum):
    """Why a worker left; the values complete the header cells `exits_…`."""

    CRASH = "crash"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    MAX_REQUESTS = "max_requests"
    RETIRED = "retired"
    KILLED = "killed"


class UnknownTable(Exception):  # noqa: N818 - the other side's version
    """The file is not a stats table of this version."""


class Table:
    """The mapped table; cells by name.

    One writer per cell: the arbiter for the header and what it knows about a worker, the worker's
    engine for the rest of its slot.
    """

    def __init__(self, descriptor: int, size: int, *, writable: bool) -> None:
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self._map = mmap.mmap(descriptor, size, access=access)
        self._bytes = memoryview(self._map)
        self._cells = self._bytes.cast("Q")

    @classmethod
    def open(cls, path: Path) -> "Table":
        """Map an existing table for reading.

        Raises OSError when there is none, UnknownTable when it is another version's.
        """
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < LAYOUT["header_bytes"] + LAYOUT["slot_bytes"]:
                raise UnknownTable(f"{path} is {size} bytes long, too short for a stats table")
            table = cls(file.fileno(), size, writable=False)
        found = table.header("magic"), table.header("version")
        wanted = LAYOUT["magic"], LAYOUT["version"]
        if found != wanted:
            table.close()
            raise UnknownTable(f"{path} has (magic, version) {found}; this agent reads {wanted}")
        return table

    def close(self) -> None:
        self._cells.release()
        self._bytes.release()
        self._map.close()

    # -- header ---------------------------------------------------------------------------

    def header(self, name: str) -> int:
        return self._cells[LAYOUT["header"][name]]

    def set_header(self, name: str, value: int) -> None:
        self._cells[LAYOUT["header"][name]] = value

    def add_header(self, name: str, amount: int = 1) -> None:
        self._cells[LAYOUT["header"][name]] += amount

    @property
    def bounds_us(self) -> list[int]:
        """The upper bounds of the histogram buckets, in microseconds, without the one of all others."""
        start = LAYOUT["header"]["bounds_us"]
        return [b for b in self._cells[start : start + BOUNDS_MAX].tolist() if b != NO_BOUND]

    def set_bounds(self, bounds_us: Iterable[int]) -> None:
        """Set the bounds of all histograms; before anyone counts."""
        start, bounds = LAYOUT["header"]["bounds_us"], list(bounds_us)
        for at in range(BOUNDS_MAX):
            self._cells[start + at] = bounds[at] if at < len(bounds) else NO_BOUND

    def content(self) -> dict[str, str]:
        """Return the digest of each content that is served, by its name."""
        for _ in range(1000):
            before = self.header("content_seq")
            found = bytes(self._content()).partition(b"\0")[0]
            if before % 2 == 0 and self.header("content_seq") == before:
                return dict(json.loads(found or b"{}"))
            time.sleep(0)  # let the arbiter finish
        return {}  # it died while it wrote

    def set_content(self, content: Mapping[str, str]) -> None:
        """Publish the digests of what is served; those that find no room are left out."""
        shown = dict(sorted(content.items()))
        while len(text := json.dumps(shown).encode()) >= LAYOUT["content_bytes"]:
            shown.popitem()
        self.add_header("content_seq")
        self._content()[: len(text) + 1] = text + b"\0"
        self.add_header("content_seq")

    def _content(self) -> memoryview:
        start = LAYOUT["header"]["content"] * 8
        return self._bytes[start : start + LAYOUT["content_bytes"]]

    def beat(self, now: float) -> None:
        """Record that the arbiter is alive; `now` in seconds of the monotonic clock."""
        self.set_header("heartbeat_us", int(now * 1e6))

    # -- slots ----------------------------------------------------------------------------

    def slot(self, slot: int, name: str) -> int:
        return self._cells[self._at(slot, name)]

    def set_slot(self, slot: int, name: str, value: int) -> None:
        self._cells[self._at(slot, name)] = value

    def count_requests(self, slot: int) -> int:
        """Return how many requests the worker of a slot has answered."""
        at = self._at(slot, "requests")
        return sum(self._cells[at : at + COUNTERS["requests"]])

    def running(self, slot: int) -> list[str]:
        """Return method and target of the calls that run in the worker of a slot, those of its first 16 threads.

        Also when the worker is dead, as long as its slot is not freed.
        """
        size = LAYOUT["line_bytes"]
        at = self._at(slot, "lines") * 8
        lines = [
            bytes(self._bytes[at + n * size : at + (n + 1) * size]) for n in range(LAYOUT["lines"])
        ]
        return [line.partition(b"\0")[0].decode("latin-1") for line in lines if line[0]]

    def taken_slots(self) -> list[int]:
        """Return the slots of living workers. Only their first page is touched: the file is sparse."""
        return [
            slot for slot in range(1, self.header("slots") + 1) if self.slot(slot, "worker_state")
        ]

    def free(self, slot: int) -> None:
        """Fold the counters of a worker that is gone into slot 0, and clear its slot.

        Between the two additions of `fold_seq` the sums are wrong; it is odd then, readers retry.
        """
        self.add_header("fold_seq")
        for name, length in COUNTERS.items():
            source, target = self._at(slot, name), self._at(RETIRED_SLOT, name)
            for cell in range(length):
                if self._cells[source + cell]:
                    self._cells[target + cell] += self._cells[source + cell]
        start = self._at(slot)
        self._bytes[start * 8 : (start + SLOT_CELLS) * 8] = bytes(SLOT_CELLS * 8)
        self.add_header("fold_seq")
        if self.header("exemplars_at"):
            exemplars.fold(self._exemplars(slot), self._exemplars(RETIRED_SLOT))

    def exemplars(self) -> dict[tuple[str, int], Exemplar]:
        """Return the newest exemplar of each bucket, by the name of its histogram's cells and its cell in them."""
        if not self.header("exemplars_at"):
            return {}
        slots = [RETIRED_SLOT, *self.taken_slots()]
        newest = exemplars.read_newest([self._exemplars(slot) for slot in slots])
        return {exemplar_place(number): exemplar for number, exemplar in newest.items()}

    def _exemplars(self, slot: int) -> memoryview:
        start = self.header("exemplars_at") // 8 + slot * exemplars.SLOT_CELLS
        return self._cells[start : start + exemplars.SLOT_CELLS]

    def continue_from(self, previous: "Table") -> None:
        """Start with the totals of an earlier run of the server, so that no counter goes back.

        Only before anyone counts. Histograms can only go on with the same bounds; otherwise all begins anew.
        """
        if previous.bounds_us != self.bounds_us:
            return
        for name, sums in previous.sum_counters().items():
            at = self._at(RETIRED_SLOT, name)
            for cell, value in enumerate(sums):
                self._cells[at + cell] = value
        for name in HEADER_COUNTERS:
            self.set_header(name, previous.header(name))

    def sum_counters(self) -> dict[str, list[int]]:
        """Return every counter's cells summed over the retired and all living workers."""
        for _ in range(1000):
            before = self.header("fold_seq")
            sums = self._sum_once() if before % 2 == 0 else None
            if sums is not None and self.header("fold_seq") == before:
                return sums
            time.sleep(0)  # let the arbiter finish its fold
        # It died in the middle of a fold: the sums are off by one worker at most, until it is back.
        return self._sum_once()

    def _sum_once(self) -> dict[str, list[int]]:
        slots = [RETIRED_SLOT, *self.taken_slots()]
        sums = {}
        for name, length in COUNTERS.items():
            columns = [
                self._cells[at : at + length].tolist() for at in (self._at(s, name) for s in slots)
            ]
            sums[name] = [sum(column) for column in zip(*columns, strict=True)]
        return sums

    def _at(self, slot: int, name: str = "") -> int:
        return HEADER_CELLS + slot * SLOT_CELLS + (LAYOUT["slot"][name] if name else 0)


def exemplar_place(number: int) -> tuple[str, int]:
    """Return which histogram of the slot, and which of its cells, an exemplar belongs to."""
    histogram, bucket = divmod(number, BOUNDS_MAX + 1)
    if histogram < len(CODE_CLASSES):
        return "duration", histogram * HISTOGRAM_CELLS + bucket
    return ("queue", "response")[histogram - len(CODE_CLASSES)], bucket


def create_table(
    path: Path,
    *,
    worker_slots: int,
    bounds_us: Iterable[int] = (),
    keeps_exemplars: bool = False,
    previous: Path | None = None,
) -> tuple[Table, int]:
    """Create the table as a new file; return it and its descriptor.

    It goes on with the counters of the table that a killed server left at `path`, or an ended one at `previous`.
    Written under another name and renamed: a reader sees the old table or the whole new one.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o660)
        # The umask must not take the group's right: the agent may run as another user of that group.
        os.fchmod(descriptor, 0o660)
        table = begin_table(descriptor, worker_slots, bounds_us, keeps_exemplars=keeps_exemplars)
        take_over(table, [path, *([previous] if previous else [])])
        os.rename(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StartupError(
            f"run_dir is {path.parent}; the stats table cannot be made there: {error.strerror or error}",
            Exit.ENVIRONMENT,
        ) from None
    return table, descriptor


def take_over(table: Table, candidates: Iterable[Path]) -> None:
    """Go on with the counters of the first of these tables that can be read."""
    for path in candidates:
        try:
            found = Table.open(path)
        except (OSError, UnknownTable):
            continue
        table.continue_from(found)
        found.close()
        return


def count_requests(descriptor: int, slot: int) -> int:
    """As `Table.count_requests`, of the table in an open file."""
    table = Table(descriptor, os.fstat(descriptor).st_size, writable=False)
    try:
        return table.count_requests(slot)
    finally:
        table.close()


def create_private_table() -> BinaryIO:
    """Return a table with one worker slot that nobody else sees, as an open file."""
    file = os.fdopen(os.memfd_create("prefork-private-stats", os.MFD_CLOEXEC), "rb+")
    begin_table(file.fileno(), 1, ()).close()
    return file


def begin_table(
    descriptor: int, worker_slots: int, bounds_us: Iterable[int], *, keeps_exemplars: bool = False
) -> Table:
    """Make a table of an empty file; `bounds_us` are those of the histograms, in ascending order."""
    end_of_slots = LAYOUT["header_bytes"] + (1 + worker_slots) * LAYOUT["slot_bytes"]
    size = end_of_slots + keeps_exemplars * (1 + worker_slots) * exemplars.SLOT_CELLS * 8
    # Not a hole: a page for which its volume has no room later would kill the process that touches it (SIGBUS).
    os.posix_fallocate(descriptor, 0, size)
    table = Table(descriptor, size, writable=True)
    table.set_bounds(bounds_us)
    for name, value in {
        "version": LAYOUT["version"],
        "boot_id": int.from_bytes(os.urandom(8)) >> 1,
        "slots": worker_slots,
        "exemplars_at": end_of_slots if keeps_exemplars else 0,
        "arbiter_pid": os.getpid(),
        "magic": LAYOUT["magic"],
    }.items():
        table.set_header(name, value)
    table.beat(time.monotonic())
    return table
