"""Processes that hang: stopped with SIGSTOP for a while. On the local cluster only, whose processes are this machine's."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.processes import find_components
from tests.support.wsgi_app import WsgiApp

needs_local_cluster = pytest.mark.skipif(
    os.environ.get("CLUSTER", "local") != "local", reason="the processes are not on this machine"
)


@contextlib.contextmanager
def hung(pid: int) -> Iterator[None]:
    """Let a process hang: to others that is as if it were gone without a word."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it was killed meanwhile
            os.kill(pid, signal.SIGCONT)


def find_apiserver() -> int:
    """Return the process id of the API server."""
    return find_components()["kube-apiserver"].pid


def find_operator(pod: str) -> int:
    """Return the process id of the operator in a pod."""
    (pid,) = [pid for pid in _pids() if f"POD_NAME={pod}".encode() in _read(pid, "environ")]
    return pid


def find_agent(app: WsgiApp, pod: str) -> int:
    """Return the process id of the agent in a pod of an app."""
    uid = next(p["metadata"]["uid"] for p in app.pods() if p["metadata"]["name"] == pod)
    marks = {f"pod{uid}", f"pod{uid.replace('-', '_')}"}  # as the two drivers for cgroups write it
    (pid,) = [
        pid
        for pid in _pids()
        if b"agent" in _read(pid, "cmdline")
        and any(mark.encode() in b"\0".join(_read(pid, "cgroup")) for mark in marks)
    ]
    return pid


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _read(pid: int, what: str) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes().split(b"\0")
    except OSError:
        return []
