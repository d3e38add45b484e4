"""Starts engines for tests, and talks raw HTTP to them."""

from __future__ import annotations

import json
import os
import queue
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prefork import _engine
from prefork.config.access_log import DEFAULT_FIELDS, compile_format

from tests.support.wait import UNHURRIED_S

ROOT = Path(__file__).resolve().parents[2]
SETTINGS: dict[str, Any] = {
    "threads": 1,
    "keep_alive_s": 30.0,
    "request_timeout_s": 0.0,
    "header_timeout_s": 5.0,
    "body_timeout_s": 5.0,
    "min_body_rate": 0,
    "write_timeout_s": 5.0,
    "min_response_rate": 0,
    "limit_request_line": 8190,
    "limit_request_fields": 100,
    "limit_request_field_size": 8190,
    "limit_head_bytes": 65536,
    "max_request_body": 0,
    "stream_request_bodies": False,
    "greenlets": False,
    "buffer_memory": 64 << 20,
    "spool_dir": tempfile.gettempdir(),
    "spool_size": 256 << 20,
    "max_requests": 0,
    "max_connections": 4000,
    "forwarded_allow_ips": [],
    "script_name": "",
    "server_software": "prefork-test",
    "multiprocess": False,
    "access_log": None,
    "access_log_lock_fd": -1,
    "hide_query_strings": False,
}
# The access log's usual lines.
JSON_LINES = compile_format("json", DEFAULT_FIELDS, {"pid": 7, "worker": 1, "generation": 2})

SHOWN_CELLS = ("in_flight", "connections", "overdue", "timeouts", "rejects", "disconnects", "bytes_in", "bytes_out")  # fmt: skip


class Stage:
    """What engines of one server share: listener, stats table, handover pair."""

    def __init__(self, listener: socket.socket | None = None, slots: int = 4) -> None:
        self.listener = listener or socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = self.listener.getsockname()
        layout = _engine.LAYOUT
        self.stats_fd = os.memfd_create("stats")
        os.ftruncate(self.stats_fd, layout["header_bytes"] + (slots + 1) * layout["slot_bytes"])
        os.pwrite(self.stats_fd, struct.pack("<QQ", layout["magic"], layout["version"]), 0)
        self.pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in self.pair:
            end.setblocking(False)
        self.hosts: list[Host] = []
        self._clients: list[Client] = []

    def cell(self, slot: int, name: str, index: int = 0) -> int:
        """Return one cell of a worker's slot."""
        layout = _engine.LAYOUT
        at = layout["header_bytes"] + slot * layout["slot_bytes"]
        at += 8 * (layout["slot"][name] + index)
        return int(struct.unpack("<Q", os.pread(self.stats_fd, 8, at))[0])

    def set_cell(self, slot: int, name: str, value: int) -> None:
        """Write one cell, as the arbiter would."""
        layout = _engine.LAYOUT
        at = layout["header_bytes"] + slot * layout["slot_bytes"] + 8 * layout["slot"][name]
        os.pwrite(self.stats_fd, struct.pack("<Q", value), at)

    def requests(self, slot: int, method: str, code: str) -> int:
        """Return one cell of the request matrix."""
        layout = _engine.LAYOUT
        row, column = layout["methods"].index(method), layout["codes"].index(code)
        return self.cell(slot, "requests", row * len(layout["codes"]) + column)

    def start(
        self,
        *,
        slot: int = 1,
        log: Path | None = None,
        handover: bool = True,
        file_bytes_max: int = 0,
        **settings: Any,
    ) -> Host:
        """Start an engine in a process of its own and wait until it serves.

        `file_bytes_max` bounds every file that it writes, as a full disk would (RLIMIT_FSIZE); 0 is no bound.
        """
        host = Host(
            self,
            slot=slot,
            log=log,
            handover=handover,
            file_bytes_max=file_bytes_max,
            settings=SETTINGS | settings,
        )
        self.hosts.append(host)
        return host

    def connect(self, timeout_s: float = UNHURRIED_S) -> Client:
        """Open a connection."""
        sock = socket.socket(self.listener.family)
        sock.settimeout(timeout_s)
        sock.connect(self.address)
        client = Client(sock)
        self._clients.append(client)
        return client

    def close(self) -> None:
        """End everything that still runs."""
        for client in self._clients:
            client.sock.close()
        for host in self.hosts:
            host.kill()
        self.listener.close()
        for end in self.pair:
            end.close()
        os.close(self.stats_fd)


@contextmanager
def stage(listener: socket.socket | None = None) -> Iterator[Stage]:
    """Give a stage, around a listener of the caller's when there is one, and clean up."""
    it = Stage(listener)
    try:
        yield it
    except BaseException:
        for host in it.hosts:
            cells = {name: it.cell(host.slot, name) for name in SHOWN_CELLS}
            print(f"engine {host.slot}: {cells}\n{host.errors}")
        raise
    finally:
        it.close()


