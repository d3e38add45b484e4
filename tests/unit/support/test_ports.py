"""A reserved port is there for the server that is told it, and for no one else."""

import errno
import socket
import struct

import pytest

from tests.support.ports import reserve_port

IP_LOCAL_PORT_RANGE = 51  # ip(7), since Linux 6.3


def test_server_that_is_told_the_port_can_listen_there_again_and_again() -> None:
    port = reserve_port()
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=60)
        with (
            socket.create_server(("127.0.0.1", port)) as server,
            socket.create_connection(("127.0.0.1", port), timeout=60),
        ):
            server.accept()[0].close()


@pytest.mark.parametrize("reuses", [0, 1])
def test_kernel_gives_the_port_to_nobody(reuses: int) -> None:
    """To no listener and to no connection, though it may choose among this one only."""
    port = reserve_port()
    for asks in (bind_any, connect):
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuses)
            try:
                only_this = struct.pack("I", port << 16 | port)
                other.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, only_this)
            except OSError:
                pytest.skip("this kernel has no IP_LOCAL_PORT_RANGE")
            with pytest.raises(OSError) as refused:  # noqa: PT011 - which one, is asserted
                asks(other)
            assert refused.value.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL)


def bind_any(other: socket.socket) -> None:
    other.bind(("127.0.0.1", 0))


def connect(other: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        other.connect(server.getsockname())
