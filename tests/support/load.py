"""The load client that every "0 failed" claim rests on; standard library only.

`run(LoadPlan) -> LoadReport`, and the same as a command: `python -m tests.support.load --help`.
Owns the connections, the schedule and the judgement of each answer. It refuses addresses that
are not loopback unless told otherwise.

How it stays honest: latency counts from the time a request was due, not from when it could be
sent; every request ends as exactly one of ok, failed or wrong; every body is compared, not
sampled; the one retry it makes (a GET on a reused connection that was closed before the first
byte of an answer) is counted apart. Like any careful client it looks whether an idle connection
was closed before it reuses it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import ipaddress
import random
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.http_response import BadResponseError, Response, ResponseReader
from tests.support.load_report import LoadPlan, LoadReport, Tally

_TIMEOUT_SWEEP_S = 0.05
_PROGRESS_S = 1.0
_CLOSED_LOOP_PAUSE_S = 0.05  # after a failure
_BODY_POOL_BYTES = 4 * 1024 * 1024


class RemoteRefusedError(ValueError):
    """The URL's address is not loopback and the plan does not allow a remote one."""


@dataclasses.dataclass(slots=True)
class _Request:
    method: str
    path: str
    due_s: float
    head: bytes
    body: bytes  # as sent: framed when chunked
    echo: bytes | None  # what the answer's body must be
    fresh: bool  # on a connection of its own
    retried: bool = False


async def run(plan: LoadPlan, *, stop: asyncio.Event | None = None) -> LoadReport:
    """Run the plan, or until `stop` is set, and return what was seen.

    Raises RemoteRefusedError, ValueError for a URL it cannot use, OSError when its name has no address.
    A server that cannot be reached is no error: its requests are counted as failed.
    """
    runner = _Runner(plan, _address(plan))
    return await runner.run(stop or asyncio.Event())


def _address(plan: LoadPlan) -> tuple[str, int]:
    parts = urlsplit(plan.url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"URL is {plan.url!r}; use http://ADDRESS[:PORT]")
    port = parts.port or 80
    found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    address = str(found[0][4][0])
    if not plan.allow_remote and not ipaddress.ip_address(address).is_loopback:
        raise RemoteRefusedError(
            f"{parts.hostname} is {address}, not loopback; "
            "use --allow-remote only for a server that is yours to load"
        )
    return address, port


