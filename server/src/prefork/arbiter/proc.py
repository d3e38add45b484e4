"""What the arbiter reads from /proc: memory of a process, failures of the accept queues."""

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


def read_memory(pid: int, proc: Path = Path("/proc")) -> tuple[int, int]:
    """Return (resident, proportional) bytes of a process; (0, 0) when it is gone or not ours."""
    found = read_rollup(pid, proc)
    return found.get("Rss", 0), found.get("Pss", 0)


def read_private(pid: int, proc: Path = Path("/proc")) -> int:
    """Return the bytes that a process shares with none other; 0 when it is gone or not ours."""
    found = read_rollup(pid, proc)
    return found.get("Private_Clean", 0) + found.get("Private_Dirty", 0)


def read_rollup(pid: int, proc: Path) -> dict[str, int]:
    """Return the bytes of each kind of memory by the kernel's names (proc(5), smaps_rollup)."""
    found = {}
    try:
        lines = (proc / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return {}
    for line in lines:
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            found[name] = int(words[0]) * 1024
    return found


class Identity(NamedTuple):
    """A process, which a later one with the same pid is not taken for."""

    pid: int
    started: int  # clock ticks since the machine's boot


def identify(pids: Iterable[int], proc: Path = Path("/proc")) -> tuple[Identity, ...]:
    """Return which processes have these pids now; those that are gone are left out."""
    found = ((pid, read_status(pid, proc)) for pid in pids)
    return tuple(Identity(pid, int(status[19])) for pid, status in found if status)


def parent_of(pid: int, proc: Path = Path("/proc")) -> int:
    """Return the pid of a process' parent; 0 when it is gone."""
    status = read_status(pid, proc)
    return int(status[1]) if status else 0


def read_status(pid: int, proc: Path) -> list[str]:
    """Return the fields of a process from its state on (proc(5), stat); none when it is gone."""
    try:
        status = (proc / str(pid) / "stat").read_text()
    except OSError:
        return []
    return status.rpartition(")")[2].split()  # the name may hold anything


def find_children(
    parents: Container[int], proc: Path = Path("/proc")
) -> Mapping[int, Sequence[Identity]]:
    """Return the children of these processes by parent, with one look at all processes."""
    found: dict[int, list[Identity]] = defaultdict(list)
    for pid in (int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()):
        status = read_status(pid, proc)
        if status and int(status[1]) in parents:
            found[int(status[1])].append(Identity(pid, int(status[19])))
    return found


def read_listen_failures(proc: Path = Path("/proc")) -> tuple[int, int]:
    """Return (ListenOverflows, ListenDrops) of this network namespace since its start."""
    try:
        lines = (proc / "net/netstat").read_text().splitlines()
    except OSError:
        return 0, 0
    pairs = dict(tcp_extension_pairs(lines))
    return pairs.get("ListenOverflows", 0), pairs.get("ListenDrops", 0)


def tcp_extension_pairs(lines: list[str]) -> Iterator[tuple[str, int]]:
    """Yield name and number of the two `TcpExt:` lines (names, then values)."""
    rows = [line.split()[1:] for line in lines if line.startswith("TcpExt:")]
    if len(rows) == 2:
        for name, value in zip(rows[0], rows[1], strict=False):
            yield name, int(value)
