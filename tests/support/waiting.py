"""Waiting on running processes: when time runs out, the process tree and their logs are shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.support import wait

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T],
    within_s: float = 5.0,
    *,
    what: str = "",
    root_pid: int | None = None,
    log: Callable[[], str] = str,
) -> T:
    """Return the first true value of `condition`.

    Raises AssertionError with the processes below `root_pid` (default: this one) and `log()`.
    """
    try:
        return wait.wait_until(
            condition, within_s=within_s, what=what or "condition not met", every_s=0.02
        )
    except TimeoutError as error:
        tree = "\n".join(process_tree(root_pid or os.getpid()))
        raise AssertionError(f"{error}\n-- processes\n{tree}\n-- log\n{log()}") from None


def process_tree(root_pid: int) -> list[str]:
    """Return a line `pid state name arguments` for a process and each of its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            children.setdefault(parent_of(int(entry.name)), []).append(int(entry.name))

    def lines(pid: int, indent: str) -> list[str]:
        below = [
            line for child in sorted(children.get(pid, [])) for line in lines(child, indent + "  ")
        ]
        return [indent + describe(pid), *below]

    return lines(root_pid, "")


def children_of(pid: int) -> list[int]:
    """Return the children of a process that are not zombies."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [child for child in sorted(pids) if parent_of(child) == pid and state_of(child) != "Z"]


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the name (proc(5)), [] for no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def parent_of(pid: int) -> int:
    fields = stat_fields(pid)
    return int(fields[1]) if fields else 0


def state_of(pid: int) -> str:
    """Return the state letter of a process, "" when there is none."""
    fields = stat_fields(pid)
    return fields[0] if fields else ""


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def describe(pid: int) -> str:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        arguments = ""
    return f"{pid} {state_of(pid)} {name_of(pid)} {arguments[:120]}"