class _RequestMaker:
    """Draws requests in the plan's shares; what it makes depends on the seed alone."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._random = random.Random(plan.seed)
        self._pool = self._random.randbytes(_BODY_POOL_BYTES + plan.post_max_bytes)
        host = plan.host or urlsplit(plan.url).netloc
        self._common = f" HTTP/1.1\r\nHost: {host}\r\nUser-Agent: wsgiapp-load\r\nAccept: */*\r\n"

    def make(self, due_s: float) -> _Request:
        plan, draw = self._plan, self._random.random()
        fresh = self._random.random() < plan.new_connection_share
        if draw < plan.post_share:
            return self._post(due_s, fresh=fresh or not plan.post_reuse)
        slow = draw < plan.post_share + plan.slow_share
        path = f"/slow?ms={plan.slow_ms}" if slow else plan.get_path
        head = self._head("GET", path, fresh=fresh)
        return _Request("GET", path, due_s, head, b"", None, fresh)

    def _post(self, due_s: float, *, fresh: bool) -> _Request:
        # Mostly small, some large: squared, as sizes of real forms and uploads are skewed.
        size = int(self._plan.post_max_bytes * self._random.random() ** 2)
        start = self._random.randrange(_BODY_POOL_BYTES)
        body = self._pool[start : start + size]
        if self._random.random() < 0.5:
            extra, framed = "Transfer-Encoding: chunked\r\n", self._chunked(body)
        else:
            extra, framed = f"Content-Length: {size}\r\n", body
        extra += "Content-Type: application/octet-stream\r\n"
        head = self._head("POST", "/echo", fresh=fresh, extra=extra)
        return _Request("POST", "/echo", due_s, head, framed, body, fresh)

    def _head(self, method: str, path: str, *, fresh: bool, extra: str = "") -> bytes:
        close = "Connection: close\r\n" if fresh else ""
        return f"{method} {path}{self._common}{extra}{close}\r\n".encode("latin-1")

    def _chunked(self, body: bytes) -> bytes:
        parts, at = [], 0
        while at < len(body):
            piece = body[at : at + self._random.randint(1, 16 * 1024)]
            parts += [b"%x\r\n" % len(piece), piece, b"\r\n"]
            at += len(piece)
        return b"".join([*parts, b"0\r\n\r\n"])


class _Connection(asyncio.Protocol):
    """One connection, at most one request on it at a time; tells its runner how that ended."""

    def __init__(
        self, runner: _Runner, sock: socket.socket, request: _Request, *, pooled: bool
    ) -> None:
        self._runner = runner
        self._sock = sock
        self._reader = ResponseReader()
        self._transport: asyncio.Transport | None = None
        self._uses = 0
        self.request: _Request | None = request
        self.pooled = pooled

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        assert self.request is not None
        self._transport = transport
        self._runner.on_connected(self)
        self.send(self.request)

    @property
    def reused(self) -> bool:
        return self._uses > 1

    def peek(self) -> bytes | None:
        """Return what waits on this idle connection: None for nothing, b"" for its end."""
        if self._transport is None or self._transport.is_closing():
            return b""
        try:
            return self._sock.recv(64, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def send(self, request: _Request) -> None:
        assert self._transport is not None
        self.request = request
        self._uses += 1
        self._transport.write(request.head + request.body)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        request = self.request
        if request is None:
            self._runner.on_unsolicited(self, data)
            return
        try:
            response = self._reader.next()
        except BadResponseError as error:
            self._give_up()
            self._runner.on_bad(request, str(error))
            return
        if response is None:
            return
        if not self._reader.is_empty:
            self._give_up()
            self._runner.on_bad(request, "bytes after the answer")
            return
        self.request = None
        self._runner.on_answer(self, request, response)

    def eof_received(self) -> None:
        """Let the transport close: an answer cannot come any more."""

    def connection_lost(self, exc: Exception | None) -> None:
        request, self.request = self.request, None
        how = "reset" if isinstance(exc, ConnectionResetError) else "closed"
        if exc is not None and not isinstance(exc, ConnectionResetError):
            how = f"lost ({exc})"
        self._runner.on_lost(
            self, request, how=how, answered=not self._reader.is_empty, got=self._reader.progress
        )

    def fail(self, reason: str) -> None:
        """Give up on the running request."""
        request, got = self.request, self._reader.progress
        if request is not None:
            self._give_up()
            self._runner.on_failed(request, reason, got)

    def _give_up(self) -> None:
        self.request = None
        self.abort()


class _Runner:
    """One run: the schedule, the pool of connections, the judgement."""

    def __init__(self, plan: LoadPlan, address: tuple[str, int]) -> None:
        self.plan = plan
        self.tally = Tally()
        self._address = address
        self._family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._maker = _RequestMaker(plan)
        self._loop = asyncio.get_running_loop()
        self._started_s = self._loop.time()
        self._started_at = time.time()
        self._idle: deque[_Connection] = deque()
        self._open: set[_Connection] = set()
        self._pool_size = 0  # keep-alive connections open or being opened
        self._waiting: deque[_Request] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._unfinished = 0
        self._stopping = False
        self._all_done = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> LoadReport:
        # The request maker's start-up (a pool of random bytes) is not the server's time.
        self._started_s, self._started_at = self._loop.time(), time.time()
        sweeper = self._loop.create_task(self._sweep_timeouts())
        try:
            if self.plan.rate:
                await self._send_at_rate(stop)
            else:
                await self._send_in_turn(stop)
            self._stopping = True
            if self._unfinished:
                await self._all_done.wait()
            return self.report()  # before the connections are closed: that is not the server's
        finally:
            sweeper.cancel()
            for task in self._connecting:
                task.cancel()
            for connection in self._open:
                connection.abort()
            await asyncio.sleep(0)  # let the transports close

    def report(self) -> LoadReport:
        return self.tally.report(started_at=self._started_at, elapsed_s=self._now())

    def _now(self) -> float:
        return self._loop.time() - self._started_s

    # --- the schedule -------------------------------------------------------------------------

    async def _send_at_rate(self, stop: asyncio.Event) -> None:
        gap_s, due_s = 1.0 / self.plan.rate, 0.0
        while due_s < self.plan.duration_s and not stop.is_set():
            now = self._now()
            if due_s > now:
                await asyncio.sleep(due_s - now)
                continue
            self.tally.client_lag_max_s = max(self.tally.client_lag_max_s, now - due_s)
            self._submit(self._maker.make(due_s))
            due_s += gap_s
            if now - due_s > gap_s:
                await asyncio.sleep(0)  # behind: let the answers in between two requests

    async def _send_in_turn(self, stop: asyncio.Event) -> None:
        for _ in range(self.plan.connections):
            self._submit(self._maker.make(self._now()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), self.plan.duration_s)

    async def _sweep_timeouts(self) -> None:
        while True:
            await asyncio.sleep(_TIMEOUT_SWEEP_S)
            oldest_s = self._now() - self.plan.timeout_s
            for connection in list(self._open):
                if connection.request is not None and connection.request.due_s < oldest_s:
                    connection.fail("timeout")
            while self._waiting and self._waiting[0].due_s < oldest_s:
                self.on_failed(self._waiting.popleft(), "timeout", "no connection became free")

    # --- sending ------------------------------------------------------------------------------

    def _submit(self, request: _Request) -> None:
        self.tally.sent += 1
        self._unfinished += 1
        self._dispatch(request)

    def _dispatch(self, request: _Request) -> None:
        if request.fresh or request.retried:
            self._connect(request, pooled=False)
            return
        while self._idle:
            connection = self._idle.popleft()
            waits = connection.peek()
            if waits is None:
                connection.send(request)
                return
            # Its connection_lost frees the place in the pool.
            if waits:
                self.on_unsolicited(connection, waits)
            else:
                self.tally.idle_closes += 1
                connection.close()
        if self._pool_size < self.plan.connections:
            self._connect(request, pooled=True)
        else:
            self._waiting.append(request)

    def _connect(self, request: _Request, *, pooled: bool) -> None:
        self._pool_size += pooled
        task = self._loop.create_task(self._connect_and_send(request, pooled=pooled))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect_and_send(self, request: _Request, *, pooled: bool) -> None:
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            left_s = max(0.001, request.due_s + self.plan.timeout_s - self._now())
            await asyncio.wait_for(self._loop.sock_connect(sock, self._address), left_s)
            await self._loop.create_connection(
                lambda: _Connection(self, sock, request, pooled=pooled), sock=sock
            )
        except (OSError, TimeoutError) as error:
            sock.close()
            self._pool_size -= pooled
            reason = "timeout" if isinstance(error, TimeoutError) else "connect"
            self.on_failed(request, reason, str(error) or "no connection in time")
            if pooled:
                self._serve_waiting()
            return

    def _serve_waiting(self) -> None:
        if self._waiting:
            self._dispatch(self._waiting.popleft())

    # --- what the connections tell ------------------------------------------------------------

    def on_connected(self, connection: _Connection) -> None:
        self.tally.connections_opened += 1
        self._open.add(connection)

    def on_answer(self, connection: _Connection, request: _Request, response: Response) -> None:
        if not (connection.pooled and response.keep_alive):
            connection.close()
        elif self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._idle.append(connection)
        self._judge(request, response)

    def on_bad(self, request: _Request, detail: str) -> None:
        """The answer was no proper HTTP."""
        self.on_failed(request, "bad response", detail)

    def on_failed(self, request: _Request, reason: str, detail: str) -> None:
        detail = f"{request.method} {request.path}: {detail}"
        self.tally.add_failed(request.due_s, self._now(), reason=reason, detail=detail)
        self._finish(failed=True)

    def on_unsolicited(self, connection: _Connection, data: bytes) -> None:
        """An idle connection brought bytes nobody asked for: another request's answer."""
        connection.abort()
        now = self._now()
        self.tally.sent += 1  # keeps sent == ok + failed + wrong
        detail = f"{bytes(data[:60])!r} on an idle connection"
        self.tally.add_wrong(now, now, reason="unsolicited answer", detail=detail)

    def on_lost(
        self,
        connection: _Connection,
        request: _Request | None,
        *,
        how: str,
        answered: bool,
        got: str,
    ) -> None:
        self._open.discard(connection)
        self._pool_size -= connection.pooled
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)
            self.tally.idle_closes += 1
        if connection.pooled:
            self._serve_waiting()
        if request is None:
            return
        if request.method == "GET" and connection.reused and not answered:
            self.tally.retried_reused_get += 1
            request.retried = True
            self._dispatch(request)
        elif answered:
            self.on_failed(request, f"{how} in the middle of the answer", got)
        else:
            kind = "reused" if connection.reused else "new"
            self.on_failed(request, f"{how} before the answer", f"on a {kind} connection")

    def _judge(self, request: _Request, response: Response) -> None:
        now = self._now()
        version = response.fields.get("x-app-version")
        if response.status != 200:
            self.on_failed(request, f"status {response.status}", repr(response.body[:80]))
            return
        if version is not None:
            self.tally.add_version(version, now)
        problem = _find_wrong(request, response, expect_version=self.plan.expect_version)
        if problem is None:
            self.tally.bytes_checked += len(request.echo or b"")
            self.tally.add_ok(request.due_s, now)
        else:
            reason, detail = problem
            self.tally.add_wrong(request.due_s, now, reason=reason, detail=detail)
        self._finish()

    def _finish(self, *, failed: bool = False) -> None:
        self._unfinished -= 1
        if self.plan.rate == 0 and not self._stopping:
            # Later, not now: a server that refuses at once must not recurse or spin.
            self._loop.call_later(_CLOSED_LOOP_PAUSE_S if failed else 0, self._submit_next)
        elif self._stopping and not self._unfinished:
            self._all_done.set()

    def _submit_next(self) -> None:
        if not self._stopping:
            self._submit(self._maker.make(self._now()))


