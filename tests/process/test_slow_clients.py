"""Clients that send or read slowly, or not at all: what they cost the app, its time, and everybody else."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process.engines import Client, Stage, stage
from tests.process.harness import Prefork, is_gone, write_app
from tests.support.wait import UNHURRIED_S, wait_until

MIB = 1 << 20


def read_slowly(client: Client, count: int, *, seconds: float) -> int:
    """Read `count` bytes in even steps; returns how many came."""
    began, received = time.monotonic(), 0
    while received < count:
        part = client.sock.recv(min(64 * 1024, count - received))
        if not part:
            break
        received += len(part)
        ahead_s = received / count * seconds - (time.monotonic() - began)
        if ahead_s > 0:
            time.sleep(ahead_s)
    return received


def send_slowly(client: Client, data: bytes, *, seconds: float, steps: int = 40) -> None:
    """Send `data` in even steps."""
    for number in range(steps):
        client.send(data[len(data) * number // steps : len(data) * (number + 1) // steps])
        time.sleep(seconds / steps)


def small_buffers(it: Stage) -> Client:
    """Connect with a small receive buffer, so that what is unread stays with the server."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(UNHURRIED_S)
    sock.connect(it.address)
    return Client(sock)


def read_fast(client: Client) -> bytes:
    """Read an answer with room for more at a time: by 2 KiB, a busy machine takes a minute for a few MB."""
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
    return client.read().body


