"""Processes are found by the mark they carry, and changed ones are told from unchanged ones."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.commands import wait_until
from tests.cluster.node import Component
from tests.cluster.paths import Paths
from tests.cluster.processes import (
    Running,
    find_processes,
    fingerprint,
    is_alive,
    kill_all,
    log_of,
    start,
    stop,
)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(cache=tmp_path / "cache", state=tmp_path / "state", run=tmp_path / "run")


@pytest.fixture
def name(paths: Paths) -> Iterator[str]:
    """A component's name of this test's own; what runs under it is ended afterwards."""
    chosen = f"test-{os.getpid()}"
    yield chosen
    kill_all([process.pid for process in find_processes() if process.component == chosen])


def _component(name: str, program: str, *files: Path) -> Component:
    return Component(name, (sys.executable, "-c", program), files)


def _find(name: str) -> list[Running]:
    return [process for process in find_processes() if process.component == name]


def test_started_component_is_found_with_its_fingerprint(paths: Paths, name: str) -> None:
    component = _component(name, "import time; time.sleep(600)")
    pid = start(component, paths)
    wait_until(lambda: len(_find(name)) == 1, within_s=60, what="it is found")
    (found,) = _find(name)
    assert (found.pid, found.fingerprint) == (pid, fingerprint(component))


def test_child_of_a_component_is_found_by_the_same_mark(paths: Paths, name: str) -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    start(_component(name, child), paths)
    wait_until(lambda: len(_find(name)) == 2, within_s=60, what="both are found")


def test_stop_ends_a_component_that_ignores_the_polite_signal(paths: Paths, name: str) -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
    pid = start(_component(name, stubborn), paths)
    log = log_of(name, paths)
    wait_until(lambda: log.exists() and log.read_text() == "on\n", within_s=60, what="it runs")
    (running,) = _find(name)
    stop(running, patience_s=0.2)
    assert not is_alive(pid)
    assert _find(name) == []


def test_fingerprint_changes_with_arguments_and_with_files(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("a")
    before = fingerprint(_component("x", "pass", config))
    assert fingerprint(_component("x", "pass", config)) == before
    assert fingerprint(_component("x", "pass  ", config)) != before
    config.write_text("b")
    assert fingerprint(_component("x", "pass", config)) != before


def test_log_of_the_start_before_is_kept(paths: Paths, name: str) -> None:
    for word in ("first", "second"):
        pid = start(_component(name, f"print('{word}')"), paths)
        wait_until(lambda pid=pid: not is_alive(pid), within_s=60, what="it ended")
    log = log_of(name, paths)
    assert log.read_text() == "second\n"
    assert log.with_suffix(".log.1").read_text() == "first\n"
