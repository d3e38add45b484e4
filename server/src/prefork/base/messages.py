"""The messages between the server's processes. A `channel` carries it, as JSON."""

from dataclasses import dataclass, field

from prefork import errors

# Of a text, in bytes of UTF-8; JSON makes six of one at most (a control character), and a packet holds that.
TEXT_LIMIT = 20 * 1024
# Why a reload failed that a stop of the server ended; by this text the agent asks the next server.
STOPPING = "the server is stopping"


@dataclass(frozen=True)
class Message:
    """Base of all messages."""


# arbiter → mold
@dataclass(frozen=True)
class Fork(Message):
    """Fork a worker. With the message travel, in this order, its end of the channel to the arbiter, the two ends

    of the hand-over pair, and the listeners: the mold holds none of them otherwise.
    """

    worker: int
    slot: int
    living: list[int] = field(default_factory=list)  # the workers there are, by number


# mold → arbiter
@dataclass(frozen=True)
class MoldReady(Message):
    """The app is imported (or not to be imported here), workers can be forked; `children` were started by the import."""

    children: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class PreloadUnsafe(Message):
    """The import left what processes must not share; the mold exits."""

    found: str


@dataclass(frozen=True)
class BootFailed(Message):
    """The app does not import; the sender exits. Sent by molds and by workers.

    `children` were started by the import and still run.
    """

    traceback: str
    children: list[int] = field(default_factory=list)


# worker → arbiter
@dataclass(frozen=True)
class WorkerSpawned(Message):
    """A worker's first message: its process exists."""

    pid: int


@dataclass(frozen=True)
class WorkerReady(Message):
    """The worker could serve, and waits for the word to.

    `unsafe`, of a worker that imported for itself: what its import left that processes must not share, empty
    when the next generation could be preloaded; None where that was not asked. `children` are the processes that it
    started.
    """

    unsafe: str | None = None
    children: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class MaxRequestsReached(Message):
    """The worker has answered max_requests requests and asks to be relieved."""


@dataclass(frozen=True)
class WorkerStuck(Message):
    """A call has been running for longer than the timeout; the worker takes no new requests."""


@dataclass(frozen=True)
class WorkerLeaving(Message):
    """The worker drains, because of an order or a signal: it accepts no more."""


@dataclass(frozen=True)
class HealthChecked(Message):
    """How the app answered; `problem` is empty for 2xx and 3xx."""

    attempt: int
    problem: str


# arbiter → worker
@dataclass(frozen=True)
class Begin(Message):
    """The arbiter knows the worker's process: its slot in the stats table is its own for as long as it lives."""


@dataclass(frozen=True)
class Serve(Message):
    """Begin to accept connections."""


@dataclass(frozen=True)
class CheckHealth(Message):
    """Ask the app for its health path; `HealthChecked` with the same `attempt` answers."""

    attempt: int
    within_s: float


@dataclass(frozen=True)
class Drain(Message):
    """Finish what runs and exit; `mode` as of `Engine.drain`.

    Where memory is short, the interpreter is not taken apart at the end: that copies shared pages.
    """

    mode: str
    is_memory_short: bool = False


@dataclass(frozen=True)
class Stop(Message):
    """Exit now."""


# arbiter → mold and worker
@dataclass(frozen=True)
class ReopenLogs(Message):
    """Open the log files again under their names (they have been rotated)."""


KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in Message.__subclasses__()}


# never sent
@dataclass(frozen=True)
class Malformed(Message):
    """Stands for a packet that is not a message; its sender is no longer reliable."""

    why: str


def shorten(text: str) -> str:
    """Return what a packet has room for of a long traceback."""
    return errors.shorten(text, TEXT_LIMIT)
