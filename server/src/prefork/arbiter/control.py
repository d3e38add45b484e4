"""The control socket: one JSON object per line each way (docs/contracts.md, section 4).

Owns sockets and lines. What an operation means is the arbiter's matter: a request arrives as an
`Request`, and `answer` sends the reply whenever it is known. A client may end its side after its
requests, and gets its answers all the same; one that takes no answers is dropped.
"""

import json
import os
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefork.errors import Exit, StartupError

LINE_LIMIT = 64 * 1024
CLIENTS_MAX = 32
# What one client may leave unread, and how many answers it may wait for.
UNREAD_LIMIT = 1024 * 1024
UNANSWERED_MAX = 64


@dataclass(eq=False)
class Client:
    """One connection."""

    sock: socket.socket
    received: bytearray = field(default_factory=bytearray)
    to_send: bytearray = field(default_factory=bytearray)
    unanswered: int = 0
    has_ended: bool = False  # sends no more requests


@dataclass(frozen=True)
class Request:
    """One request line."""

    client: Client
    body: dict[str, Any]


class ControlServer:
    """Listens on `path`; `handle` is called with each request."""

    def __init__(
        self, path: Path, selector: selectors.BaseSelector, handle: Callable[[Request], None]
    ) -> None:
        self.path = path
        self.selector = selector
        self.handle = handle
        self.clients: set[Client] = set()
        self.sock = listen(path)
        selector.register(self.sock, selectors.EVENT_READ, self._accept)

    def answer(self, request: Request, reply: dict[str, Any]) -> None:
        """Send the reply to a request; a client that has left gets none."""
        client = request.client
        if client in self.clients:
            client.unanswered -= 1
            client.to_send += json.dumps(reply).encode() + b"\n"
            self._flush(client)

    def close_in_child(self) -> None:
        """Close this process's descriptors; the socket's file stays (used in a forked child)."""
        for client in self.clients:
            client.sock.close()
        self.clients.clear()
        self.sock.close()

    def _accept(self, _: int) -> None:
        try:
            sock, _address = self.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        if len(self.clients) >= CLIENTS_MAX:
            sock.close()
            return
        sock.setblocking(False)
        client = Client(sock)
        self.clients.add(client)
        self._wait_for(client)

    def _on_client(self, client: Client, events: int) -> None:
        # An earlier event of the same moment may have ended it.
        if client in self.clients and events & selectors.EVENT_WRITE:
            self._flush(client)
        if events & selectors.EVENT_READ and client in self.clients:
            self._read(client)

    def _read(self, client: Client) -> None:
        try:
            data = client.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        client.has_ended = not data
        client.received += data
        *lines, rest = client.received.split(b"\n")
        if client.has_ended and rest:
            lines, rest = [*lines, rest], bytearray()
        client.received = bytearray(rest)
        for line in (*lines, *([rest] if len(rest) > LINE_LIMIT else [])):
            if client in self.clients:
                self._on_line(client, bytes(line))
        if client in self.clients:
            self._flush(client)

    def _on_line(self, client: Client, line: bytes) -> None:
        if len(line) > LINE_LIMIT:
            client.has_ended = True
            self._refuse(client, f"a line has at most {LINE_LIMIT} bytes")
            return
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            self._refuse(client, "a line holds one JSON object")
            return
        client.unanswered += 1
        if client.unanswered > UNANSWERED_MAX:
            self._drop(client)
            return
        try:
            self.handle(Request(client, body))
        except Exception:
            self._drop(client)  # rather than let it wait for an answer
            raise

    def _refuse(self, client: Client, why: str) -> None:
        client.unanswered += 1
        self.answer(Request(client, {}), {"error": why})

    def _flush(self, client: Client) -> None:
        """Send what can be sent now, and wait for whatever is still to come: requests, room, answers."""
        try:
            sent = client.sock.send(client.to_send) if client.to_send else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(client)
            return
        del client.to_send[:sent]
        is_done = client.has_ended and not client.to_send and not client.unanswered
        if is_done or len(client.to_send) > UNREAD_LIMIT:
            self._drop(client)
        else:
            self._wait_for(client)

    def _wait_for(self, client: Client) -> None:
        """A client that has ended its side would be readable all the time."""
        reads = 0 if client.has_ended else selectors.EVENT_READ
        writes = selectors.EVENT_WRITE if client.to_send else 0
        if client.sock in self.selector.get_map():
            self.selector.unregister(client.sock)
        if reads | writes:
            self.selector.register(
                client.sock, reads | writes, lambda events: self._on_client(client, events)
            )

    def _drop(self, client: Client) -> None:
        self.clients.discard(client)
        if client.sock in self.selector.get_map():
            self.selector.unregister(client.sock)
        client.sock.close()


def listen(path: Path) -> socket.socket:
    """Return the listening control socket, a left-over file of an earlier server replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.unlink(missing_ok=True)
        sock.bind(str(draft))
        # Before it can be connected to; the umask must not take the group's right.
        draft.chmod(0o660)
        sock.listen(CLIENTS_MAX)
        draft.rename(path)
    except OSError as error:
        sock.close()
        draft.unlink(missing_ok=True)
        raise StartupError(
            f"run_dir is {path.parent}; the control socket cannot be made there: {error.strerror or error}",
            Exit.ENVIRONMENT,
        ) from None
    sock.setblocking(False)
    return sock
