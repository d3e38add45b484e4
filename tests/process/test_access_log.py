"""The access log: whole lines, whoever writes them to what, and none is lost without a word."""

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.process.engines import JSON_LINES, Client, stage
from tests.process.harness import Prefork, complete_lines, run_prefork, write_app
from tests.support.ports import reserve_port
from tests.support.wait import UNHURRIED_S

CLIENTS, REQUESTS = 6, 400


class Reader(threading.Thread):
    """Reads a pipe to its end, in steps of so many bytes with a pause after each."""

    def __init__(self, descriptor: int, step: int, pause_s: float) -> None:
        super().__init__(daemon=True)
        self.data = bytearray()
        self.hurry = threading.Event()
        self._read = (descriptor, step, pause_s)

    def run(self) -> None:
        descriptor, step, pause_s = self._read
        while piece := os.read(descriptor, step):
            self.data += piece
            self.hurry.wait(pause_s)


@contextmanager
def pipe(path: Path) -> Iterator[int]:
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.set_blocking(descriptor, True)
        yield descriptor
    finally:
        os.close(descriptor)


def ask_often(port: int, number: int) -> None:
    with Client(socket.create_connection(("127.0.0.1", port), UNHURRIED_S)) as client:
        for turn in range(REQUESTS):
            agent = ('"\\' * 2000 if turn % 50 == 0 else "agent " * 100)[: 7000 - number]
            answer = client.ask(f"/{number}/{turn}", more=f"User-Agent: {agent.strip()}\r\n")
            assert answer.status == 200
            if answer.field("Connection") == "close":
                raise AssertionError("the connection is to be kept")


