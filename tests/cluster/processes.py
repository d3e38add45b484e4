"""The node's own processes: finds, starts and ends them, without pid files.

A component carries a mark in its environment: `NAME:FINGERPRINT`. /proc is the truth, so a crash, a
reused pid or a reboot cannot mislead; a changed command line, config or binary is a changed fingerprint.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.commands import wait_until
from tests.cluster.node import Component
from tests.cluster.paths import Paths

MARK = "WSGIAPP_CLUSTER_COMPONENT"
SHIM = "containerd-shim-runc-v2"


@dataclass(frozen=True)
class Running:
    """A live process with our mark. `program` is the base name of its command."""

    pid: int
    component: str
    fingerprint: str
    program: str


def find_processes() -> list[Running]:
    """Every live process that a component is or started (its shims inherit the mark)."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile, or is not ours to read
            environ = (entry / "environ").read_bytes()
            mark = _mark_in(environ)
            if mark is not None:
                program = (entry / "cmdline").read_bytes().split(b"\0")[0].decode()
                found.append(Running(int(entry.name), *mark, program=Path(program).name))
    return found


def _mark_in(environ: bytes) -> tuple[str, str] | None:
    for variable in environ.split(b"\0"):
        name, _, value = variable.partition(b"=")
        if name == MARK.encode():
            component, _, fingerprint = value.decode().partition(":")
            return component, fingerprint
    return None


def find_components() -> dict[str, Running]:
    """The components that run, by name; what they started is left out."""
    return {
        process.component: process
        for process in find_processes()
        if process.program == ("containerd" if process.component == "containerd" else "kube")
    }


def fingerprint(component: Component) -> str:
    """Changes with the command line, the files read at the start, and the binary."""
    binary = os.stat(component.argv[0])
    digest = hashlib.sha256(repr((component.argv, binary.st_size, binary.st_mtime_ns)).encode())
    for file in component.files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def start(component: Component, paths: Paths) -> int:
    """Start it in a session of its own, its output going to a log; returns the pid."""
    paths.logs.mkdir(parents=True, exist_ok=True)
    log = log_of(component.name, paths)
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    environ = {
        "PATH": f"{paths.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        MARK: f"{component.name}:{fingerprint(component)}",
    }
    _raise_file_limit()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        component.argv[0],
        component.argv,
        environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _raise_file_limit() -> None:
    """Containers inherit it, and a shell's 1024 is too few for an nginx under load."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def log_of(name: str, paths: Paths) -> Path:
    return paths.logs / f"{name}.log"


def stop(process: Running, *, patience_s: float = 10) -> None:
    """TERM, then KILL when it has not ended in time."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        deadline = time.monotonic() + patience_s
        while is_alive(process.pid):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return
    wait_until(
        lambda: not is_alive(process.pid),
        within_s=10,
        what=f"end of {process.component} ({process.pid})",
    )


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie (ours to reap, or somebody's) does not."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def kill_all(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
