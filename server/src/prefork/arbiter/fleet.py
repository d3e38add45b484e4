"""Workers, molds, generations and reloads as values; nothing here does anything."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from prefork.base.stats import ExitReason, ServerState, WorkerState


class MoldState(enum.Enum):
    """State of a generation's mold."""

    LOADING = enum.auto()  # there is none yet: the settings of its generation are being read
    BOOTING = enum.auto()
    READY = enum.auto()
    HUNG = enum.auto()  # took too long to import or to fork, was ordered to write its stack and end
    LOST = enum.auto()  # to be booted again


@dataclass(frozen=True)
class Worker:
    """One worker process, from the order to fork it to its end."""

    id: int  # never used twice
    slot: int
    generation: int
    state: WorkerState
    started: float
    graceful_timeout: float  # its generation's
    pid: int = 0  # 0 until it has reported
    # When it is to be killed; None: not at all.
    deadline: float | None = None
    is_killed: bool = False
    serves: bool = False  # it was let to accept connections
    has_left: bool = False  # it has confirmed that it takes no more requests
    # Why it is to leave: it serves until others can take over, then it is drained.
    leaving: ExitReason | None = None


@dataclass(frozen=True)
class Mold:
    """The process that has imported a generation's app."""

    state: MoldState
    started: float
    preload: bool = True
    # LOST: not before this time is it booted again; HUNG: when the wait for it ends; LOADING: when it is looked for
    # room again, 0 while it is not postponed.
    retry_at: float = 0.0
    hang: str = ""  # HUNG: what it did not do in time
    failures: int = 0


@dataclass(frozen=True)
class Policy:
    """The settings of a generation that decide."""

    graceful_timeout: float = 30.0
    boot_timeout: float = 300.0
    preload: bool = True
    checks_health: bool = False


@dataclass(frozen=True)
class Health:
    """What a booting generation has answered for its health path so far."""

    attempts: int = 0
    asked: int = 0  # the worker that is asked now; 0: none
    due: float = 0.0  # when it must have answered, or the next one may be asked
    is_good: bool = False


@dataclass(frozen=True)
class Generation:
    """One loading of the app, with the settings it was loaded with."""

    number: int
    mold: Mold
    policy: Policy = Policy()  # the defaults until its own are read
    health: Health = Health()
    # None: all its workers are there before an old one leaves. Else it takes over worker by worker, with so many above
    # the desired number: 1, or 0, where an old one leaves before a new one is forked.
    surge: int | None = None


@dataclass(frozen=True)
class ReloadRequest:
    """A requested reload."""

    id: str
    # The digests of the contents to load, by name; those that are not named stay as they are.
    content: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Fleet:
    """All processes as they are, and what is desired."""

    desired: int
    slots: int  # worker slots of the stats table: 1 … slots
    state: ServerState = ServerState.BOOTING
    workers: Mapping[int, Worker] = field(default_factory=lambda: MappingProxyType({}))
    current: Generation | None = None  # whose workers serve
    booting: Generation | None = None  # whose workers are to serve next
    last_number: int = 0
    last_worker: int = 0
    running: ReloadRequest | None = None  # the reload that `booting` carries out
    # Its generation serves, old workers are still being drained.
    finishing: ReloadRequest | None = None
    queued: ReloadRequest | None = None
    next_drain_at: float = 0.0
    # Crashes in a row, and when the next worker may be forked.
    crashes: int = 0
    last_crash: float = 0.0
    fork_at: float = 0.0
    has_failed: bool = False  # the first generation never served

    def serving_number(self) -> int:
        """Return the number of the serving generation, 0 before there is one."""
        return self.current.number if self.current is not None else 0


def present_generations(fleet: Fleet) -> set[int]:
    """Return the numbers of the generations that serve, boot, or answer their last requests."""
    there = (fleet.current, fleet.booting)
    return {g.number for g in there if g} | {w.generation for w in fleet.workers.values()}


def rolling(fleet: Fleet) -> Generation | None:
    """Return the booting generation if it takes over worker by worker, for lack of memory."""
    booting = fleet.booting
    is_rolling = booting is not None and booting.surge is not None and fleet.current is not None
    return booting if is_rolling else None


def of_generation(fleet: Fleet, number: int) -> list[Worker]:
    """Return the workers of a generation that serve, or will; those that are to leave soon are among them."""
    return [
        worker
        for worker in fleet.workers.values()
        if worker.generation == number
        and worker.state in (WorkerState.BOOTING, WorkerState.SERVING)
    ]


def serving_of(fleet: Fleet, number: int) -> list[Worker]:
    return [worker for worker in of_generation(fleet, number) if worker.serves]


def surge_of(fleet: Fleet, booting: Generation) -> int:
    """Return how many workers a rolling reload may have above the desired number; a single one has no room to make."""
    return 1 if fleet.desired == 1 or booting.surge else 0


def wanted_old(fleet: Fleet, booting: Generation) -> int:
    """Return how many workers of the serving generation a rolling reload needs at this moment."""
    missing = max(0, fleet.desired - len(serving_of(fleet, booting.number)))
    makes_room = surge_of(fleet, booting) == 0 and booting.mold.state is MoldState.READY
    return max(0, missing - 1) if makes_room else missing


def put(fleet: Fleet, *workers: Worker) -> Fleet:
    """Return the fleet with these workers added or replaced."""
    changed = {**fleet.workers, **{worker.id: worker for worker in workers}}
    return replace(fleet, workers=MappingProxyType(changed))


def drop(fleet: Fleet, gone: int) -> Fleet:
    rest = {id: worker for id, worker in fleet.workers.items() if id != gone}
    return replace(fleet, workers=MappingProxyType(rest))


def put_mold(fleet: Fleet, number: int, **changes: object) -> Fleet:
    """Return the fleet with the mold of this generation changed, wherever it is."""
    for role in ("current", "booting"):
        generation: Generation | None = getattr(fleet, role)
        if generation is not None and generation.number == number:
            mold = replace(generation.mold, **changes)  # type: ignore[arg-type]
            return replace(fleet, **{role: replace(generation, mold=mold)})  # type: ignore[arg-type]
    return fleet


def is_booting(fleet: Fleet, number: int) -> bool:
    return fleet.booting is not None and fleet.booting.number == number
