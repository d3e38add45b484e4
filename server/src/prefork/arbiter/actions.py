"""What the arbiter is to do; the outputs of `machine.step`."""

from dataclasses import dataclass

from prefork.arbiter.fleet import Fleet, ReloadRequest, Worker
from prefork.base.stats import ExitReason


class Action:
    """Base of all actions."""


@dataclass(frozen=True)
class LoadGeneration(Action):
    """Read the settings of a new generation; `GenerationLoaded` or `MoldFailed` answers."""

    generation: int


@dataclass(frozen=True)
class BootMold(Action):
    generation: int
    preload: bool
    is_replacement: bool = False


@dataclass(frozen=True)
class StopMold(Action):
    generation: int


@dataclass(frozen=True)
class AbortMold(Action):
    """Kill it so that it writes its stack first."""

    generation: int


@dataclass(frozen=True)
class ReportMoldLoss(Action):
    """The serving generation has no mold for now; the last line of `why` is the reason."""

    generation: int
    why: str
    retry_in_s: float


@dataclass(frozen=True)
class ForkWorker(Action):
    worker: int
    slot: int
    generation: int


@dataclass(frozen=True)
class CheckHealth(Action):
    """Have a worker that is ready ask its app for the health path; `HealthAnswered` answers."""

    worker: int
    attempt: int
    within_s: float


@dataclass(frozen=True)
class StartWorker(Action):
    """Let a worker that is ready accept connections."""

    worker: int


@dataclass(frozen=True)
class DrainWorker(Action):
    worker: int
    mode: str
    is_memory_short: bool = False


@dataclass(frozen=True)
class StopWorker(Action):
    worker: int


@dataclass(frozen=True)
class KillWorker(Action):
    """`is_last`: it outlived the first kill, which it could catch if that was to show its stack."""

    worker: int
    with_stack: bool = False
    is_last: bool = False


@dataclass(frozen=True)
class RetireWorker(Action):
    """A worker is gone: fold its counters, count its exit, free its slot."""

    worker: Worker
    reason: ExitReason
    how: str


@dataclass(frozen=True)
class CommitGeneration(Action):
    """A generation's workers serve; the first time, the server is ready."""

    generation: int
    is_first: bool


@dataclass(frozen=True)
class DiscardGeneration(Action):
    """A generation never served."""

    generation: int
    traceback: str


@dataclass(frozen=True)
class FinishReload(Action):
    """The end of a requested reload; `traceback` is empty when it succeeded."""

    request: ReloadRequest
    succeeded: bool
    traceback: str = ""


@dataclass(frozen=True)
class SupersedeReload(Action):
    """A reload that never began, because a newer one was requested."""

    request: ReloadRequest


@dataclass(frozen=True)
class CloseListeners(Action):
    """Nothing of ours may accept any more, apart from the workers that drain."""


@dataclass(frozen=True)
class Leave(Action):
    """All is over; `failed` when the first generation never served."""

    failed: bool = False


@dataclass(frozen=True)
class Note(Action):
    """A line for the log."""

    level: str
    message: str
    keys: tuple[tuple[str, object], ...] = ()


# What a step results in.
Step = tuple[Fleet, tuple[Action, ...]]


def note(level: str, message: str, **keys: object) -> Note:
    return Note(level, message, tuple(keys.items()))
