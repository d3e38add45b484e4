"""Each test serves an app in a folder of its own."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import write_app
from tests.support.wait import NotYetError, wait_until

# A shell that is not interactive lets its background jobs ignore Ctrl-C, and so would every program that is tried here.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path (unix sockets end at 107 bytes) that holds app.py, version 1."""
    path = Path(tempfile.mkdtemp(prefix="pf-", dir="/tmp"))
    write_app(path)
    yield path
    wait_until(lambda: is_removed(path), what="a process still writes there")


def is_removed(folder: Path) -> bool:
    """Remove a folder; processes that were killed a moment ago may still make files in it."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise NotYetError(str(error)) from error
    return True
