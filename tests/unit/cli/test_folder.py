"""A folder that changes all at once, and keeps versions for who needs them."""

from __future__ import annotations

import os
from pathlib import Path

from wsgiapp_cli.run.folder import VersionedFolder


def content(folder: Path) -> dict[str, bytes]:
    names = [name for name in os.listdir(folder) if not name.startswith("..")]
    return {name: (folder / name).read_bytes() for name in names}


def test_each_write_is_the_whole_content(tmp_path: Path) -> None:
    folder = VersionedFolder(tmp_path / "a" / "b", tmp_path / "versions")
    for files in ({"x": b"1", "y": b"2"}, {"y": b"3", "z": b"\0"}, {}, {"x": b"4"}):
        folder.write(files)
        assert content(folder.path) == files
        assert len(list((tmp_path / "versions").iterdir())) == 1


def test_files_change_by_one_link(tmp_path: Path) -> None:
    folder = VersionedFolder(tmp_path / "source", tmp_path / "versions")
    folder.write({"app.py": b"old"})
    opened = (folder.path / "app.py").open("rb")
    folder.write({"app.py": b"new"})
    with opened:
        assert opened.read() == b"old"
    assert os.readlink(folder.path / "app.py") == "..data/app.py"


def test_a_version_is_shown_only_when_it_serves_and_goes_when_nobody_needs_it(
    tmp_path: Path,
) -> None:
    folder = VersionedFolder(tmp_path / "source", tmp_path / "versions")
    old, new = folder.keep({"app.py": b"old"}), folder.keep({"app.py": b"new"})
    folder.link_boot(old)
    folder.link_serving(old)
    assert content(folder.path) == {"app.py": b"old"}
    folder.link_boot(new)
    assert content(folder.path) == {"app.py": b"old"}
    assert (folder.path / "..boot" / "app.py").read_bytes() == b"new"
    folder.link_serving(new)
    folder.remove_others({new})
    assert content(folder.path) == {"app.py": b"new"}
    assert [path.name for path in (tmp_path / "versions").iterdir()] == [new[:16]]


def test_folder_is_the_owners_alone(tmp_path: Path) -> None:
    folder = VersionedFolder(tmp_path / "secret", tmp_path / "versions")
    folder.write({"key": b"1"})
    for path in (folder.path, tmp_path / "versions"):
        assert path.stat().st_mode & 0o077 == 0
