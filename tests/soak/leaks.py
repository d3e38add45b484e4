"""What a server's processes hold, by role: descriptors, threads, memory; and what lies in its folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.process.harness import Prefork

# A worker that is replaced starts afresh, so only what grows on and on is a leak. Connections come and go
# with the clients, whose number is fixed; memory has the allocator's slack.
_SLACK = {"descriptors": 16, "threads": 0, "rss_kib": 24 * 1024}
ARBITER = "arbiter"


@dataclass(frozen=True)
class Holding:
    """Of one role; the highest of its processes."""

    descriptors: int
    threads: int
    rss_kib: int


def look(server: Prefork) -> dict[str, Holding]:
    """What arbiter, mold and workers hold now, and how many files the run directory has."""
    pids = {ARBITER: [server.process.pid], "mold": server.pids("mold"), "worker": server.workers()}
    return {role: _most([_holding(pid) for pid in those]) for role, those in pids.items() if those}


def grown(before: dict[str, Holding], after: dict[str, Holding]) -> list[str]:
    """A line for each figure that grew by more than its slack."""
    lines = []
    for role in before.keys() & after.keys():
        for name, slack in _SLACK.items():
            old, new = getattr(before[role], name), getattr(after[role], name)
            if new > old + slack:
                lines.append(
                    f"{role}: {name} grew from {old} to {new}; at most {slack} more are slack"
                )
    return sorted(lines)


def _most(holdings: list[Holding]) -> Holding:
    return Holding(
        *(max(getattr(h, name) for h in holdings) for name in ("descriptors", "threads", "rss_kib"))
    )


def _holding(pid: int) -> Holding:
    folder = Path("/proc") / str(pid)
    status = dict(
        line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
    )
    return Holding(
        descriptors=sum(1 for _ in (folder / "fd").iterdir()),
        threads=int(status["Threads"]),
        rss_kib=int(status["VmRSS"].split()[0]),
    )
