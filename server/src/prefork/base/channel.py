"""The channel between two of the server's processes: one message per packet, descriptors included.

A SOCK_SEQPACKET pair; a packet is a JSON object. The kernel keeps packets whole and ordered, and
reports the end of the other process as end of file.
"""

import array
import enum
import errno
import socket
from collections.abc import Iterable
from dataclasses import asdict

# Functions, not the module: an app may put others in their place there.
from json import dumps, loads

from prefork.base.messages import KINDS, Malformed, Message

# Well below the default send buffer (208 KiB), so a send never has to wait for a reader.
PACKET_LIMIT = 128 * 1024
# The kernel's own limit for one message (SCM_MAX_FD in unix(7)).
RIGHTS_LIMIT = 253
RIGHTS_SPACE = socket.CMSG_SPACE(RIGHTS_LIMIT * array.array("i").itemsize)


# Bound before an app is imported: gevent puts its own class in the place of this one.
_Socket = socket.socket


class Sent(enum.Enum):
    """What became of a message; only `DONE` is true."""

    DONE = enum.auto()
    FULL = enum.auto()  # the other end does not read, for now
    GONE = enum.auto()

    def __bool__(self) -> bool:
        return self is Sent.DONE


class Channel:
    """One end of a pair; `fileno()` makes it selectable."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(
            None
        )  # an app or a config file may have set a default (socket.setdefaulttimeout)
        self.end = end

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Return two connected ends."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    @classmethod
    def adopt(cls, descriptor: int) -> "Channel":
        """Take over an end that came as a descriptor."""
        return cls(_Socket(fileno=descriptor))

    def fileno(self) -> int:
        return self.end.fileno()

    def close(self) -> None:
        self.end.close()

    def send(self, message: Message, *, descriptors: Iterable[int] = ()) -> Sent:
        """Send without waiting."""
        packet = encode(message)
        rights = array.array("i", descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
        try:
            self.end.sendmsg([packet], ancillary, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return Sent.FULL
        except OSError as error:
            # Descriptors on their way are limited for each user (RLIMIT_NOFILE, unix(7)): room comes as they are read.
            return Sent.FULL if error.errno == errno.ETOOMANYREFS else Sent.GONE
        return Sent.DONE

    def receive(self, *, wait: bool = True) -> tuple[Message, list[int]] | None:
        """Return the next message with its descriptors; None at the end.

        What cannot be read is a `Malformed`: an app may have written to a descriptor that is not its own.
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
            return Malformed(f"a packet of more than {PACKET_LIMIT} bytes"), list(rights)
        return decode(packet), list(rights)


def encode(message: Message) -> bytes:
    """Return the packet of a message. A lone surrogate becomes its JSON escape, so it arrives as it was."""
    fields = {"kind": type(message).__name__, **asdict(message)}
    return dumps(fields, ensure_ascii=False).encode("utf-8", "backslashreplace")


def decode(packet: bytes) -> Message:
    """Return the message of a packet, `Malformed` for anything else."""
    try:
        fields = loads(packet)
        return KINDS[fields.pop("kind")](**fields)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return Malformed(f"{packet[:80]!r}: {type(error).__name__}: {error}")
