"""The pid file of an earlier server, whatever it holds now."""

import os
from pathlib import Path

import pytest
from prefork.arbiter.start import remove_pidfile, write_pidfile
from prefork.errors import StartupError

LEFTOVERS = [b"", b"\xff\x00\x80", "\N{SUPERSCRIPT TWO}".encode(), b"9" * 5000, b"-1", b"999999999"]


@pytest.mark.parametrize("content", LEFTOVERS)
def test_what_names_no_process_that_is_alive_is_replaced(tmp_path: Path, content: bytes):
    path = tmp_path / "pid"
    path.write_bytes(content)
    assert write_pidfile(str(path)) == path
    assert path.read_text() == f"{os.getpid()}\n"
    path.write_bytes(content)
    remove_pidfile(path)
    assert path.read_bytes() == content


def test_process_that_is_alive_keeps_its_file(tmp_path: Path):
    path = tmp_path / "pid"
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(StartupError, match=f"process {os.getppid()} in it is alive"):
        write_pidfile(str(path))
