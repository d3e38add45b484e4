"""What the arbiter withstands: bursts of signals, hundreds of workers, clients of the control socket that misbehave."""

import json
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.process.harness import Prefork
from tests.support.wait import UNHURRIED_S, wait_until

BUSY = """
import os, time

def when_ready(server):
    open("busy", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
"""


def test_term_among_hundreds_of_sigchld_is_not_lost(folder: Path):
    (folder / "prefork.conf.py").write_text(BUSY)
    with Prefork(cwd=folder, wait=False) as server:
        server.wait((folder / "busy").exists)
        for _ in range(2000):  # the kernel merges some: its queue holds one of each kind
            server.signal(signal.SIGCHLD)
            time.sleep(0.0005)
        server.signal(signal.SIGTERM)
        (folder / "go").touch()
        assert server.wait_exit() == 0


def test_most_workers_that_are_allowed_start(folder: Path):
    with Prefork("-w", "512", cwd=folder, wait=False) as server:
        server.wait_serving(240)
        assert server.get()[0] == 200
        assert len(server.workers()) == 512
        assert "worker exited" not in server.log()
        server.signal(signal.SIGTERM)
        assert server.wait_exit(240) == 0


def connect(server: Prefork) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(UNHURRIED_S)
    sock.connect(str(server.run_dir / "control.sock"))
    return sock


def read_all(sock: socket.socket) -> bytes:
    received = b""
    while data := sock.recv(65536):
        received += data
    return received


@pytest.mark.parametrize("end", [b"\n", b""])
def test_client_that_has_ended_its_side_gets_its_answer(folder: Path, end: bytes):
    with Prefork(cwd=folder) as server, connect(server) as sock:
        sock.sendall(b'{"op":"reload","id":"half"}' + end)
        sock.shutdown(socket.SHUT_WR)
        answer = json.loads(read_all(sock))
        assert (answer["id"], answer["result"]) == ("half", "succeeded")
        assert server.ask({"op": "status"})["generation"] == 2


def memory_kib(pid: int) -> int:
    return (
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024
    )


def test_client_that_never_reads_costs_no_memory(folder: Path):
    with Prefork(cwd=folder) as server:
        before = memory_kib(server.process.pid)
        with connect(server) as sock:
            lines = b'{"op":"status"}\n' * 400_000
            with pytest.raises(ConnectionError):  # it is dropped
                sock.sendall(lines)
        assert memory_kib(server.process.pid) - before < 8 * 1024
        assert server.ask({"op": "status"})["state"] == "serving"


def test_requests_that_wait_are_bounded_for_each_client(folder: Path):
    with Prefork(cwd=folder) as server, connect(server) as sock:
        with suppress(ConnectionError):  # dropped before it has sent all
            sock.sendall(b'{"op":"reload","id":"again"}\n' * 2000)
        # Dropped, with or without having been answered some of them.
        wait_until(lambda: is_dropped(sock), what="still connected")
        assert server.ask({"op": "status"})["state"] == "serving"


def is_dropped(sock: socket.socket) -> bool:
    try:
        return not sock.recv(65536)
    except ConnectionError:
        return True


def test_line_that_is_too_long_is_answered(folder: Path):
    with Prefork(cwd=folder) as server, connect(server) as sock:
        sock.sendall(json.dumps({"op": "reload", "id": "x" * 70_000}).encode() + b"\n")
        assert "at most 65536 bytes" in json.loads(read_all(sock))["error"]
