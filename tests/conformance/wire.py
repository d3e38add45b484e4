"""One TCP connection, spoken byte by byte: nothing is sent or assumed that the test did not say.

Reads responses strictly (RFC 9112 §§4, 6, 7): what a careful client would refuse fails the test.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

# Host and port, or the path of a unix socket.
Address = tuple[str, int] | str

WAIT_S = 20.0
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2}) ([\t -~\x80-\xff]*)")
FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\t -~\x80-\xff]*)")


@dataclass(frozen=True, slots=True)
class Answer:
    """One final response; names of fields are in lower case, in order as sent."""

    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]
    body: bytes
    framing: str
    """How the body was delimited: `none`, `length`, `chunked` or `close`."""
    interim: tuple[int, ...]
    """Statuses of interim responses before it."""

    def values(self, name: str) -> list[str]:
        """Return all values of a field."""
        return [value for found, value in self.fields if found == name]

    def value(self, name: str) -> str | None:
        """Return the only value of a field, None without one."""
        values = self.values(name)
        assert len(values) <= 1, f"{name} is given {len(values)} times"
        return values[0] if values else None


def _connect(address: Address) -> socket.socket:
    if isinstance(address, str):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(WAIT_S)
        connection.connect(address)
        return connection
    connection = socket.create_connection(address, timeout=WAIT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Wire:
    """A connection to the server under test."""

    def __init__(self, address: Address) -> None:
        self._socket = _connect(address)
        self._received = bytearray()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def send(self, *pieces: bytes) -> None:
        """Send each piece on its own; a server that has closed already is no error yet."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                self._socket.sendall(piece)

    def end(self) -> None:
        """Shut our side: the client has nothing more to send."""
        with contextlib.suppress(OSError):  # the server was first; what it said tells more
            self._socket.shutdown(socket.SHUT_WR)

    def answer(self, method: str = "GET") -> Answer:
        """Read the next final response, to a request with this method."""
        interim = []
        while True:
            status, reason, fields = self._read_head()
            if status >= 200:
                break
            assert not fields, f"interim response {status} with fields {fields}"
            interim.append(status)
        framing, body = self._read_body(method, status, dict(fields))
        return Answer(status, reason, fields, body, framing, tuple(interim))

    def interim(self) -> int:
        """Read one interim response."""
        status, _, fields = self._read_head()
        assert status < 200, f"final response {status}"
        assert not fields
        return status

    def is_readable(self, *, within_s: float) -> bool:
        """Whether bytes, or the end, have come within this time."""
        return bool(self._received) or bool(select.select([self._socket], [], [], within_s)[0])

    def is_ended(self) -> bool:
        """Whether the server has ended the connection and all it sent was read; may wait."""
        return not self._received and not self._fill()

    def rest(self) -> bytes:
        """Read until the server ends the connection; a reset fails the test."""
        while self._fill():
            pass
        return bytes(self._received)

    def assert_closed(self) -> None:
        """The server ends the connection and sends nothing before."""
        assert self.rest() == b""

    def _fill(self) -> bool:
        data = self._socket.recv(65536)
        self._received += data
        return bool(data)

    def _line(self) -> bytes:
        while b"\r\n" not in self._received:
            assert self._fill(), f"connection ended in {bytes(self._received)!r}"
        line, _, rest = self._received.partition(b"\r\n")
        self._received = rest
        return bytes(line)

    def _exactly(self, count: int) -> bytes:
        while len(self._received) < count:
            assert self._fill(), f"connection ended {count - len(self._received)} bytes early"
        data, self._received = bytes(self._received[:count]), self._received[count:]
        return data

    def _read_head(self) -> tuple[int, str, tuple[tuple[str, str], ...]]:
        line = self._line()
        match = STATUS_LINE.fullmatch(line)
        assert match, f"status line {line!r}"
        fields = []
        while line := self._line():
            field = FIELD_LINE.fullmatch(line)
            assert field, f"field line {line!r}"
            fields.append((field[1].decode().lower(), field[2].decode("latin-1")))
        return int(match[1]), match[2].decode("latin-1"), tuple(fields)

    def _read_body(self, method: str, status: int, fields: dict[str, str]) -> tuple[str, bytes]:
        length, coding = fields.get("content-length"), fields.get("transfer-encoding")
        assert length is None or coding is None, "both Content-Length and Transfer-Encoding"
        if method == "HEAD" or status in (204, 304):
            return "none", b""
        if coding is not None:
            assert coding == "chunked"
            return "chunked", b"".join(self._chunks())
        if length is not None:
            return "length", self._exactly(int(length))
        body, self._received = self.rest(), bytearray()
        return "close", body

    def _chunks(self) -> Iterable[bytes]:
        while size := int(self._line(), 16):
            yield self._exactly(size)
            assert self._line() == b"", "chunk data not followed by CRLF"
        assert self._line() == b"", "trailers"
