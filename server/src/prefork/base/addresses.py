"""Addresses to listen on, as text and as values, and why one cannot be listened on; pure."""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from re import fullmatch

from prefork.errors import StartupError

DEFAULT_PORT = 8000
FORMS = "HOST:PORT, [IPV6]:PORT, unix:PATH, unix:@NAME or fd://N"
# sun_path in unix(7), its final NUL counted.
UNIX_PATH_LIMIT = 108


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

    HOST:PORT, :PORT, HOST, [IPV6]:PORT, unix:PATH, unix:@NAME (abstract), fd://N. Raises StartupError.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix://") if text.startswith("unix://") else text[5:]
        if path in ("", "@"):
            raise invalid_address(text)
        if (length := len(os.fsencode(path))) >= UNIX_PATH_LIMIT:
            raise StartupError(
                f"bind is {text}; the path has {length} bytes, a unix socket's has {UNIX_PATH_LIMIT - 1} at most"
            )
        return Address(text, path=path)
    if text.startswith("fd://"):
        if not fullmatch("[0-9]{1,9}", text[5:]):
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
        if host == rest and host.isdigit():
            raise StartupError(
                f"bind is {text}, which names no host; for port {text} use 127.0.0.1:{text}, or 0.0.0.0:{text} "
                "for all addresses of this machine"
            )
        port = port or str(DEFAULT_PORT)
    if not fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise StartupError(f"bind is {text}; the port {port} is not one of 0 to 65535")
    return Address(text, host=host, port=int(port))


def parse_addresses(texts: Sequence[str]) -> list[Address]:
    """Return the addresses to listen on; pure. Raises StartupError where one cannot be, or is there twice."""
    if not texts:
        raise StartupError(f"bind is empty; use {FORMS}")
    for text in texts:
        if texts.count(text) > 1:
            raise StartupError(f"bind has {text} twice; give each address once")
    return [parse_address(text) for text in texts]


def invalid_address(text: str) -> StartupError:
    return StartupError(f"bind is {text}; use {FORMS}")


def explain(text: str, error: OSError) -> str:
    """Return one line about a failed bind, with what to do; pure."""
    remedies = {
        errno.EADDRINUSE: "another process listens there; stop it or choose another --bind",
        errno.EACCES: "permission denied; choose a port from 1024 up, or grant CAP_NET_BIND_SERVICE",
        errno.EADDRNOTAVAIL: "no network interface has this address; use 0.0.0.0 for all addresses of this machine",
    }
    remedy = remedies.get(error.errno or 0, error.strerror or str(error))
    return f"cannot listen on {text}: {remedy}"