@pytest.mark.parametrize(("step", "pause_s"), [(1 << 16, 0), (4000, 0.002)], ids=["fast", "slow"])
def test_lines_of_many_workers_on_one_pipe_are_whole(
    folder: Path, step: int, pause_s: float
) -> None:
    """A pipe takes 4096 bytes in one go; larger pieces of several workers were mixed: one line in twenty was broken."""
    with pipe(folder / "log") as descriptor:
        reader = Reader(descriptor, step, pause_s)
        with Prefork("-w", "3", "--access-logfile", str(folder / "log"), cwd=folder) as server:
            reader.start()
            clients = [
                threading.Thread(target=ask_often, args=(server.port, number))
                for number in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            server.signal(signal.SIGTERM)
            reader.hurry.set()
            assert server.wait_exit() == 0
            reader.join(UNHURRIED_S)
    lines = [json.loads(line) for line in reader.data.splitlines()]
    assert sorted(line["target"] for line in lines) == sorted(
        f"/{number}/{turn}" for number in range(CLIENTS) for turn in range(REQUESTS)
    )
    assert max(len(line) for line in reader.data.splitlines()) < 4096
    assert sum(line.get("shortened", False) for line in lines) == CLIENTS * REQUESTS / 50


def test_line_that_would_be_too_long_is_shortened(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    target = "/" + "t" * 8000
    with stage() as it:
        host = it.start(log=log, access_log=JSON_LINES)
        with it.connect() as client:
            client.ask("/hello?" + "t" * 3000)
            client.ask(
                f"/hello?{target}", more="Referer: r\r\nUser-Agent: " + "\xe9" * 300 + "\r\n"
            )
        host.order("close")
        host.end()
    whole, short = (json.loads(line) for line in log.read_text().splitlines())
    assert (len(whole["target"]), "shortened" in whole) == (3007, False)
    assert (len(short["target"]), short["shortened"], short["referer"]) == (1000, True, "r")


def test_lines_that_no_reader_took_are_reported(folder: Path) -> None:
    """After two seconds a worker that has nothing else to do leaves without them."""
    options = ("-w", "1", "--access-logfile", str(folder / "log"))
    with pipe(folder / "log"), Prefork(*options, cwd=folder) as server:
        with Client(socket.create_connection(("127.0.0.1", server.port), UNHURRIED_S)) as client:
            for _ in range(1000):
                assert client.ask(more=f"User-Agent: {'u' * 600}\r\n").status == 200
        server.signal(signal.SIGTERM)
        lines = server.wait_log(r"WARNING +access log lines were lost.* lines=(\d+)\n")[1]
        assert 0 < int(lines) < 1000


def test_slow_reader_gets_all_lines_of_a_worker_that_leaves(folder: Path) -> None:
    """Three seconds and more for what is left when the worker has nothing else to do: it waits as long as somebody reads."""
    count = 300
    options = ("-w", "1", "--access-logfile", str(folder / "log"))
    with pipe(folder / "log") as descriptor, Prefork(*options, cwd=folder) as server:
        reader = Reader(descriptor, 4096, 0.1)
        with Client(socket.create_connection(("127.0.0.1", server.port), UNHURRIED_S)) as client:
            for _ in range(count):
                assert client.ask(more=f"User-Agent: {'u' * 500}\r\n").status == 200
        server.signal(signal.SIGTERM)
        reader.start()
        assert server.wait_exit() == 0
        reader.join(UNHURRIED_S)
        assert "lines were lost" not in server.log()
    assert len(reader.data.splitlines()) == count


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in complete_lines(path)]


def test_every_answer_has_its_line_the_servers_own_too(folder: Path) -> None:
    """400, 408, 413, 431, 501, 504; the last one also while the app holds the GIL, and before it comes to an end."""
    write_app(folder, HARD)
    log = folder / "access"
    options = (
        "--access-logfile",
        str(log),
        "--max-request-body=1000",
        "--header-timeout=2",  # longer than this test may be held up between connecting and sending
        "-t",
        "1",
    )
    with Prefork("--threads=2", *options, cwd=folder) as server:
        asked = {
            400: b"GET /400 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            408: b"GET /408 HTTP/1.1\r\nHost: t\r\nX: ",
            413: b"POST /413 HTTP/1.1\r\nHost: t\r\nContent-Length: 1001\r\n\r\n",
            431: b"GET /431 HTTP/1.1\r\nHost: t\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
            501: b"CONNECT t:80 HTTP/1.1\r\nHost: t:80\r\n\r\n",
            504: b"GET /hold?token=1 HTTP/1.1\r\nHost: t\r\nX-Request-ID: id-504\r\nUser-Agent: u\r\n\r\n",
        }
        for status, request in asked.items():
            with Client(
                socket.create_connection(("127.0.0.1", server.port), UNHURRIED_S)
            ) as client:
                client.send(request)
                assert client.rest().startswith(f"HTTP/1.1 {status} ".encode())
        server.wait(lambda: len(lines_of(log)) == len(asked), what="a line is missing")
        lines = lines_of(log)
        assert sorted(line["status"] for line in lines) == sorted(asked)
        late = next(line for line in lines if line["status"] == 504)
        assert (late["target"], late["request_id"], late["refusal"]) == (
            "/hold?token=1",
            "id-504",
            "app_timeout",
        )
        assert late["user_agent"] == "u"
        assert late["duration_us"] > 900_000
        # The app holds the GIL, so its worker could not say this.
        server.wait_log(r"cannot report its request pid=\d+ running=\"GET /hold\?token=1\"")


def test_crash_names_the_requests_that_were_lost(folder: Path) -> None:
    write_app(folder, HARD)
    with Prefork("--hide-query-strings", cwd=folder) as server:
        with pytest.raises(OSError):  # noqa: PT011 - however the connection ends
            server.get("/exit?token=secret")
        server.wait_log(r'WARNING +worker exited .*how="exit code 7" running="GET /exit"')
        assert server.get("/")[0] == 200
        # A call has ended a moment after its answer is there.
        server.wait(
            lambda: server.ask({"op": "status"})["workers"]["busy"] == 0, what="the call goes on"
        )
        os.kill(server.workers()[0], signal.SIGKILL)
        found = server.wait_log(r"WARNING +worker exited .*how=\"signal SIGKILL\"(.*)\n")
        assert found[1] == ""


def test_request_id_is_taken_or_made_and_known_to_app_and_logs(folder: Path) -> None:
    write_app(folder, HARD)
    log = folder / "access"
    with Prefork("--access-logfile", str(log), cwd=folder) as server:
        with Client(socket.create_connection(("127.0.0.1", server.port), UNHURRIED_S)) as client:
            given = ["a-1", "two words", "x" * 129, "", None]
            seen = []
            for id in given:
                more = "" if id is None else f"X-Request-ID: {id}\r\n"
                seen.append(client.ask("/id", more=more).body.decode())
            client.ask("/boom?token=x", more="X-Request-ID: b-2\r\n")
            client.ask("/boom")
        server.wait(lambda: len(lines_of(log)) == 7, what="a line is missing")
        ids = [line["request_id"] for line in lines_of(log)]
        server.wait_log(
            r"error while answering pid=\d+ method=GET target=.*token=x.* request_id=b-2\n"
        )
        server.wait_log(rf"target=/boom request_id={ids[6]}\n")
    assert seen == ids[:5]
    assert (ids[0], ids[5]) == ("a-1", "b-2")
    assert all(re.fullmatch(r"[0-9a-f]{32}", id) for id in [*ids[1:5], ids[6]])
    assert len(set(ids)) == 7


def test_client_is_what_trusted_proxies_tell(folder: Path) -> None:
    log = folder / "access"
    proxies = "--forwarded-allow-ips=127.0.0.1,10.0.0.0/8"
    options = (
        "--access-logfile",
        str(log),
        "--access-log-fields=time,remote,client,host,trace_id,generation",
    )
    with Prefork(proxies, *options, cwd=folder) as server:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        with Client(socket.create_connection(("127.0.0.1", server.port), UNHURRIED_S)) as client:
            client.ask(
                more=f"X-Forwarded-For: 203.0.113.9, 192.0.2.7, 10.1.1.1\r\ntraceparent: {trace}\r\n"
            )
            client.ask()
        with Client(
            socket.create_connection(("127.0.0.1", server.port), UNHURRIED_S, ("127.0.0.2", 0))
        ) as client:
            client.ask(more="X-Forwarded-For: 203.0.113.9\r\n")
        server.wait(lambda: len(lines_of(log)) == 3, what="a line is missing")
        lines = lines_of(log)
    assert [list(line) for line in lines[1:]] == [
        ["time", "remote", "client", "host", "generation"]
    ] * 2
    assert [line["client"] for line in lines] == ["192.0.2.7", "127.0.0.1", "127.0.0.2"]
    assert (lines[0]["host"], lines[0]["generation"]) == ("test", 1)
    assert lines[0]["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


def test_gunicorns_formats_and_atoms(folder: Path) -> None:
    log = folder / "access"
    (folder / "gunicorn.conf.py").write_text(
        f"accesslog = {str(log)!r}\n"
        "access_log_format = '%(h)s %(l)s %(u)s \"%(r)s\" %(m)s %(U)s %(q)s %(H)s %(s)s %(b)s %(B)s '"
        '\'"%(f)s" "%(a)s" %(T)s %(M)s %(D)s %(L)s %(p)s 100%% %({x-own}i)s %({host}i)s\'\n'
    )
    with Prefork(cwd=folder) as server:
        with Client(socket.create_connection(("127.0.0.1", server.port), UNHURRIED_S)) as client:
            head = 'Authorization: Basic YW5uYTpi\r\nUser-Agent: a"b\r\nX-Own: own\r\n'
            body = client.ask("/a?b=c", more=head).body
            client.ask("/")
        server.wait(lambda: log.read_text().count("\n") == 2, what="a line is missing")
        pid = body.split()[-1].decode()
        first, second = log.read_text().splitlines()
    size = len(body)
    assert re.fullmatch(
        rf'127\.0\.0\.1 - anna "GET /a\?b=c HTTP/1\.1" GET /a b=c HTTP/1\.1 200 {size} {size} '
        rf'"-" "a\\"b" \d+ \d+ \d+ \d+\.\d{{6}} <{pid}> 100% own test',
        first,
    )
    assert re.match(r'127\.0\.0\.1 - - "GET / HTTP/1\.1" GET / - HTTP/1\.1 200 ', second)


def test_combined_format_and_hidden_queries(folder: Path) -> None:
    options = ("--access-logfile=-", "--access-logformat=combined", "--hide-query-strings")
    with Prefork(*options, cwd=folder) as server:
        with Client(socket.create_connection(("127.0.0.1", server.port), UNHURRIED_S)) as client:
            client.ask("/a?token=1", more="Referer: http://x/?token=2\r\nUser-Agent: u\r\n")
        server.wait(lambda: server.out_path.read_text().endswith("\n"), what="no line")
        line = server.out_path.read_text()
    assert re.fullmatch(
        r'127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "GET /a HTTP/1\.1" 200 \d+ "http://x/" "u"\n',
        line,
    )


@pytest.mark.parametrize(
    "text", ["%(x)s", "%({x}o)s", "%(h)d", "50% of it", "", "no atom", "%({a b}i)s"]
)
def test_formats_that_cannot_be_carried_out_are_refused_with_the_list(
    folder: Path, text: str
) -> None:
    done = run_prefork(f"--access-logformat={text}", "--check-config", "app:app", cwd=folder)
    assert done.returncode == 2
    assert "%(h)s" in done.stderr
    assert "%({NAME}i)s" in done.stderr
    done = run_prefork("--access-log-fields=time,nope", "--check-config", "app:app", cwd=folder)
    assert done.returncode == 2
    assert "duration_us" in done.stderr


def test_probes_of_the_agent_are_not_traffic(folder: Path) -> None:
    """They carry the number of the server's run; a client that only looks like the agent is logged."""
    write_app(folder, HARD)
    metrics = f"127.0.0.1:{reserve_port()}"
    log = folder / "access"
    options = ("--health-path=/healthz", f"--metrics={metrics}", "--access-logfile", str(log))
    with Prefork(*options, cwd=folder) as server:

        def is_ready() -> bool:
            try:
                with urlopen(f"http://{metrics}/readyz", timeout=5) as answer:
                    return answer.status == 200
            except OSError:
                return False

        server.wait(is_ready, what="the agent has not probed")
        with Client(socket.create_connection(("127.0.0.1", server.port), UNHURRIED_S)) as client:
            client.ask(
                "/healthz",
                more="User-Agent: prefork-agent\r\nX-Prefork-Probe: " + "0" * 16 + "\r\n",
            )
        server.wait(lambda: lines_of(log), what="no line")
        lines = lines_of(log)
    assert [(line["target"], line["user_agent"], line["host"]) for line in lines] == [
        ("/healthz", "prefork-agent", "test")
    ]


HARD = """
    import os, re

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/hold":
            re.match(r"(a+)+$", "a" * 40 + "b")
        elif path == "/exit":
            os._exit(7)
        elif path == "/boom":
            raise RuntimeError("boom")
        start_response("200 OK", [("X-App-Version", "1")])
        return [environ.get("HTTP_X_REQUEST_ID", "-").encode()]
"""
