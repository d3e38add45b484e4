"""Processes that an app's import started, once the mold or worker that imported has ended.

The arbiter is their parent by then (PR_SET_CHILD_SUBREAPER in prctl(2)). One that had ended long before may have left its
pid to another child of the arbiter, a worker even, so each is known by its start as well. They get SIGTERM, and SIGKILL
when they do not end by it. What requests have started is left alone: the app may mean it to stay.
"""

import os
import signal
from collections.abc import Collection, Iterable
from typing import Protocol

from prefork.arbiter.proc import Identity, find_children, identify, parent_of
from prefork.base import processes
from prefork.base.processes import Ended

END_S = 1.0


class Importing(Protocol):
    """A process that imports the app."""

    pid: int
    children: tuple[Identity, ...]


def note_children(importing: Collection[Importing]) -> None:
    """Remember the children of imports that still run: of one that ends in its middle, nobody else knows them.

    Those noted last stay where there are none now: the process may just have ended.
    """
    if importing:
        found = find_children({process.pid for process in importing})
        for process in importing:
            process.children = tuple(found.get(process.pid, ())) or process.children


class Orphans:
    """Those that are to end, with the time at which they are killed."""

    def __init__(self) -> None:
        self.kill_at: dict[int, float] = {}

    def take(self, children: Iterable[Identity], now: float) -> None:
        """End those that are still there."""
        known = tuple(children)
        for child in identify(child.pid for child in known):
            if child in known and parent_of(child.pid) == os.getpid():
                processes.kill(child.pid, signal.SIGTERM)
                self.kill_at[child.pid] = now + END_S

    def take_ended(self, ended: Ended) -> bool:
        """Take a child that has ended; False when it was none of these."""
        return self.kill_at.pop(ended.pid, None) is not None

    def kill_overdue(self, now: float) -> None:
        for pid, at in self.kill_at.items():
            if at <= now:
                processes.kill(pid, signal.SIGKILL)
