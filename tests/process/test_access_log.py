"""The access log: whole lines, whoever writes them to what, and none is lost without a word."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process.engines import Client, stage
from tests.process.harness import Prefork

CLIENTS, REQUESTS = 6, 400


class Reader(threading.Thread):
    """Reads a pipe to its end, in steps of so many bytes with a pause after each."""

    def __init__(self, descriptor: int, step: int, pause_s: float) -> None:
        super().__init__(daemon=True)
        self.data = b""
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
    with Client(socket.create_connection(("127.0.0.1", port), 20)) as client:
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
            reader.join(20)
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
        host = it.start(log=log, access_log="json")
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
        with Client(socket.create_connection(("127.0.0.1", server.port), 20)) as client:
            for _ in range(1000):
                assert client.ask(more=f"User-Agent: {'u' * 600}\r\n").status == 200
        server.signal(signal.SIGTERM)
        lines = server.wait_log(r"WARNING +access log lines were lost.* lines=(\d+)", 20)[1]
        assert 0 < int(lines) < 1000
