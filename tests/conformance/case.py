"""What a case of raw bytes is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HOST = b"Host: a\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Bytes that a client sends on one connection, and all that must follow.

    `differs` tells why our verdict is not that of the suite a case was learnt from.
    """

    rule: str
    sent: bytes
    statuses: tuple[int, ...]
    """Final responses, in order."""
    keeps: bool
    """The connection serves another request afterwards; else it is closed, cleanly."""
    saw: Mapping[str, Any] = field(default_factory=dict)
    """What the app saw in the last call, as far as it matters; None: absent."""
    server: str = "plain"
    ends: bool = False
    """The client shuts its side behind the bytes."""
    whole_only: bool = False
    """Not sent byte by byte as well: too large; or bytes behind the last request, which meet a reset
    when they come after the close that the client itself asked for."""
    differs: str = ""

    def __str__(self) -> str:
        return self.rule


def refused(rule: str, sent: bytes, status: int = 400, **more: Any) -> Case:
    """One answer with this status, then the end."""
    return Case(rule=rule, sent=sent, statuses=(status,), keeps=False, **more)


def served(
    rule: str, sent: bytes, saw: Mapping[str, Any] | None = None, *, keeps: bool = True, **more: Any
) -> Case:
    """One answer 200, and the connection goes on."""
    return Case(rule=rule, sent=sent, statuses=(200,), keeps=keeps, saw=saw or {}, **more)


def get(first: bytes = b"GET / HTTP/1.1", *fields: bytes, body: bytes = b"") -> bytes:
    """A request with `Host: a` and these further field lines."""
    lines = b"".join(line + b"\r\n" for line in fields)
    return first + b"\r\n" + HOST + lines + b"\r\n" + body


def post(*fields: bytes, body: bytes = b"", path: bytes = b"/") -> bytes:
    """A POST with these field lines beside Host."""
    return get(b"POST " + path + b" HTTP/1.1", *fields, body=body)


def chunked(body: bytes, path: bytes = b"/") -> bytes:
    """A POST whose chunked body is given as it is on the wire."""
    return post(b"Transfer-Encoding: chunked", body=body, path=path)
