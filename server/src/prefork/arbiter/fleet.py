"""Workers, molds, generations and reloads as values; nothing here does anything."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


class Phase(enum.Enum):
    """Life of the server as a whole; the values are the cell `state` of the stats table."""

    BOOTING = 0
    SERVING = 1
    STOPPING = 2


class Life(enum.Enum):
    """Life of a worker; the values are the cell `worker_state` of the stats table."""

    BOOTING = 1
    SERVING = 2
    DRAINING = 3
    STUCK = 4


class MoldLife(enum.Enum):
    """Life of a generation's mold."""

    BOOTING = enum.auto()
    READY = enum.auto()
    HUNG = enum.auto()  # took too long to import or to fork, told to write its stack and end
    LOST = enum.auto()  # to be booted again


class Reason(enum.Enum):
    """Why a worker left; the values complete the header cells `exits_…`."""

    CRASH = "crash"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    MAX_REQUESTS = "max_requests"
    RETIRED = "retired"
    KILLED = "killed"


@dataclass(frozen=True)
class Worker:
    """One worker process, from the order to fork it to its end."""

    id: int  # never used twice
    slot: int
    generation: int
    life: Life
    started: float
    pid: int = 0  # 0 until it has reported
    # When it is to be killed; None: not at all.
    deadline: float | None = None
    is_killed: bool = False
    # While draining: from when on it takes no request for certain (its answer to the order, or a bound).
    left_at: float = 0.0
    # Why it is to leave: it serves until others can take over, then it is drained.
    leaving: Reason | None = None


@dataclass(frozen=True)
class Mold:
    """The process that has imported a generation's app."""

    life: MoldLife
    started: float
    preload: bool = True
    # LOST: not before this time is it booted again; HUNG: then it is waited for no longer.
    retry_at: float = 0.0
    hang: str = ""  # HUNG: what it did not do in time
    failures: int = 0


@dataclass(frozen=True)
class Generation:
    """One loading of the app."""

    number: int
    mold: Mold


@dataclass(frozen=True)
class Wish:
    """A reload that somebody asked for."""

    id: str


@dataclass(frozen=True)
class Fleet:
    """All there is, and all that is wanted."""

    desired: int
    slots: int  # worker slots of the stats table: 1 … slots
    phase: Phase = Phase.BOOTING
    workers: Mapping[int, Worker] = field(default_factory=lambda: MappingProxyType({}))
    current: Generation | None = None  # whose workers serve
    booting: Generation | None = None  # whose workers are to serve next
    last_number: int = 0
    last_worker: int = 0
    running: Wish | None = None  # the reload that `booting` carries out
    handing: Wish | None = None  # its generation serves, old workers are still being drained
    queued: Wish | None = None
    next_drain_at: float = 0.0
    # Crashes in a row, and when the next worker may be forked.
    crashes: int = 0
    last_crash: float = 0.0
    fork_at: float = 0.0
    has_failed: bool = False  # the first generation never served
