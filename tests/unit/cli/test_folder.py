"""A folder that changes all at once, in the kubelet's layout."""

from __future__ import annotations

import os
from pathlib import Path

from wsgiapp_cli.run.folder import AtomicFolder


def content(folder: Path) -> dict[str, bytes]:
    names = [name for name in os.listdir(folder) if not name.startswith("..")]
    return {name: (folder / name).read_bytes() for name in names}


def test_each_write_is_the_whole_content(tmp_path: Path) -> None:
    folder = AtomicFolder(tmp_path / "a" / "b")
    for files in ({"x": b"1", "y": b"2"}, {"y": b"3", "z": b"\0"}, {}, {"x": b"4"}):
        folder.write(files)
        assert content(folder.path) == files


def test_files_change_by_one_link_and_old_ones_are_deleted(tmp_path: Path) -> None:
    folder = AtomicFolder(tmp_path / "source")
    folder.write({"app.py": b"old"})
    opened = (folder.path / "app.py").open("rb")
    folder.write({"app.py": b"new"})
    with opened:
        assert opened.read() == b"old"
    assert os.readlink(folder.path / "app.py") == "..data/app.py"
    assert len(list(folder.path.iterdir())) == 3  # app.py, ..data and one version


def test_folder_is_the_owners_alone(tmp_path: Path) -> None:
    folder = AtomicFolder(tmp_path / "secret")
    folder.write({"key": b"1"})
    assert folder.path.stat().st_mode & 0o077 == 0
