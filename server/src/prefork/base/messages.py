"""What the server's processes say to each other, and the channel that carries it.

One message per packet of a SOCK_SEQPACKET pair: a JSON object, descriptors beside it. The kernel
keeps packets whole and ordered, and reports the other end's death as end of file.
"""

import array
import json
import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass

# Well below the default send buffer (208 KiB), so a send never has to wait for a reader.
PACKET_LIMIT = 128 * 1024
# Of a text, in bytes of UTF-8; JSON makes six of one at most (a control character).
TEXT_LIMIT = 20 * 1024
RIGHTS_SPACE = socket.CMSG_SPACE(array.array("i").itemsize)


@dataclass(frozen=True)
class Message:
    """Base of all messages."""


# arbiter → mold
@dataclass(frozen=True)
class Fork(Message):
    """Fork a worker; its end of the channel to the arbiter travels with the message."""

    worker: int
    slot: int


# mold → arbiter
@dataclass(frozen=True)
class MoldReady(Message):
    """The app is imported (or not to be imported here), workers can be forked."""


@dataclass(frozen=True)
class MoldUnfit(Message):
    """The import left threads running, which a fork would not copy; the mold exits."""

    threads: str


@dataclass(frozen=True)
class BootFailed(Message):
    """The app does not import; the sender exits. Sent by molds and by workers."""

    traceback: str


# worker → arbiter
@dataclass(frozen=True)
class WorkerBorn(Message):
    """A worker's first word: the process that now exists."""

    pid: int


@dataclass(frozen=True)
class WorkerReady(Message):
    """The worker could serve, and waits for the word to."""


@dataclass(frozen=True)
class WorkerFull(Message):
    """The worker has answered max_requests requests and asks to be relieved."""


@dataclass(frozen=True)
class WorkerStuck(Message):
    """A call has been running for longer than the timeout; the worker takes no new requests."""


@dataclass(frozen=True)
class WorkerLeaving(Message):
    """The worker drains, as it was ordered or told by a signal: it accepts no more."""


# arbiter → worker
@dataclass(frozen=True)
class Serve(Message):
    """Begin to accept connections."""


@dataclass(frozen=True)
class Drain(Message):
    """Finish what runs and exit; `mode` as of `Engine.drain`."""

    mode: str


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
class Garbled(Message):
    """What a packet reads as that is no message; its sender cannot be relied on."""

    why: str


class Channel:
    """One end of a pair; `fileno()` makes it selectable."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Return two connected ends."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    @classmethod
    def adopt(cls, descriptor: int) -> "Channel":
        """Take over an end that came as a descriptor."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        return self.end.fileno()

    def close(self) -> None:
        self.end.close()

    def send(self, message: Message, *, descriptors: Iterable[int] = ()) -> bool:
        """Send without waiting; False when the other end is gone or does not read."""
        packet = encode(message)
        rights = array.array("i", descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
        try:
            self.end.sendmsg([packet], ancillary, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def receive(self, *, wait: bool = True) -> tuple[Message, list[int]] | None:
        """Return the next message with its descriptors; None at the end.

        What cannot be read is a `Garbled`: an app may have written to a descriptor that is not its own.
        Raises BlockingIOError when `wait` is False and there is none.
        """
        # Not socket.recv_fds: it drops its flags.
        flags = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
        try:
            packet, ancillary, truncated, _ = self.end.recvmsg(PACKET_LIMIT, RIGHTS_SPACE, flags)
        except ConnectionResetError:
            return None
        if not packet:
            return None
        rights = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                rights.frombytes(data)
        if truncated & socket.MSG_TRUNC:
            return Garbled(f"a packet of more than {PACKET_LIMIT} bytes"), list(rights)
        return decode(packet), list(rights)


def encode(message: Message) -> bytes:
    """Return the packet of a message. A lone surrogate becomes its JSON escape, so it arrives as it was."""
    fields = {"kind": type(message).__name__, **asdict(message)}
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "backslashreplace")


def decode(packet: bytes) -> Message:
    """Return the message of a packet, `Garbled` for anything that is none."""
    try:
        fields = json.loads(packet)
        return KINDS[fields.pop("kind")](**fields)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return Garbled(f"{packet[:80]!r}: {type(error).__name__}: {error}")


def shorten(text: str) -> str:
    """Keep the end of a long traceback: that is where the error stands."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) > TEXT_LIMIT:
        return "…" + encoded[-TEXT_LIMIT:].decode("utf-8", "ignore")
    return encoded.decode()