@contextmanager
def unread(it: Stage, target: str, count: int) -> Iterator[list[Client]]:
    """Clients that have asked for something and do not read it."""
    clients = [small_buffers(it) for _ in range(count)]
    try:
        for client in clients:
            client.send(f"GET {target} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        yield clients
    finally:
        for client in clients:
            client.sock.close()


def assert_answers(it: Stage) -> None:
    """Ask for something else; a client that stalled before it would hold the only app thread for a minute."""
    with it.connect() as client:
        assert client.ask().body == b"hello"


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


# -- the app's time is the time the app computes ------------------------------------------------


def test_slow_reader_of_a_stream_costs_no_time_of_the_app() -> None:
    """Without a spool the app's thread has to wait for the client: still that is not the app's time."""
    with stage() as it:
        host = it.start(request_timeout_s=4.0, spool_size=0)
        with small_buffers(it) as client:
            client.send(b"GET /blocks?count=120&size=100000 HTTP/1.0\r\n\r\n")
            assert read_slowly(client, 12_000_000, seconds=6) == 12_000_000
        assert it.cell(1, "timeouts") == 0
        assert host.events.empty()


def test_slow_upload_to_a_streaming_app_costs_no_time_of_the_app() -> None:
    with stage() as it:
        host = it.start(request_timeout_s=4.0, body_timeout_s=30.0, stream_request_bodies=True)
        with it.connect() as client:
            client.send(b"POST /digest HTTP/1.1\r\nHost: t\r\nContent-Length: 4000000\r\n\r\n")
            send_slowly(client, b"x" * 4_000_000, seconds=6)
            answer = client.read()
            assert (answer.status, answer.body[:8]) == (200, b"4000000 ")
        assert it.cell(1, "timeouts") == 0
        assert host.events.empty()


def test_slow_upload_before_a_long_call_does_not_cost_a_worker(folder: Path) -> None:
    """The arbiter has no clock of its own for the time of a call."""
    write_app(
        folder,
        """
        import os, time

        def app(environ, start_response):
            length = len(environ["wsgi.input"].read())
            time.sleep(float(environ["QUERY_STRING"] or 0))
            start_response("200 OK", [])
            return [b"%d %d" % (length, os.getpid())]
        """,
    )
    arguments = ("-w", "1", "-t", "5", "--stream-request-bodies")
    with Prefork(*arguments, cwd=folder) as server:
        (worker,) = server.workers()
        with Client(socket.create_connection(("127.0.0.1", server.port), UNHURRIED_S)) as client:
            client.send(b"POST /?1 HTTP/1.1\r\nHost: t\r\nContent-Length: 1600000\r\n\r\n")
            send_slowly(client, b"x" * 1_600_000, seconds=6)
            answer = client.read()
        assert (answer.status, answer.body) == (200, b"1600000 %d" % worker)
        assert server.workers() == [worker]
        assert "stuck" not in server.log()


def test_pause_of_all_processes_is_nobody_s_time(folder: Path) -> None:
    """`docker pause`, a suspended machine: nothing ran, so nothing took too long."""
    with Prefork("-w", "2", "-t", "5", cwd=folder) as server, ThreadPoolExecutor(1) as pool:
        workers = server.wait_workers(2)
        family = [server.process.pid, server.mold(), *workers]
        running = pool.submit(server.get, "/wait")
        server.wait(lambda: server.ask({"op": "status"})["workers"]["busy"] == 1)
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(8)  # the pause itself: longer than every bound on what does not run
        # The arbiter first: it looks at workers that have not run since.
        for pid in family:
            os.kill(pid, signal.SIGCONT)
        (folder / "go").touch()
        assert running.result()[0] == 200
        assert server.get("/slow?ms=500")[0] == 200
        assert sorted(server.workers()) == sorted(workers)
        assert "timed out" not in server.log()
        assert "stuck" not in server.log()
        assert "does not run" not in server.log()


def test_worker_that_does_not_run_is_replaced_and_drains(folder: Path) -> None:
    """Nobody has to wait for it: a worker that hangs in the kernel, or was stopped alone."""
    with Prefork("-w", "1", "-t", "5", cwd=folder) as server:
        (worker,) = server.workers()
        assert server.get()[0] == 200
        # The call ends a moment after its answer is there; a worker that is stopped in a call gets its graceful time.
        server.wait(lambda: server.ask({"op": "status"})["workers"]["busy"] == 0, what="still busy")
        os.kill(worker, signal.SIGSTOP)
        server.wait_log("worker does not run")
        server.wait(lambda: server.get()[0] == 200, what="no answer from a replacement")
        server.wait(lambda: is_gone(worker))
        server.wait_log("reason=timeout")


def test_pause_of_the_server_is_not_the_client_s_time() -> None:
    with stage() as it:
        host = it.start(header_timeout_s=4.0, body_timeout_s=4.0)
        with it.connect() as head, it.connect() as body:
            head.send(b"GET / HTTP/1.1\r\nHost")
            body.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nhalf")
            wait_until(lambda: it.cell(1, "connections") == 2, what="both")
            os.kill(host.process.pid, signal.SIGSTOP)
            time.sleep(7)  # the pause itself
            os.kill(host.process.pid, signal.SIGCONT)
            head.send(b": t\r\n\r\n")
            assert head.read().body == b"hello"
            body.send(b"12345")
            assert body.read().body == b"half12345"


@pytest.mark.parametrize("spool_size", [0, 256 * MIB])
def test_pause_of_the_server_is_not_the_reader_s_time(spool_size: int) -> None:
    """It has taken all there was when the server stops, so there is nothing more that it could do."""
    with stage() as it:
        host = it.start(write_timeout_s=4.0, spool_size=spool_size)
        with small_buffers(it) as client:
            client.send(b"GET /blocks?count=300&size=100000 HTTP/1.0\r\n\r\n")
            received = read_slowly(client, 5_000_000, seconds=0)
            os.kill(host.process.pid, signal.SIGSTOP)
            paused = time.monotonic()
            client.sock.settimeout(0.2)
            while time.monotonic() - paused < 7:  # the pause itself
                try:
                    received += len(client.sock.recv(1 << 20))
                except TimeoutError:
                    continue
            os.kill(host.process.pid, signal.SIGCONT)
            client.sock.settimeout(UNHURRIED_S)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
            while part := client.sock.recv(1 << 20):
                received += len(part)
            assert received > 30_000_000


def watchdog_wakeups(pid: int) -> int:
    """How often the engine's watchdog thread has gone to sleep so far."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().startswith("prefork-watch"):
            switches = re.search(r"^voluntary\D+(\d+)", (task / "status").read_text(), re.MULTILINE)
            assert switches is not None
            return int(switches[1])
    raise AssertionError("no watchdog thread")


def test_watchdog_sleeps_while_a_long_call_runs() -> None:
    with stage() as it:
        host = it.start(threads=2, request_timeout_s=30.0)
        with it.connect() as client:
            client.send(b"GET /slow?ms=2500 HTTP/1.1\r\nHost: t\r\n\r\n")
            wait_until(lambda: it.cell(1, "in_flight") == 1, what="the call")
            began, before = time.monotonic(), watchdog_wakeups(host.process.pid)
            assert client.read().body == b"slow"
            wakeups = watchdog_wakeups(host.process.pid) - before
            assert wakeups < 100 * (time.monotonic() - began) + 10


# -- rates of the client's own --------------------------------------------------------------------


def trickle(client: Client, *, every_s: float, at_most: int) -> bool:
    """Send byte after byte; returns whether the server ended it."""
    for _ in range(at_most):
        try:
            client.send(b"x")
        except OSError:
            return True
        client.sock.settimeout(every_s)
        try:
            if client.sock.recv(1, socket.MSG_PEEK):
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
        return True
    return False


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("size", [100, 3_000_000])
def test_body_below_the_rate_is_given_up_after_its_grace(size: int, streams: bool) -> None:
    with stage() as it:
        it.start(body_timeout_s=0.5, min_body_rate=500, stream_request_bodies=streams)
        with it.connect() as client:
            client.send(
                f"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n".encode()
            )
            assert trickle(client, every_s=0.3, at_most=90)
            client.sock.settimeout(UNHURRIED_S)
            assert client.read().status == 408


def test_without_a_rate_only_a_pause_is_too_slow() -> None:
    with stage() as it:
        it.start(body_timeout_s=5.0, min_body_rate=0)
        with it.connect() as client:
            client.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 30\r\n\r\n")
            assert not trickle(client, every_s=0.25, at_most=29)  # 7.25 s
            client.sock.settimeout(UNHURRIED_S)
            client.send(b"x")
            assert client.read().body == b"x" * 30


def test_upload_within_its_rate_passes_however_long_it_takes() -> None:
    with stage() as it:
        it.start(body_timeout_s=4.0, min_body_rate=500, request_timeout_s=4.0)
        with it.connect() as client:
            client.send(b"POST /digest HTTP/1.1\r\nHost: t\r\nContent-Length: 4000000\r\n\r\n")
            send_slowly(client, b"x" * 4_000_000, seconds=6)
            assert client.read().body.startswith(b"4000000 ")


WAYS = ["/big?size=30000000", "/blocks?count=300&size=100000", "/file?size=30000000", "/write?count=300&size=100000"]  # fmt: skip


@pytest.mark.parametrize("spool_size", [0, 256 * MIB])
@pytest.mark.parametrize("target", WAYS)
def test_answer_read_below_the_rate_is_given_up_after_its_grace(
    target: str, spool_size: int
) -> None:
    with stage() as it:
        it.start(write_timeout_s=0.5, min_response_rate=1_000_000, spool_size=spool_size)
        with small_buffers(it) as client:
            client.send(f"GET {target} HTTP/1.1\r\nHost: t\r\n\r\n".encode())

            def is_given_up() -> bool:
                try:
                    data = client.sock.recv(2000)  # at most 100 kB a second
                except ConnectionResetError:
                    data = b""
                return not data or it.cell(1, "disconnects") == 1

            wait_until(is_given_up, what="giving up")
            assert_answers(it)


@pytest.mark.parametrize("spool_size", [0, 256 * MIB])
@pytest.mark.parametrize("target", WAYS)
def test_reader_that_makes_room_seldom_is_not_given_up(target: str, spool_size: int) -> None:
    """The kernel reports room only when a good part of its buffer is free; the client reads all the time."""
    with stage() as it:
        it.start(write_timeout_s=1.5, min_response_rate=500, spool_size=spool_size)
        with small_buffers(it) as client:
            client.send(f"GET {target} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
            assert read_slowly(client, 200_000, seconds=6) == 200_000
            assert it.cell(1, "disconnects") == 0


# -- answers that nobody reads ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "size"),
    [
        ("/blocks?count=40&size=100000", 4_000_000),
        ("/blocks?count=2&size=4000000", 8_000_000),
        ("/write?count=40&size=100000", 4_000_000),
        ("/big?size=8000000", 8_000_000),
        ("/parts?count=80&size=100000", 8_000_000),
        ("/file?size=8000000", 8_000_000),
    ],
)
def test_unread_answers_hold_no_app_thread_and_arrive_whole(target: str, size: int) -> None:
    with stage() as it:
        it.start(write_timeout_s=600, buffer_memory=4 * MIB)
        with unread(it, target, 12) as clients:
            for _ in range(5):
                assert_answers(it)
            for client in clients:
                assert len(read_fast(client)) == size
                assert client.ask().body == b"hello"


@pytest.mark.parametrize("target", ["/big?size=8000000", "/parts?count=80&size=100000", "/blocks?count=80&size=100000"])  # fmt: skip
def test_memory_of_unread_answers_is_bounded(target: str) -> None:
    with stage() as it:
        host = it.start(write_timeout_s=600, buffer_memory=16 * MIB, spool_size=1 << 30)
        assert_answers(it)
        before = rss_bytes(host.process.pid)
        with unread(it, target, 40) as clients:
            assert_answers(it)
            wait_until(lambda: it.cell(1, "in_flight") == 0, what="all calls")
            assert rss_bytes(host.process.pid) - before < 16 * MIB + 24 * MIB
            assert len(read_fast(clients[-1])) == 8_000_000


def test_answer_is_right_when_memory_and_spool_are_full() -> None:
    """Then the app's thread waits for the client, as long as that keeps its rate."""
    with stage() as it:
        it.start(threads=3, write_timeout_s=600, buffer_memory=MIB, spool_size=2 * MIB)
        with unread(it, "/blocks?count=30&size=300000", 2) as clients:
            assert_answers(it)
            for client in clients:
                assert read_fast(client) == b"".join(
                    bytes([65 + i % 26]) * 300_000 for i in range(30)
                )
                assert client.ask().body == b"hello"


@pytest.mark.parametrize("target", ["/blocks?count=40&size=100000", "/big?size=4000000"])
def test_readers_that_do_not_move_make_way_when_everything_is_full(target: str) -> None:
    """However many there are: each holds an app thread, and its part of the spool, for seconds, not for a minute."""
    with stage() as it:
        it.start(write_timeout_s=600, buffer_memory=MIB, spool_size=4 * MIB)
        with unread(it, target, 6), it.connect() as client:
            client.sock.settimeout(UNHURRIED_S)
            assert client.ask().body == b"hello"
            wait_until(lambda: it.cell(1, "disconnects") > 0, what="nobody made way")


def test_client_that_leaves_frees_what_was_kept_for_it() -> None:
    with stage() as it:
        host = it.start(write_timeout_s=600, buffer_memory=MIB, spool_size=16 * MIB)

        def files() -> int:
            return len(os.listdir(f"/proc/{host.process.pid}/fd"))

        assert_answers(it)
        before = files()
        for _ in range(4):
            # 12 MB each: the spool holds one at a time.
            with unread(it, "/blocks?count=120&size=100000", 1):
                wait_until(lambda: it.cell(1, "in_flight") == 0, what="the call")
            wait_until(lambda: it.cell(1, "connections") == 0, what="its end")
        wait_until(lambda: files() <= before, what="its files are open")


# -- all of it together -------------------------------------------------------------------------

STALLS: list[bytes] = [
    b"GET / HTTP/1.1\r\nHost: t\r\nX-Slow",
    b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 1_000_000,
    b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n\r\n",
    b"GET /list HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /generator HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /file HTTP/1.1\r\nHost: t\r\n\r\n",
]

STALL_APP = """
    import os, tempfile

    FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "file.bin")
    with open(FILE, "wb") as file:
        file.write(b"x" * 2_000_000)

    def generator():
        for _ in range(20):
            yield b"x" * 100_000

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        start_response("200 OK", [("Content-Type", "text/plain")])
        if path == "/echo":
            return [environ["wsgi.input"].read()]
        if path == "/list":
            return [b"x" * 2_000_000]
        if path == "/generator":
            return generator()
        if path == "/file":
            return environ["wsgi.file_wrapper"](open(FILE, "rb"))
        return [b"hello"]
"""


def test_a_thousand_clients_that_stall_in_every_way_stop_nobody(folder: Path) -> None:
    write_app(folder, STALL_APP)
    with Prefork("-w", "2", "--threads", "1", cwd=folder) as server:
        workers = server.wait_workers(2)
        port = server.port
        before = sum(map(rss_bytes, workers))

        def stalled(number: int) -> socket.socket:
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(UNHURRIED_S)
            client.connect(("127.0.0.1", port))
            client.sendall(STALLS[number % len(STALLS)])
            return client

        clients = [stalled(number) for number in range(1000)]
        try:
            patient = socket.create_connection(("127.0.0.1", port), UNHURRIED_S)
            with Client(patient) as client:
                # The first one waits until what stalls was taken in.
                assert client.ask().body == b"hello"
                server.wait(lambda: server.ask({"op": "status"})["workers"]["busy"] == 0)
                # Each that stalled in a thread would cost 30 s.
                assert max(timed(client.ask) for _ in range(200)) < 25
            assert sum(map(rss_bytes, workers)) - before < 2 * (64 + 64) * MIB
            assert server.wait_workers(2) == workers
        finally:
            for stuck in clients:
                stuck.close()


def timed(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began