def _find_wrong(
    request: _Request, response: Response, *, expect_version: bool
) -> tuple[str, str] | None:
    """Return (reason, detail) when a 200 is not the answer to the request; pure."""
    if request.echo is not None and response.body != request.echo:
        at = next(
            (
                i
                for i, (a, b) in enumerate(zip(request.echo, response.body, strict=False))
                if a != b
            ),
            min(len(request.echo), len(response.body)),
        )
        detail = (
            f"sent {len(request.echo)} bytes, got {len(response.body)}, first difference at {at}"
        )
        return "body is not the echo", detail
    if request.method == "GET" and expect_version and "x-app-version" not in response.fields:
        return "no X-App-Version", f"GET {request.path} without the header"
    return None


# --- the command ------------------------------------------------------------------------------


def _parse(argv: list[str]) -> tuple[LoadPlan, argparse.Namespace]:
    defaults = LoadPlan(url="")
    parser = argparse.ArgumentParser(prog="python -m tests.support.load", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--url", required=True, help="http://ADDRESS:PORT; loopback unless --allow-remote")
    add("--host", help="Host header (default: from the URL)")
    pace = parser.add_mutually_exclusive_group(required=True)
    pace.add_argument("--rate", type=float, default=0.0, help="open loop: requests per second")
    pace.add_argument("--closed", action="store_true", help="closed loop over --connections")
    add("--connections", type=int, default=defaults.connections)
    add("--duration", type=float, default=defaults.duration_s, dest="duration_s", metavar="S")
    add("--timeout", type=float, default=defaults.timeout_s, dest="timeout_s", metavar="S")
    add("--post-share", type=float, default=defaults.post_share)
    add("--post-max-bytes", type=int, default=defaults.post_max_bytes)
    add(
        "--post-on-new-connections",
        action="store_false",
        dest="post_reuse",
        help="each POST on its own connection",
    )
    add("--new-connection-share", type=float, default=defaults.new_connection_share)
    add("--slow-share", type=float, default=defaults.slow_share)
    add("--slow-ms", type=int, default=defaults.slow_ms)
    add("--get-path", default=defaults.get_path)
    add("--any-version", action="store_false", dest="expect_version")
    add("--allow-remote", action="store_true")
    add("--seed", type=int)
    add("--json", metavar="FILE", type=Path, help="write the report there as JSON")
    add("--progress", action="store_true", help="one JSON report a second on standard output")
    args = parser.parse_args(argv)
    if not args.closed and args.rate <= 0:
        parser.error(f"--rate is {args.rate:g}; use a number above 0, or --closed")
    values = {f.name: getattr(args, f.name) for f in dataclasses.fields(LoadPlan)}
    try:
        return LoadPlan(**values), args
    except ValueError as error:
        parser.error(str(error))


async def _run_command(plan: LoadPlan, args: argparse.Namespace) -> LoadReport:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    runner = _Runner(plan, _address(plan))
    progress = loop.create_task(_print_progress(runner)) if args.progress else None
    try:
        return await runner.run(stop)
    finally:
        if progress is not None:
            progress.cancel()


async def _print_progress(runner: _Runner) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_S)
        print(runner.report().to_json(), flush=True)


def main(argv: list[str]) -> int:
    """Run the command; 0 when nothing failed, 1 when something did, 2 for a wrong command line.

    INT and TERM end the run early: requests in flight are waited for and the report is printed.
    """
    plan, args = _parse(argv)
    try:
        report = asyncio.run(_run_command(plan, args))
    except (ValueError, OSError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    if args.json is not None:
        args.json.write_text(report.to_json() + "\n")
    print(report.to_json() if args.progress else report.to_text(), flush=True)
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
