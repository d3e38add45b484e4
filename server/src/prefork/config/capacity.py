"""How many workers fit: CPU affinity, CPU quota and memory limit of this process, cgroup v1 and v2.

Everything is read below a root directory, so a test can lay out any machine as files.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prefork.config.options import MAX_WORKERS

WORKERS_PER_CPU = 2
# At least two: while one is replaced, the other one serves.
LEAST_WORKERS = 2
BYTES_PER_WORKER = 128 * 1024 * 1024
# cgroup v1 says "no limit" with a number near 2^63.
UNLIMITED_BYTES = 1 << 60


@dataclass(frozen=True)
class Capacity:
    """What this process may use."""

    cpus: float  # affinity or quota, whichever is less
    memory_bytes: int | None  # None: no limit


def plan_workers(capacity: Capacity) -> int:
    """Return what `workers=auto` means; pure."""
    wanted = max(LEAST_WORKERS, math.ceil(WORKERS_PER_CPU * capacity.cpus))
    if capacity.memory_bytes is not None:
        wanted = min(wanted, max(1, capacity.memory_bytes // BYTES_PER_WORKER))
    return min(wanted, MAX_WORKERS)


def observe_capacity(root: Path = Path("/")) -> Capacity:
    """Return the limits of this process as they are now."""
    cpus = float(len(os.sched_getaffinity(0)))
    memory: int | None = None
    for version, folder in cgroup_folders(root):
        quota = cpu_quota(folder, version)
        if quota is not None:
            cpus = min(cpus, quota)
        limit = memory_limit(folder, version)
        if limit is not None:
            memory = limit if memory is None else min(memory, limit)
    return Capacity(cpus, memory)


def cgroup_folders(root: Path) -> Iterator[tuple[int, Path]]:
    """Yield (version, folder) of each cgroup that bounds this process, up to the root of its mount.

    A limit holds for the whole tree below it, so every ancestor counts. In a container /proc may
    name the path on the host, which is not mounted: then only the mount's own root is there.
    """
    base = root / "sys/fs/cgroup"
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts = [(2, base)]
        else:
            names = [name for name in controllers.split(",") if name in ("cpu", "memory")]
            mounts = [(1, base / name) for name in names]
            if "cpu" in names and not (base / "cpu").exists():
                mounts = [(1, base / controllers)]  # mounted together: "cpu,cpuacct"
        for version, mount in mounts:
            folder = mount / path.lstrip("/")
            while folder != mount:
                if folder.exists() and ".." not in folder.parts:
                    yield version, folder
                folder = folder.parent
            yield version, mount


def cpu_quota(folder: Path, version: int) -> float | None:
    """Return CPUs by quota over period; None: no quota in this cgroup."""
    if version == 2:
        words = read_text(folder / "cpu.max").split()
        quota, period = words if len(words) == 2 else ("max", "0")
    else:
        quota = read_text(folder / "cpu.cfs_quota_us").strip()
        period = read_text(folder / "cpu.cfs_period_us").strip()
    if not (quota.isdigit() and period.isdigit()) or int(quota) <= 0 or int(period) <= 0:
        return None
    return int(quota) / int(period)


def memory_limit(folder: Path, version: int) -> int | None:
    """Return the memory limit in bytes; None: no limit in this cgroup."""
    name = "memory.max" if version == 2 else "memory.limit_in_bytes"
    value = read_text(folder / name).strip()
    if not value.isdigit() or int(value) >= UNLIMITED_BYTES:
        return None
    return int(value)


@dataclass(frozen=True)
class MemoryUse:
    """Of one cgroup, in bytes; `used` leaves out file pages that the kernel can take back."""

    limit: int
    used: int


def observe_memory(root: Path = Path("/")) -> MemoryUse | None:
    """Return limit and use of the cgroup of this process that is nearest to its limit; None: no limit."""
    found = []
    for version, folder in cgroup_folders(root):
        limit = memory_limit(folder, version)
        used = memory_used(folder, version) if limit is not None else None
        if limit is not None and used is not None:
            found.append(MemoryUse(limit, used))
    return min(found, key=lambda use: use.limit - use.used, default=None)


def memory_used(folder: Path, version: int) -> int | None:
    """Return the bytes in use; None where this cgroup does not say."""
    name = "memory.current" if version == 2 else "memory.usage_in_bytes"
    field = "inactive_file" if version == 2 else "total_inactive_file"
    usage = read_text(folder / name).strip()
    if not usage.isdigit():
        return None
    statistics = dict(line.split(" ", 1) for line in read_text(folder / "memory.stat").splitlines())
    return max(0, int(usage) - int(statistics.get(field, "0")))


def read_text(path: Path) -> str:
    """Return a small file's text, empty when it is not there: most machines lack most of these."""
    try:
        return path.read_text()
    except OSError:
        return ""
