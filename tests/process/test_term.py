"""TERM resets nobody: a request that was sent is answered; who comes later is refused."""

import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.process.engines import Client
from tests.process.harness import Prefork, write_app
from tests.support.wait import UNHURRIED_S, wait_until

TERMS = int(os.environ.get("TERMS", "12"))
AT_ONCE, CLIENTS = 3, 6


class Reconnecting(threading.Thread):
    """A client that connects anew for each request, until it is refused."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.answered = 0
        self.lost: list[str] = []

    def run(self) -> None:
        while True:
            sock = socket.socket()
            sock.settimeout(UNHURRIED_S)
            try:
                sock.connect(("127.0.0.1", self._port))
            except ConnectionRefusedError:
                sock.close()
                return
            with Client(sock) as client:
                try:
                    assert client.ask().status == 200
                except (OSError, EOFError) as error:
                    self.lost.append(repr(error))
                else:
                    self.answered += 1


def stop_once(folder: Path) -> list[str]:
    """Start a server, stop it under load; return what was lost."""
    write_app(folder)
    with Prefork("-w", "2", cwd=folder) as server:
        clients = [Reconnecting(server.port) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        wait_until(lambda: all(client.answered > 5 for client in clients))
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        for client in clients:
            client.join(UNHURRIED_S)
            assert not client.is_alive(), "a client is neither answered nor refused"
        return [error for client in clients for error in client.lost]


def test_term_loses_no_request_of_clients_that_reconnect(tmp_path: Path) -> None:
    """The kernel completes handshakes until the last listener is closed; one of four TERMs reset a client."""
    folders = [tmp_path / str(number) for number in range(TERMS)]
    for each in folders:
        each.mkdir()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        lost = [error for errors in pool.map(stop_once, folders) for error in errors]
    assert lost == []


def test_socket_that_another_process_owns_goes_on_taking_connections(folder: Path) -> None:
    """systemd's socket outlives the server: the next one serves who has come in between."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bind = f"fd://{listener.fileno()}"
        with Prefork(cwd=folder, bind=bind, pass_fds=(listener.fileno(),)) as server:
            server.signal(signal.SIGTERM)
            assert server.wait_exit() == 0
        with socket.create_connection(listener.getsockname(), UNHURRIED_S):
            pass


@pytest.mark.parametrize("is_busy", [False, True])
def test_late_client_is_refused_soon_also_while_every_thread_is_busy(
    folder: Path, is_busy: bool
) -> None:
    """Not only when the call has ended, which waits for the late client here."""
    options = ("-w", "1", "--timeout", "0", "--graceful-timeout", "600")
    with Prefork(*options, cwd=folder) as server, Client(connect(server.port)) as busy:
        port = server.port
        if is_busy:
            busy.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            server.wait(lambda: server.ask({"op": "status"})["workers"]["busy"] == 1)
        server.signal(signal.SIGTERM)
        server.wait_log("prefork shutting down")
        with suppress(ConnectionRefusedError):
            connect(port).close()
        (folder / "go").touch()
        if is_busy:
            assert busy.read().status == 200
        assert server.wait_exit() == 0


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), UNHURRIED_S)
