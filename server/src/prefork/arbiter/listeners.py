"""Binds the listening sockets; an error names what prevents it."""

import errno
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prefork import _engine
from prefork.base.addresses import Address, explain, parse_addresses
from prefork.errors import Exit, InUseError, StartupError


@dataclass(frozen=True)
class Listener:
    """A listening socket and the name it is shown by."""

    sock: socket.socket
    name: str
    # The file to remove at the end; empty for sockets that another process owns.
    path: str = ""
    # Another process bound it, and may go on listening.
    is_shared: bool = False


def open_listeners(
    binds: Sequence[str], *, passed: Sequence[int] = (), backlog: int, umask: int
) -> list[Listener]:
    """Return listening sockets: the ones systemd passed, or else one per address.

    Raises StartupError (exit code LISTEN) when an address is forbidden or not of this machine, and of this kind
    InUseError when it is taken.
    """
    if passed:
        return [adopt(fd, f"fd://{fd}") for fd in passed]
    opened: list[Listener] = []
    try:
        for address in parse_addresses(binds):
            if address.descriptor >= 0:
                opened.append(adopt(address.descriptor, address.text))
            elif address.path:
                opened.append(bind_unix(address, backlog=backlog, mode=0o666 & ~umask))
            else:
                opened.append(bind_tcp(address, backlog=backlog))
    except StartupError:
        remove_files(opened)
        raise
    return opened


def remove_files(listeners: Sequence[Listener]) -> None:
    """Remove the files of unix sockets that nothing will serve."""
    for listener in listeners:
        if listener.path:
            Path(listener.path).unlink(missing_ok=True)


def adopt(descriptor: int, name: str) -> Listener:
    """Take over a socket that another process has bound."""
    try:
        sock = socket.socket(fileno=descriptor)
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise StartupError(f"cannot listen on {name}: {error.strerror}", Exit.LISTEN) from None
    if not listening:
        raise StartupError(f"cannot listen on {name}: it is not a listening socket", Exit.LISTEN)
    os.set_inheritable(descriptor, False)
    sock.setblocking(False)
    return Listener(sock, name, is_shared=True)


def can_refuse_handshakes(listener: Listener) -> bool:
    """Whether there are handshakes, and nobody else goes on to listen there."""
    return not listener.is_shared and listener.sock.family != socket.AF_UNIX


def refuse_handshakes(listener: Listener) -> None:
    """Let no further connection reach the accept queue; those on their way are still served."""
    if not can_refuse_handshakes(listener):
        return
    # Where the kernel forbids it, the last connections may be reset, as without it.
    with suppress(OSError):
        _engine.refuse_handshakes(listener.sock.fileno())


def bind_tcp(address: Address, *, backlog: int) -> Listener:
    try:
        found = socket.getaddrinfo(
            address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        message = (
            f"cannot listen on {address.text}: {address.host} is not an address of this machine"
        )
        raise StartupError(f"{message} ({error.strerror})", Exit.LISTEN) from None
    # Without a host, IPv4 first: that is what a bare ":8000" has always meant here.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    family, kind, protocol, _, target = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(target)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise refusal(address.text, error, address.port) from None
    sock.setblocking(False)
    return Listener(sock, show_name(sock))


def refusal(name: str, error: OSError, where: int | str) -> StartupError:
    """Return what a failed bind to a port or path raises; pure."""
    if error.errno == errno.EADDRINUSE:
        return InUseError(explain(name, error), where)
    return StartupError(explain(name, error), Exit.LISTEN)


def show_name(sock: socket.socket) -> str:
    """Return HOST:PORT as bound, which has the actual port when 0 was given."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind_unix(address: Address, *, backlog: int, mode: int) -> Listener:
    if address.path.startswith("@"):
        return bind_abstract(address, backlog=backlog)
    path = Path(address.path)
    remove_stale(path, address.text)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(address.path)
        path.chmod(mode)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        reason = error.strerror or str(error)
        raise StartupError(f"cannot listen on {address.text}: {reason}", Exit.LISTEN) from None
    sock.setblocking(False)
    return Listener(sock, f"unix:{address.path}", path=address.path)


def bind_abstract(address: Address, *, backlog: int) -> Listener:
    """Bind a name without a file, in the network namespace of this process (unix(7)); umask has no say there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind("\0" + address.path[1:])
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise refusal(address.text, error, address.path) from None
    sock.setblocking(False)
    return Listener(sock, f"unix:{address.path}")


def remove_stale(path: Path, name: str) -> None:
    """Remove the socket file of a server that is gone; refuse when one answers there."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            message = f"cannot listen on {name}: the path exists and is not a socket"
            raise StartupError(message, Exit.LISTEN)
        if not is_served(path):
            path.unlink(missing_ok=True)
            return
    except FileNotFoundError:
        return
    except OSError as error:  # a part of the path is no folder, a link leads to itself, no right to look or to remove
        raise StartupError(f"cannot listen on {name}: {error.strerror}", Exit.LISTEN) from None
    message = "another process listens there; stop it or choose another --bind"
    raise InUseError(f"cannot listen on {name}: {message}", str(path))


def is_served(path: Path) -> bool:
    """Whether a process listens on this socket file. Raises OSError where that cannot be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # its queue is full
            return True
    return True
