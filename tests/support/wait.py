"""Waiting for a condition instead of sleeping; when time runs out, what was seen last is shown."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
# The first questions come at this distance; later ones as far apart as `every_s`.
EAGER_S = 0.02
# For what takes milliseconds, or the start of a program: machines that build and test on all cores take that long.
UNHURRIED_S = 120.0


class NotYetError(Exception):
    """Raised by a condition that does not hold yet; its text is shown when time runs out."""


def wait_until(
    condition: Callable[[], T],
    within_s: float = UNHURRIED_S,
    *,
    what: str = "condition not met",
    every_s: float = 0.1,
    root_pid: int | None = None,
    log: Callable[[], str] | None = None,
) -> T:
    """Return the first true value of `condition`, asked every `every_s` seconds and more often at first.

    A condition is not met while it returns a false value or raises NotYetError; any other
    exception ends the wait. Raises TimeoutError with `what` and the last state seen; with `root_pid`
    or `log` also with the processes below that one (default: this one) and the log.
    """
    began = time.monotonic()
    while True:
        try:
            value = condition()
            last = f"last seen: {value!r}"
            if value:
                return value
        except NotYetError as error:
            last = f"last seen: {error}"
        elapsed_s = time.monotonic() - began
        if elapsed_s >= within_s:
            message = f"{what}: not within {within_s:g} s; {last}"
            if root_pid is not None or log is not None:
                message += show_processes(root_pid or os.getpid(), log() if log else "")
            raise TimeoutError(message)
        time.sleep(min(every_s, max(EAGER_S, elapsed_s / 10)))


def show_processes(root_pid: int, log: str) -> str:
    tree = "\n".join(process_tree(root_pid))
    return f"\n-- processes\n{tree}\n-- log\n{log}"


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
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [child for child in pids if is_running_child(stat_fields(child), pid)]


def is_running_child(fields: list[str], parent: int) -> bool:
    """Whether these fields of /proc/PID/stat, read in one go, are those of a child of `parent` that runs; pure."""
    return bool(fields) and fields[0] not in "ZX" and int(fields[1]) == parent


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name (proc(5)), [] for no process."""
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