class Host:
    """An engine in a process of its own."""

    def __init__(
        self,
        stage: Stage,
        *,
        slot: int,
        log: Path | None,
        handover: bool,
        file_bytes_max: int,
        settings: dict[str, Any],
    ) -> None:
        pair = [end.fileno() for end in stage.pair] if handover else []
        fds = [stage.listener.fileno(), stage.stats_fd, *pair]
        log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if log else -1
        told = {
            "listeners": [stage.listener.fileno()],
            "settings": settings,
            "stats_fd": stage.stats_fd,
            "slot": slot,
            "access_log_fd": log_fd,
            "handover": pair,
            "file_bytes_max": file_bytes_max,
        }
        stage.set_cell(slot, "worker_state", 2)
        self.slot = slot
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.process.engine_host", json.dumps(told)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[*fds, *([log_fd] if log else [])],
        )
        if log:
            os.close(log_fd)
        self.events: queue.Queue[list[Any]] = queue.Queue()
        self.errors = ""
        self._readers = [
            threading.Thread(target=self._read_events, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.expect("ready", within_s=120)

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.put(json.loads(line))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors += line.decode()

    def order(self, word: str) -> None:
        """Give an order, handover, close, stop or release, and wait until it is taken."""
        assert self.process.stdin is not None
        self.process.stdin.write(word.encode() + b"\n")
        self.process.stdin.flush()
        self.expect("taken")

    def release(self) -> None:
        """Let the calls of `/held` return, those that run and those that come."""
        self.order("release")

    def expect(self, name: str, within_s: float = UNHURRIED_S) -> list[Any]:
        """Wait for the next event, which must have this name; `shut` may come at any time."""
        try:
            event = self.events.get(timeout=within_s)
            while event == ["shut"] and name != "shut":
                event = self.events.get(timeout=within_s)
        except queue.Empty:
            raise AssertionError(f"no {name} within {within_s} s; stderr: {self.errors}") from None
        assert event[0] == name, (event, self.errors)
        return event

    def is_idle(self) -> bool:
        """Ask the engine whether nothing is left to do."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"idle\n")
        self.process.stdin.flush()
        return bool(self.expect("idle")[1])

    def end(self, within_s: float = UNHURRIED_S) -> None:
        """Wait until the engine is drained and the process has ended well."""
        self.expect("drained", within_s)
        self.expect("ended")
        assert self.process.wait(UNHURRIED_S) == 0, self.errors

    def kill(self) -> None:
        """End it at once, if it still runs."""
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(5)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class Sender(threading.Thread):
    """Sends bytes from a thread of its own, as the kernel takes only so much that nobody reads."""

    def __init__(self, client: Client, data: bytes, *, step: int, every_s: float) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._data = memoryview(data)
        self._step = step
        self._pause = threading.Event()
        self._every_s = every_s

    def run(self) -> None:
        with suppress(OSError):  # the server may end the connection before it has read all
            for at in range(0, len(self._data), self._step):
                self._client.send(self._data[at : at + self._step])
                if self._every_s and self._pause.wait(self._every_s):
                    return

    def is_done(self) -> bool:
        return not self.is_alive()

    def stop(self) -> None:
        """End it, in the middle if need be."""
        self._pause.set()


@contextmanager
def sending(
    client: Client, data: bytes, *, step: int = 1 << 18, every_s: float = 0.0
) -> Iterator[Sender]:
    """Send `data` in steps while the block runs."""
    sender = Sender(client, data, step=step, every_s=every_s)
    sender.start()
    try:
        yield sender
    finally:
        sender.stop()
        sender.join(20)


class Answer:
    """One HTTP answer."""

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        self.status = status
        self.head = head
        self.body = body

    def field(self, name: str) -> str | None:
        """Return a field's value."""
        match = re.search(rb"\r\n" + name.encode() + rb": ([^\r]*)", self.head, re.IGNORECASE)
        return match[1].decode("latin-1") if match else None

    def __repr__(self) -> str:
        return f"Answer({self.status}, {self.head!r}, {self.body[:80]!r})"


class Client:
    """One connection, with a strict reader of answers."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.is_closing = False
        self._held = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes | memoryview) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def ask(
        self, target: str = "/", *, method: str = "GET", body: bytes | None = None, more: str = ""
    ) -> Answer:
        """Send a request and read its answer."""
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        head = f"{method} {target} HTTP/1.1\r\nHost: test\r\n{length}{more}\r\n"
        self.send(head.encode() + (body or b""))
        return self.read(is_head=method == "HEAD")

    def read(self, *, is_head: bool = False) -> Answer:
        """Read one answer. EOFError tells how much of it came when the connection ends early."""
        head = self._until(b"\r\n\r\n")
        status = int(head[9:12])
        answer = Answer(status, head, b"")
        self.is_closing = answer.field("Connection") == "close"
        if status == 100 or is_head or status in (204, 304):
            return answer
        length = answer.field("Content-Length")
        if length is not None:
            answer.body = self._exactly(int(length))
        elif (answer.field("Transfer-Encoding") or "") == "chunked":
            while size := int(self._until(b"\r\n"), 16):
                answer.body += self._exactly(size)
                assert self._exactly(2) == b"\r\n"
            assert self._exactly(2) == b"\r\n"
        else:
            answer.body = self.rest()
        return answer

    def rest(self) -> bytes:
        """Read until the server ends the connection."""
        while self._more():
            pass
        rest, self._held = self._held, b""
        return rest

    def until_body(self) -> bytes:
        """Read the head of an answer only."""
        return self._until(b"\r\n\r\n")

    def exactly(self, count: int) -> bytes:
        """Read so many bytes of a body."""
        return self._exactly(count)

    def held(self) -> int:
        """Return how many bytes were read that nobody has asked for yet."""
        return len(self._held)

    def is_ended(self) -> bool:
        """Wait for the end of the connection; false when bytes come instead."""
        return not self._held and not self._more()

    def _more(self) -> bool:
        data = self.sock.recv(1 << 18)
        self._held += data
        return bool(data)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._held:
            if not self._more():
                raise EOFError(f"the connection ended; unread: {self._held[:200]!r}")
        part, self._held = self._held.split(mark, 1)
        return part + mark

    def _exactly(self, count: int) -> bytes:
        while len(self._held) < count:
            if not self._more():
                raise EOFError(f"the connection ended {count - len(self._held)} bytes early")
        part, self._held = self._held[:count], self._held[count:]
        return part
