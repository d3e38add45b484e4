"""A start right after a server was killed: its workers still answer what they have, and hold its addresses so long.

A supervisor starts the next server at once, and tries only so often. So the start waits for them.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from prefork.arbiter.proc import parent_of
from prefork.base.log import Log
from prefork.errors import InUseError

Opened = TypeVar("Opened")

LOOK_PERIOD_S = 0.05


def open_after_leftovers(open_it: Callable[[], Opened], log: Log, *, within_s: float) -> Opened:
    """Return what `open_it` does; try again while it is in use and workers of a killed server are there.

    Raises InUseError when somebody else uses it, or they are there for longer than `within_s`.
    """
    give_up_at = time.monotonic() + within_s
    is_first = True
    while True:
        # Before the attempt: the last of them may end right after it.
        leftovers = left_workers()
        try:
            return open_it()
        except InUseError as error:
            if not leftovers or time.monotonic() >= give_up_at:
                raise
            if is_first:
                log.warning(
                    "waiting for workers of a server that was killed",
                    pids=",".join(map(str, leftovers)), within_s=within_s, why=error,
                )  # fmt: skip
                is_first = False
        time.sleep(LOOK_PERIOD_S)


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
