"""Limits of 0 mean what they mean to gunicorn: nothing but the limit of the whole head, or of the server, counts."""

import signal
import socket
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.process.harness import Prefork
from tests.support.wait import UNHURRIED_S

NO_LIMITS = ("--limit-request-line=0", "--limit-request-fields=0", "--limit-request-field-size=0")
KIB = 1024


def status_of(port: int, head: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port), UNHURRIED_S) as sock:
        sock.sendall(head)
        return int(sock.recv(64).split()[1])


def head_of(size: int, *, target: bytes = b"/", fields: bytes = b"") -> bytes:
    """Return a head of this size, filled up where `...` is."""
    head = b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%s\r\n" % (target, fields)
    filled = head.replace(b"...", b"x" * (size - len(head) + 3))
    assert len(filled) == size
    return filled


def test_line_and_field_are_bounded_by_the_head_alone(folder: Path):
    with Prefork(*NO_LIMITS, cwd=folder) as server:
        for parts in ({"target": b"/..."}, {"fields": b"X-Long: ...\r\n"}):
            assert status_of(server.port, head_of(64 * KIB, **parts)) == 200
            assert status_of(server.port, head_of(64 * KIB + 1, **parts)) == 431


def test_fields_are_bounded_by_gunicorns_own_number(folder: Path):
    with Prefork(*NO_LIMITS, "--limit-head-bytes=1Mi", cwd=folder) as server:
        for count, status in ((1001, 200), (32768, 200), (32769, 431)):
            fields = b"".join(b"x%d:\r\n" % number for number in range(count - 1))
            head = b"GET / HTTP/1.0\r\nHost: a\r\n%s\r\n" % fields
            assert status_of(server.port, head) == status, count


def test_head_alone_bounds_also_when_it_is_smaller_than_the_usual_line(folder: Path):
    with Prefork(*NO_LIMITS, "--limit-head-bytes=1Ki", cwd=folder) as server:
        assert status_of(server.port, head_of(KIB, target=b"/...")) == 200
        assert status_of(server.port, head_of(KIB + 1, target=b"/...")) == 431


@pytest.mark.parametrize("leaves", ["stop", "reload"])
def test_graceful_timeout_of_0_waits_for_no_request(folder: Path, leaves: str):
    with Prefork("--graceful-timeout=0", "--timeout=0", cwd=folder) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=UNHURRIED_S)
        connection.request("GET", "/wait")  # for what never comes
        server.wait(lambda: server.ask({"op": "status"})["workers"]["busy"] == 1)
        if leaves == "stop":
            server.signal(signal.SIGTERM)
            assert server.wait_exit() == 0
        else:
            assert server.reload()["result"] == "succeeded"
            assert server.get()[0] == 200
        with pytest.raises(ConnectionError):
            connection.getresponse()
        connection.close()
