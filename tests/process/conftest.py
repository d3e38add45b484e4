"""Each test serves an app in a folder of its own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import write_app


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path (unix sockets end at 107 bytes) that holds app.py, version 1."""
    with tempfile.TemporaryDirectory(prefix="pf-", dir="/tmp") as name:
        write_app(Path(name))
        yield Path(name)
