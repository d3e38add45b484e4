"""Processes that an app's import started, once the mold or worker that imported has ended.

The arbiter is their parent by then (PR_SET_CHILD_SUBREAPER in prctl(2)), so none of their pids can be another's. They
get SIGTERM, and SIGKILL when they do not end by it. What requests have started is left alone: the app may mean it to stay.
"""

import os
import signal
from collections.abc import Iterable

from prefork.arbiter.proc import parent_of
from prefork.base import processes
from prefork.base.processes import Ended

END_S = 1.0


class Orphans:
    """Those that are to end, with the time at which they are killed."""

    def __init__(self) -> None:
        self.kill_at: dict[int, float] = {}

    def take(self, pids: Iterable[int], now: float) -> None:
        """End those that are still there."""
        for pid in pids:
            if parent_of(pid) == os.getpid():
                processes.kill(pid, signal.SIGTERM)
                self.kill_at[pid] = now + END_S

    def take_ended(self, ended: Ended) -> bool:
        """Take a child that has ended; False when it was none of these."""
        return self.kill_at.pop(ended.pid, None) is not None

    def kill_overdue(self, now: float) -> None:
        for pid, at in self.kill_at.items():
            if at <= now:
                processes.kill(pid, signal.SIGKILL)
