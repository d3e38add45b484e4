"""Each test serves an app in a folder of its own."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import write_app

# A shell that is not interactive lets its background jobs ignore Ctrl-C, and so would every program that is tried here.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path (unix sockets end at 107 bytes) that holds app.py, version 1."""
    with tempfile.TemporaryDirectory(prefix="pf-", dir="/tmp") as name:
        write_app(Path(name))
        yield Path(name)
