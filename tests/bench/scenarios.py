"""Three things that happen in production, each done to every server that can take part.

A result is a dict of figures, or `{"reason": …}` for a server that has no such feature or failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.load import BARE_HEAD, CONNECTIONS, Load, LoadError, LoadGenerator
from tests.bench.peers import APPS, Server
from tests.bench.running import Running, ServerError, running
from tests.support.load import run
from tests.support.load_report import LoadPlan

Result = dict[str, Any]

RELOAD_RATE = 200
RELOAD_IMPORT_S = 3
STALLED_CLIENTS = 1000
_RELOAD_AFTER_S = 2.0
_RELOAD_RUN_S = 9.0
# Best of so many: on two cores the throughput of 16 connections jumps between two levels, with stalled clients and without.
_STALLED_SAMPLES = 8
_SETTLE_S = 2.0
GREENLET_CONNECTIONS = 200
_GREENLET_SAMPLES = 3
_KILL_PATIENCE_S = 10.0


def reload_under_load(server: Server, *, logs: Path) -> Result:
    """New code by HUP, 3 s to import, at a fixed rate: `sent, failed, retried, p50_ms, worst_ms`.

    `reloaded` is False when the new code never answered. Failed counts wrong answers too; retried
    ones are GETs on a reused connection that was closed before the first byte of the answer.
    """
    if not server.has_reload:
        return {"reason": "no reload"}
    with tempfile.TemporaryDirectory(prefix="bench-reload-") as name:
        source = Path(name) / "slow_import.py"
        shutil.copy(APPS / "slow_import.py", source)
        with running(server, app="slow_import:app", logs=logs, directory=Path(name)) as started:
            return asyncio.run(_reload(started, new_code=lambda: _write_version_2(source)))


def _write_version_2(source: Path) -> None:
    source.write_text(source.read_text().replace('VERSION = "1"', 'VERSION = "2"'))


async def _reload(started: Running, *, new_code: Callable[[], None]) -> Result:
    plan = LoadPlan(
        url=started.url,
        rate=RELOAD_RATE,
        duration_s=_RELOAD_RUN_S,
        post_share=0,
        new_connection_share=0.25,
        timeout_s=10,
    )
    load = asyncio.create_task(run(plan))
    await asyncio.sleep(_RELOAD_AFTER_S)
    new_code()
    os.kill(started.pid, signal.SIGHUP)
    report = await load
    return {
        "sent": report.sent,
        "failed": report.failed + report.wrong,
        "retried": report.retried_reused_get,
        "p50_ms": report.p50_s * 1000,
        "worst_ms": report.max_s * 1000,
        "reloaded": "2" in report.versions,
    }


def stalled_clients(server: Server, *, generator: LoadGenerator, logs: Path) -> Result:
    """1,000 clients that stop in the middle: `alone_per_s, beside_per_s, loss, grown_mib`.

    A sixth each has sent half a head; half a body of 2 MB; the head of such a body with `Expect`; or does
    not read an answer of 2 MB that is a list, a generator, a file. `loss` is
    1 - beside / alone, the best of eight samples each, taken in turn, and 1 when it hung;
    `grown_mib` what the tree's memory grew by then.
    """
    with running(server, app="stall:app", logs=logs) as started:
        alone = beside = 0.0
        before = started.rss_bytes()
        for _ in range(_STALLED_SAMPLES):
            alone = max(alone, generator.put(started.port, head=BARE_HEAD, seconds=1).per_s)
            with _stalled(started.port) as connected:
                time.sleep(_SETTLE_S)  # nothing tells from outside that a server took them all in
                load = _put_beside(started, generator)
                grown = started.rss_bytes() - before
            if load is None or load.missing:  # it hangs: more samples would only wait
                break
            beside = max(beside, load.per_s)
    return {
        "connected": connected,
        "alone_per_s": alone,
        "beside_per_s": beside,
        "loss": max(0.0, 1 - beside / alone),
        "grown_mib": grown / 2**20,
    }


def _put_beside(started: Running, generator: LoadGenerator) -> Load | None:
    """None when the server does not even take the connections."""
    try:
        return generator.put(started.port, head=BARE_HEAD, seconds=1)
    except LoadError:
        return None


@contextlib.contextmanager
def _stalled(port: int) -> Iterator[int]:
    """Hold the stalled connections open; yields how many the server's kernel took."""
    half_head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow"
    post = b"POST /read HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2000000\r\n"
    half_body = post + b"\r\n" + b"x" * 1_000_000
    silent = post + b"Expect: 100-continue\r\n\r\n"
    unread = [
        b"GET /" + way + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        for way in (b"list", b"generator", b"file")
    ]
    kinds = (half_head, half_body, silent, *unread)
    with contextlib.ExitStack() as stack:
        connected = 0
        for number in range(STALLED_CLIENTS):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(1)
            try:
                client.connect(("127.0.0.1", port))
                client.sendall(kinds[number % len(kinds)])
            except OSError:
                break  # the accept queue is full: the rest would only wait as well
            connected += 1
        yield connected


def worker_killed(server: Server, *, logs: Path) -> Result:
    """kill -9 of the only worker: `ms` until a new connection is answered by its replacement."""
    if not server.is_supervised:
        return {"reason": "one process, nobody replaces it"}
    with running(server, app="worker_pid:app", logs=logs) as started:
        worker = _worker_pid(started.port, until=time.monotonic() + 5)
        killed = time.monotonic()
        os.kill(worker, signal.SIGKILL)
        _worker_pid(started.port, until=killed + _KILL_PATIENCE_S, other_than=worker)
        return {"ms": (time.monotonic() - killed) * 1000}


def _worker_pid(port: int, *, until: float, other_than: int = 0) -> int:
    """Ask for the worker's pid on new connections until one tells another than `other_than`."""
    while (left_s := until - time.monotonic()) > 0:
        with contextlib.suppress(OSError, ValueError):
            pid = _ask(port, timeout_s=left_s)
            if pid != other_than:
                return pid
        time.sleep(0.001)
    raise ServerError(f"no replacement within {_KILL_PATIENCE_S:.0f} s")


def _ask(port: int, *, timeout_s: float) -> int:
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        while part := connection.recv(65536):
            answer += part
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ValueError(f"answered {answer[:40]!r}")
    return int(answer.rpartition(b"\r\n\r\n")[2])


def greenlets(server: Server, *, generator: LoadGenerator, logs: Path) -> Result:
    """Worker class gevent: `hello_per_s, hello_us`, and `sleep_per_s, sleep_us` of an app that waits 10 ms.

    Requests per second and CPU µs per request of the whole process tree, each the best of several
    samples; `hello` with the usual connections, `sleep` with GREENLET_CONNECTIONS.
    """
    figures: Result = {}
    for app, connections in (("hello", CONNECTIONS), ("sleep", GREENLET_CONNECTIONS)):
        samples = []
        with running(server, app=f"{app}:app", logs=logs) as started:
            for _ in range(_GREENLET_SAMPLES):
                before = sum(started.cpu_s())
                load = generator.put(
                    started.port, head=BARE_HEAD, seconds=1, connections=connections
                )
                samples.append((load.per_s, (sum(started.cpu_s()) - before) / load.requests * 1e6))
        figures[f"{app}_per_s"] = max(per_s for per_s, _ in samples)
        figures[f"{app}_us"] = min(cpu_us for _, cpu_us in samples)
    return figures


def attempt(step: Callable[[], Result]) -> Result:
    """The step's figures, or the reason it has none."""
    try:
        return step()
    except (ServerError, LoadError) as error:
        return {"reason": str(error)}
