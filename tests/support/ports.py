"""Ports for servers that have to be told theirs."""

from __future__ import annotations

import socket

_held: list[socket.socket] = []


def reserve_port() -> int:
    """Return a port of 127.0.0.1 that only who names it can listen on, until this process ends.

    A port that was merely found free may be another process's by the time the server under test binds it,
    as the one that it listens on or as that of a connection. So a bound socket that does not listen keeps it: where
    both have SO_REUSEADDR, as servers have, Linux lets a listener in beside it, and gives the port to nobody
    who leaves the choice to the kernel.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _held.append(holder)
    return int(holder.getsockname()[1])
