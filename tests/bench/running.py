"""A server while it runs: started on its own core, its process tree looked at, stopped.

Owns every process that the benchmark starts besides the load generator. Knows nothing of what
is measured. Linux only: reads /proc.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import peers
from tests.bench.peers import Server

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PORTS = range(22200, 22400)


class ServerError(Exception):
    """The server did not come up, or ended on its own; the text holds the end of its log."""


def cores() -> tuple[int, int]:
    """One core for the server and another for everything that loads it."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SystemExit(
            f"the benchmark may use CPU {allowed} only; it needs two, one for the server and one"
            " for the load generator"
        )
    return allowed[-1], allowed[0]


class Running:
    """A started server; `pid` is the process that takes its signals."""

    def __init__(self, server: Server, process: subprocess.Popen[bytes], port: int, log: Path):
        self.server = server
        self.port = port
        self.pid = process.pid
        self._process = process
        self._log = log

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def pids(self) -> list[int]:
        """The server's process and all that descend from it, parents first."""
        children: dict[int, list[int]] = {}
        for pid, parent in _parents():
            children.setdefault(parent, []).append(pid)
        found = [self.pid]
        for pid in found:
            found.extend(children.get(pid, ()))
        return found

    def cpu_s(self) -> tuple[float, float]:
        """User and system CPU seconds of the tree so far, children that ended included."""
        user = system = 0
        for pid in self.pids():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                own_user, own_system, ended_user, ended_system = map(int, _stat(pid)[11:15])
                user += own_user + ended_user
                system += own_system + ended_system
        return user / _TICKS_PER_S, system / _TICKS_PER_S

    def rss_bytes(self) -> int:
        """Resident bytes of the tree, shared pages counted once per process."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
        return total

    def wait_ready(self, *, within_s: float) -> None:
        """Return once `/` is answered with 200; raises ServerError."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerError(f"ended with {self._process.returncode}: {self._log_end()}")
            if answers(self.port, timeout_s=max(0.2, deadline - time.monotonic())):
                return
            time.sleep(0.02)
        raise ServerError(f"no answer within {within_s:.0f} s: {self._log_end()}")

    def stop(self, *, within_s: float = 10) -> None:
        """TERM, then KILL for the whole tree; returns when all of it is gone."""
        tree = self.pids()
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        for pid in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _log_end(self) -> str:
        return " | ".join(self._log.read_text(errors="replace").strip().splitlines()[-4:])[-600:]


@contextlib.contextmanager
def running(
    server: Server,
    *,
    app: str,
    logs: Path,
    port: int | None = None,
    prefix: tuple[str, ...] = (),
    within_s: float = 20,
    directory: Path = peers.APPS,
) -> Iterator[Running]:
    """Start `server` with `app` from `directory` on the server's core; stopped on leaving.

    `prefix` goes before the command (valgrind). Raises ServerError when it does not come up.
    """
    port = port or _free_port()
    log = logs / f"{server.name.replace(' ', '-')}-{port}.log"
    command = ["taskset", "-c", str(cores()[0]), *prefix, *server.argv(app=app, port=port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=peers.environment(server, apps=directory),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = Running(server, process, port, log)
    try:
        started.wait_ready(within_s=within_s)
        yield started
    finally:
        started.stop()


def answers(port: int, *, timeout_s: float) -> bool:
    """Whether a new connection to `port` gets a 200 for `/` in time."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            return connection.recv(65536).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def _free_port() -> int:
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise SystemExit(f"no free port in {PORTS.start} to {PORTS.stop - 1} on 127.0.0.1")


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield int(entry.name), int(_stat(int(entry.name))[1])


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from `state` on: the name before may hold spaces and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
