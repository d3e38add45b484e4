"""What a cluster left behind is found and named."""

import os
from pathlib import Path

import pytest

from tests.cluster.commands import wait_until
from tests.cluster.node import Component
from tests.cluster.paths import Paths
from tests.cluster.processes import find_processes, kill_all, start
from tests.cluster.teardown import find_leftovers, mount_points


def test_forgotten_process_and_folder_are_named(tmp_path: Path) -> None:
    paths = Paths(cache=tmp_path / "cache", state=tmp_path / "state", run=tmp_path / "run")
    paths.run.mkdir()
    name = f"forgotten-{os.getpid()}"
    pid = start(Component(name, ("/bin/sleep", "600")), paths)
    try:
        wait_until(
            lambda: f"process {pid} sleep" in find_leftovers(paths), within_s=60, what="it is named"
        )
        assert str(paths.run) in find_leftovers(paths)
    finally:
        kill_all([process.pid for process in find_processes() if process.component == name])


@pytest.mark.parametrize(
    ("line", "point"),
    [
        ("tmpfs /run/a tmpfs rw 0 0", "/run/a"),
        (r"tmpfs /run/a\040b tmpfs rw 0 0", "/run/a b"),
    ],
)
def test_mount_points_are_read_with_their_spaces(line: str, point: str) -> None:
    assert mount_points(line) == [point]
