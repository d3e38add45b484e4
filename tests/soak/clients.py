"""Clients of every kind, each a thread that checks every answer it gets.

A failure is *excused* only when a worker was killed by SIGKILL since the connection's last good
answer: what such a worker holds is lost by nature. Any other failure is the server's.
"""

from __future__ import annotations

import hashlib
import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.soak.app import BLOCK

_TIMEOUT_S = 60.0
_SLOW_READ_BYTES = 64 * 1024
_STALL_S = 8.0
# What a stalled client sends before it falls silent; it never reads either.
_STALLS = (
    b"GET / HTTP/1.1\r\nHost: soak\r\nX-Half",
    b"POST /digest HTTP/1.1\r\nHost: soak\r\nContent-Length: 2000000\r\n\r\nhalf",
    b"POST /digest HTTP/1.1\r\nHost: soak\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    b"GET /stream?blocks=64 HTTP/1.1\r\nHost: soak\r\n\r\n",
    b"GET /file?blocks=64 HTTP/1.1\r\nHost: soak\r\n\r\n",
)


class WrongAnswerError(Exception):
    """A complete answer that is not the one asked for."""


@dataclass(frozen=True)
class Failure:
    """A request that was not answered, between its connection's last good answer and the moment it failed."""

    kind: str
    error: str
    since: float
    at: float
    shown_at: str

    def is_excused(self, kills: list[tuple[float, float]]) -> bool:
        """Whether a worker was killed meanwhile. A kill is the time from just before it to the process's end."""
        is_wrong = self.error.startswith(WrongAnswerError.__name__)
        return not is_wrong and any(
            began <= self.at and ended >= self.since for began, ended in kills
        )


@dataclass
class Findings:
    """What all clients saw; shared by their threads."""

    kills: list[tuple[float, float]] = field(default_factory=list)  # SIGKILLs of workers
    answered: Counter[str] = field(default_factory=Counter)  # by kind of request
    failures: list[Failure] = field(default_factory=list)
    slowest_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def good(self, kind: str, took_s: float) -> None:
        with self._lock:
            self.answered[kind] += 1
            if kind == "hello":
                self.slowest_s = max(self.slowest_s, took_s)

    def bad(self, kind: str, error: Exception, since: float) -> None:
        with self._lock:
            now = time.monotonic()
            shown = time.strftime("%H:%M:%S")
            self.failures.append(Failure(kind, repr(error), since, now, shown))

    def lost(self) -> list[Failure]:
        """The failures that nothing excuses; only final when no kill is under way."""
        return [failure for failure in self.failures if not failure.is_excused(self.kills)]


class Crowd:
    """The clients' threads, from `start` to `end`."""

    def __init__(self, port: int, seed: int) -> None:
        self.findings = Findings()
        self._port = port
        self._is_over = threading.Event()
        kinds: list[Callable[[random.Random], None]] = [
            *[self._talk] * 8, *[self._upload] * 3, *[self._read_slowly] * 3, *[self._stall] * 40,
        ]  # fmt: skip
        self._threads = [
            threading.Thread(target=kind, args=(random.Random(seed + n),), daemon=True)
            for n, kind in enumerate(kinds)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let each client come to the end of its request."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _talk(self, rng: random.Random) -> None:
        """Small requests on connections that are kept, now and then anew."""
        connection = self._connect()
        while not self._is_over.is_set():
            if rng.random() < 0.05:
                connection.close()
            kind = "slow" if rng.random() < 0.1 else "hello"
            target = f"/slow?ms={rng.randrange(300)}" if kind == "slow" else "/"
            self._ask(connection, kind, "GET", target, expected=kind.encode())
            self._is_over.wait(rng.random() * 0.03)

    def _upload(self, rng: random.Random) -> None:
        """Bodies of up to 4 MiB, with a length or in chunks, some of them slowly."""
        connection = self._connect()
        pool = rng.randbytes(8 << 20)
        while not self._is_over.is_set():
            size = int((4 << 20) * rng.random() ** 2)
            start = rng.randrange(4 << 20)
            body = pool[start : start + size]
            pause_s = rng.choice((0.0, 0.0, 0.02))
            parts = [body[at : at + 65536] for at in range(0, size, 65536)]
            expected = f"{size} {hashlib.sha256(body).hexdigest()}".encode()
            is_chunked = rng.random() < 0.5
            self._ask(
                connection,
                "upload in chunks" if is_chunked else "upload",
                "POST",
                "/digest",
                expected=expected,
                body=_slowly(parts, pause_s),
                length=None if is_chunked else size,
            )

    def _read_slowly(self, rng: random.Random) -> None:
        """Answers of 4 to 8 MiB, read at about 2 MiB/s."""
        while not self._is_over.is_set():
            connection = self._connect()
            blocks, path = rng.randrange(64, 128), rng.choice(("stream", "file"))
            self._ask(
                connection,
                f"slow reader of a {path}",
                "GET",
                f"/{path}?blocks={blocks}",
                expected=hashlib.sha256(BLOCK * blocks).digest(),
                read=_read_slowly,
            )
            connection.close()

    def _stall(self, rng: random.Random) -> None:
        """Fall silent in the middle, then go away; how the server ends it is its own affair."""
        while not self._is_over.is_set():
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.settimeout(_TIMEOUT_S)
                try:
                    client.connect(("127.0.0.1", self._port))
                    client.sendall(rng.choice(_STALLS))
                except OSError as error:
                    self.findings.bad("stalled client", error, time.monotonic())
                self._is_over.wait(_STALL_S * rng.random())
            self.findings.good("stalled client", 0.0)

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        kind: str,
        method: str,
        target: str,
        *,
        expected: bytes,
        body: Callable[[], object] | None = None,
        length: int | None = None,
        read: Callable[[http.client.HTTPResponse], bytes] = http.client.HTTPResponse.read,
    ) -> None:
        """One request; what is wrong goes to the findings, and the connection is made anew."""
        began = time.monotonic()
        last_good = getattr(connection, "last_good", began)
        headers = {} if length is None else {"Content-Length": str(length)}
        try:
            connection.request(
                method, target, body and body(), headers, encode_chunked=body is not None and length is None
            )  # fmt: skip
            response = connection.getresponse()
            seen = read(response)
            if response.status != 200 or seen != expected:
                raise WrongAnswerError(f"{response.status}, {len(seen)} bytes: {seen[:60]!r}")
        except (OSError, http.client.HTTPException, WrongAnswerError) as error:
            connection.close()
            self.findings.bad(kind, error, min(began, last_good))
            return
        ended = time.monotonic()
        connection.last_good = ended  # type: ignore[attr-defined]
        self.findings.good(kind, ended - began)


def _slowly(parts: list[bytes], pause_s: float) -> Callable[[], object]:
    def send() -> object:
        for part in parts:
            time.sleep(pause_s)  # the speed of this client, not a wait for anything
            yield part

    return send


def _read_slowly(response: http.client.HTTPResponse) -> bytes:
    digest = hashlib.sha256()
    while part := response.read(_SLOW_READ_BYTES):
        digest.update(part)
        time.sleep(_SLOW_READ_BYTES / (2 << 20))  # as above
    if response.length:  # http.client raises this only where all is read at once
        raise http.client.IncompleteRead(b"", response.length)
    return digest.digest()
