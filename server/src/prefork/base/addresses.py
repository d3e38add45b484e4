"""Addresses to listen on, as text and as values, and why one cannot be listened on; pure."""

import errno
from dataclasses import dataclass

from prefork.errors import StartupError

DEFAULT_PORT = 8000


@dataclass(frozen=True)
class Address:
    """One parsed `--bind`; exactly one of the three kinds."""

    text: str
    host: str = ""
    port: int = 0
    path: str = ""
    descriptor: int = -1


def parse_address(text: str) -> Address:
    """Return the address `text` means; pure.

    HOST:PORT, :PORT, HOST, [IPV6]:PORT, unix:PATH, fd://N. Raises StartupError.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix://") if text.startswith("unix://") else text[5:]
        if not path:
            raise invalid_address(text)
        return Address(text, path=path)
    if text.startswith("fd://"):
        if not text[5:].isdigit():
            raise invalid_address(text)
        return Address(text, descriptor=int(text[5:]))
    rest = text.removeprefix("tcp://").removeprefix("http://")
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise invalid_address(text)
        port = tail[1:] or str(DEFAULT_PORT)
    elif rest.count(":") > 1:
        raise StartupError(
            f"bind is {text}; write an IPv6 address in brackets, as in [{rest}]:8000"
        )
    else:
        host, _, port = rest.partition(":")
        port = port or str(DEFAULT_PORT)
    if not port.isdigit() or int(port) > 65535:
        raise StartupError(f"bind is {text}; the port {port} is not one of 0 to 65535")
    return Address(text, host=host, port=int(port))


def invalid_address(text: str) -> StartupError:
    return StartupError(f"bind is {text}; use HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N")


def explain(text: str, error: OSError) -> str:
    """Return one line about a failed bind, with what to do; pure."""
    remedies = {
        errno.EADDRINUSE: "another process listens there; stop it or choose another --bind",
        errno.EACCES: "permission denied; choose a port from 1024 up, or grant CAP_NET_BIND_SERVICE",
        errno.EADDRNOTAVAIL: "this machine has no such address; use 0.0.0.0 for all of its own",
    }
    remedy = remedies.get(error.errno or 0, error.strerror or str(error))
    return f"cannot listen on {text}: {remedy}"
