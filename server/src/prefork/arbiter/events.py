"""What can happen to the fleet; the inputs of `machine.step`."""

from dataclasses import dataclass

from prefork.arbiter.fleet import Policy, ReloadRequest
from prefork.base.stats import ExitReason


class Event:
    """Base of all events."""


@dataclass(frozen=True)
class Tick(Event):
    """Time has passed."""


@dataclass(frozen=True)
class GenerationLoaded(Event):
    """The settings of a generation are read."""

    generation: int
    policy: Policy
    surge: int | None = None  # of `Generation`


@dataclass(frozen=True)
class GenerationPostponed(Event):
    """Its settings are read, but there is no room for it while an earlier generation is still ending."""

    generation: int


@dataclass(frozen=True)
class MoldReady(Event):
    generation: int


@dataclass(frozen=True)
class PreloadUnsafe(Event):
    """Its import left what processes must not share: boot it again without the import."""

    generation: int


@dataclass(frozen=True)
class MoldFailed(Event):
    """The settings cannot be read, or the app does not import."""

    generation: int
    traceback: str


@dataclass(frozen=True)
class MoldGone(Event):
    """The process has ended; `stack` is where, when it wrote that."""

    generation: int
    how: str
    stack: str = ""


@dataclass(frozen=True)
class WorkerSpawned(Event):
    worker: int
    pid: int


@dataclass(frozen=True)
class WorkerReady(Event):
    worker: int


@dataclass(frozen=True)
class HealthAnswered(Event):
    """How a worker's app answered for its health; `problem` is empty when it did well."""

    worker: int
    attempt: int
    problem: str = ""


@dataclass(frozen=True)
class WorkerFailed(Event):
    """The app does not import in the worker; its process is about to end."""

    worker: int
    traceback: str


@dataclass(frozen=True)
class RecycleRequested(Event):
    """It has reached max_requests, or is over max_worker_memory."""

    worker: int
    reason: ExitReason


@dataclass(frozen=True)
class WorkerStuck(Event):
    worker: int


@dataclass(frozen=True)
class OnlyOverdueLeft(Event):
    """Of a stuck worker, only the stuck calls are left."""

    worker: int


@dataclass(frozen=True)
class WorkerLeaving(Event):
    """It drains: as ordered, or because another process sent it TERM."""

    worker: int


@dataclass(frozen=True)
class WorkerGone(Event):
    """Its process has ended; `signalled` when a signal ended it."""

    worker: int
    how: str
    signalled: bool = False
    is_clean: bool = False


@dataclass(frozen=True)
class ReloadRequested(Event):
    request: ReloadRequest


@dataclass(frozen=True)
class ScaleRequested(Event):
    desired: int


@dataclass(frozen=True)
class StopRequested(Event):
    quick: bool = False
