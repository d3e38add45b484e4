"""Reads HTTP/1.1 responses from the bytes of one connection, strictly.

Owns the framing rules a careful client has to check (RFC 9112 §4, §6, §7); knows nothing of
sockets or of what a request wanted. The load client judges every answer by it, so anything
unclear is refused: a reader that guesses would call a damaged answer a good one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_LIMIT_BYTES = 64 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2})(?: [^\r\n\x00]*)?\Z")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\x00]*?)[ \t]*\Z")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?\Z")


class BadResponseError(Exception):
    """The bytes are not a well-framed HTTP/1.1 response; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Response:
    """One complete answer; field names are lower case, repeated fields joined by ', '."""

    status: int
    fields: dict[str, str]
    body: bytes
    keep_alive: bool


@dataclass(slots=True)
class _Head:
    status: int
    fields: dict[str, str]
    length: int | None  # None: chunked
    keep_alive: bool


class ResponseReader:
    """Turns received bytes into `Response` values, one at a time.

    `feed` takes bytes as they come, `next` returns the next complete response or None.
    Responses are read as answers to GET or POST: HEAD and CONNECT frame differently.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._head: _Head | None = None
        self._chunks: list[bytes] = []

    @property
    def is_empty(self) -> bool:
        """True between responses: not a byte of another one has come."""
        return not self._bytes and self._head is None

    @property
    def progress(self) -> str:
        """How far the current response got, for the text of an error."""
        if self._head is None:
            return f"{len(self._bytes)} bytes of its head"
        have = len(self._bytes) + sum(map(len, self._chunks))
        whole = "chunked" if self._head.length is None else f"of {self._head.length}"
        return f"status {self._head.status}, {have} body bytes {whole}"

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._bytes += data

    def next(self) -> Response | None:
        """Return the next complete response, None when more bytes are needed.

        Raises BadResponseError; the connection is of no use afterwards.
        """
        while self._head is None:
            head = self._take_head()
            if head is None:
                return None
            if head.status >= 200:  # 1xx are interim: the answer is still to come
                self._head = head
        body = self._take_body(self._head)
        if body is None:
            return None
        head, self._head = self._head, None
        return Response(head.status, head.fields, body, head.keep_alive)

    def _take_head(self) -> _Head | None:
        end = self._bytes.find(b"\r\n\r\n")
        if end < 0:
            if len(self._bytes) > HEAD_LIMIT_BYTES:
                raise BadResponseError(f"no end of the head within {HEAD_LIMIT_BYTES} bytes")
            return None
        lines = bytes(self._bytes[:end]).split(b"\r\n")
        del self._bytes[: end + 4]
        return _parse_head(lines)

    def _take_body(self, head: _Head) -> bytes | None:
        if head.length is None:
            return self._take_chunks()
        if len(self._bytes) < head.length:
            return None
        body = bytes(self._bytes[: head.length])
        del self._bytes[: head.length]
        return body

    def _take_chunks(self) -> bytes | None:
        while (end := self._bytes.find(b"\r\n")) >= 0:
            line = bytes(self._bytes[:end])
            match = _CHUNK_SIZE.match(line)
            if match is None:
                raise BadResponseError(f"chunk size line {line[:40]!r}")
            size = int(match[1], 16)
            if size == 0:
                return self._take_trailers(end)
            stop = end + 2 + size
            if len(self._bytes) < stop + 2:
                return None
            if self._bytes[stop : stop + 2] != b"\r\n":
                raise BadResponseError("chunk data not followed by CRLF")
            self._chunks.append(bytes(self._bytes[end + 2 : stop]))
            del self._bytes[: stop + 2]
        return None

    def _take_trailers(self, end: int) -> bytes | None:
        """Drop the last chunk and its trailer section; `end` is where the size line ends."""
        if self._bytes[end + 2 : end + 4] == b"\r\n":
            stop = end + 4
        else:
            blank = self._bytes.find(b"\r\n\r\n", end)
            if blank < 0:
                return None
            stop = blank + 4
        del self._bytes[:stop]
        body, self._chunks = b"".join(self._chunks), []
        return body


def _parse_head(lines: list[bytes]) -> _Head:
    match = _STATUS_LINE.match(lines[0])
    if match is None:
        raise BadResponseError(f"status line {lines[0][:60]!r}")
    status = int(match[1])
    fields: dict[str, str] = {}
    for line in lines[1:]:
        field = _FIELD.match(line)
        if field is None:
            raise BadResponseError(f"field line {line[:60]!r}")
        name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    keep_alive = "close" not in fields.get("connection", "").lower()
    return _Head(status, fields, _body_length(status, fields), keep_alive)


def _body_length(status: int, fields: dict[str, str]) -> int | None:
    """Return the body's length in bytes, None for chunked (RFC 9112 §6.3).

    A body that ends with the connection is refused: its loss could not be told from its end.
    """
    coding, length = fields.get("transfer-encoding"), fields.get("content-length")
    if status < 200 or status in (204, 304):
        return 0
    if coding is not None:
        if length is not None:
            raise BadResponseError("both Content-Length and Transfer-Encoding")
        if coding.lower() != "chunked":
            raise BadResponseError(f"Transfer-Encoding {coding!r}")
        return None
    if length is None:
        raise BadResponseError("neither Content-Length nor Transfer-Encoding")
    if not (length.isascii() and length.isdigit()):
        raise BadResponseError(f"Content-Length {length!r}")
    return int(length)
