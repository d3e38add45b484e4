"""A start right after a server was killed: its workers still answer what they have, and hold its addresses so long.

A supervisor starts the next server at once, and tries only so often. So the start waits for them.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from prefork.arbiter.proc import parent_of
from prefork.base.log import Log
from prefork.errors import InUseError

Opened = TypeVar("Opened")

LOOK_PERIOD_S = 0.05
TCP_LISTEN = "0A"
UNIX_ACCEPTS = 0x10000  # __SO_ACCEPTCON of the kernel


def open_after_leftovers(open_it: Callable[[], Opened], log: Log, *, within_s: float) -> Opened:
    """Return what `open_it` does; try again while it is in use by workers of a killed server.

    Raises InUseError when somebody else uses it, or they are there for longer than `within_s`.
    """
    give_up_at = time.monotonic() + within_s
    is_first = True
    while True:
        # Before the attempt: the last of them may end right after it.
        leftovers = {pid: sockets_of(pid) for pid in left_workers()}
        try:
            return open_it()
        except InUseError as error:
            listening = find_listening(error.where)
            holders = [pid for pid, sockets in leftovers.items() if sockets & listening]
            is_free_now = leftovers and not listening
            if not (holders or is_free_now) or time.monotonic() >= give_up_at:
                raise
            if is_first and holders:
                log.warning(
                    "waiting for workers of a server that was killed",
                    pids=",".join(map(str, holders)), within_s=within_s, why=error,
                )  # fmt: skip
                is_first = False
        time.sleep(LOOK_PERIOD_S)


def find_listening(where: int | str, proc: Path = Path("/proc")) -> frozenset[int]:
    """Return the inodes of the sockets that listen on a TCP port, or at the path of a unix socket (proc(5))."""
    if isinstance(where, int):
        rows = [row for name in ("tcp", "tcp6") for row in read_rows(proc / "self" / "net" / name)]
        return frozenset(
            int(row[9])
            for row in rows
            if row[3] == TCP_LISTEN and int(row[1].rpartition(":")[2], 16) == where
        )
    rows = [row for row in read_rows(proc / "self" / "net" / "unix") if len(row) == 8]
    # One server may have been given a relative path.
    name = where.rpartition("/")[2]
    return frozenset(
        int(row[6])
        for row in rows
        if int(row[3], 16) & UNIX_ACCEPTS and row[7].rpartition("/")[2] == name
    )


def read_rows(table: Path) -> list[list[str]]:
    try:
        lines = table.read_text(errors="replace").splitlines()[1:]
    except OSError:
        return []  # without IPv6
    return [line.split(maxsplit=7) if table.name == "unix" else line.split() for line in lines]


def sockets_of(pid: int, proc: Path = Path("/proc")) -> frozenset[int]:
    """Return the inodes of a process' sockets; none when it is gone or not ours."""
    found = set()
    with suppress(OSError):
        for entry in (proc / str(pid) / "fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                kind, _, inode = str(entry.readlink()).partition(":")
                if kind == "socket":
                    found.add(int(inode.strip("[]")))
    return frozenset(found)


def left_workers(proc: Path = Path("/proc")) -> list[int]:
    """Return the pids of workers whose arbiter is gone."""
    workers = [
        int(entry.name)
        for entry in proc.iterdir()
        if entry.name.isdigit() and read_name(int(entry.name), proc) == "prefork-worker"
    ]
    return [pid for pid in workers if not is_owned(pid, proc)]


def is_owned(worker: int, proc: Path) -> bool:
    """Whether the arbiter lives; one that has just ended is not seen as parent any more."""
    return read_name(parent_of(worker, proc), proc) == "prefork-arbiter"


def read_name(pid: int, proc: Path) -> str:
    """Return the name of a process; "" when it is gone."""
    try:
        return (proc / str(pid) / "comm").read_text().rstrip("\n")
    except OSError:
        return ""
