"""Whether the server lives and is ready, judged by the stats table alone.

Every judgement is a fault, or that there is none: a text for liveness, a reason and a text for readiness.
"""

import enum
from dataclasses import dataclass

from prefork.base.stats import ServerState, Table, WorkerState

# docs/contracts.md, section 5.
HEARTBEAT_MAX_S = 10.0
# A worker that was killed or recycled is replaced within milliseconds; such a gap is not
# a reason to take the pod out of the load balancer.
SHORTFALL_MAX_S = 2.0


class Reason(enum.StrEnum):
    """Why no requests should be sent here: the label `reason` of `wsgi_not_ready`."""

    NOT_STARTED = "not_started"
    BOOTING = "booting"
    STOPPING = "stopping"
    ARBITER_SILENT = "arbiter_silent"
    WORKERS_MISSING = "workers_missing"
    PROBE_FAILED = "probe_failed"


@dataclass(frozen=True)
class Fault:
    """Why no requests should be sent here, for machines and for people."""

    reason: Reason
    text: str


def find_liveness_fault(table: Table | None, now: float) -> str:
    """Return why the server is to be started again; `now` in seconds of the monotonic clock.

    Without a table the server is just booting, or has ended, which the container runtime sees.
    """
    if table is None:
        return ""
    age = now - table.header("heartbeat_us") / 1e6
    if age <= HEARTBEAT_MAX_S:
        return ""
    return f"the arbiter's last heartbeat is {age:.0f} s old"


def count_ready(table: Table) -> int:
    """Return the workers that serve; of two generations, while one takes over worker by worker."""
    return sum(
        1
        for slot in table.taken_slots()
        if table.slot(slot, "worker_state") == WorkerState.SERVING.value
    )


class Readiness:
    """Remembers since when workers have been missing."""

    def __init__(self) -> None:
        self.boot_id = 0
        self.complete_at: float | None = None

    def find_fault(self, table: Table | None, now: float) -> Fault | None:
        """Return why no requests should be sent here; None when they may be."""
        if table is None:
            return Fault(Reason.NOT_STARTED, "the server has not started")
        if table.header("boot_id") != self.boot_id:
            self.boot_id, self.complete_at = table.header("boot_id"), None
        if fault := find_liveness_fault(table, now):
            return Fault(Reason.ARBITER_SILENT, fault)
        match ServerState(table.header("state")):
            case ServerState.BOOTING:
                return Fault(Reason.BOOTING, "the server is booting")
            case ServerState.STOPPING:
                return Fault(Reason.STOPPING, "the server is stopping")
        ready, desired = count_ready(table), table.header("workers_desired")
        if ready >= desired:
            self.complete_at = now
            return None
        if ready and self.complete_at is not None and now - self.complete_at <= SHORTFALL_MAX_S:
            return None
        return Fault(Reason.WORKERS_MISSING, f"{ready} of {desired} workers are ready")
