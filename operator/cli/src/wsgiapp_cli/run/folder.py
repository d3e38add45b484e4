"""A folder whose files change all at once, laid out as the kubelet lays out a ConfigMap's mount.

    folder/app.py  -> ..data/app.py
    folder/..data  -> ..2
    folder/..2/app.py

A reader sees the old files or the new ones, never a mixture: only the link `..data` is replaced.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path


class AtomicFolder:
    """The writer of one such folder; it is created empty, and readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True)
        self._numbers = itertools.count(1)

    def write(self, files: Mapping[str, bytes]) -> None:
        """Make `files` (name → bytes; names without `/`) the folder's whole content."""
        data = self.path / "..data"
        previous = os.readlink(data) if data.is_symlink() else None
        version = self.path / f"..{next(self._numbers)}"
        version.mkdir(mode=0o700)
        for name, content in files.items():
            (version / name).write_bytes(content)
        _link(version.name, data)
        for name in files:
            if not (self.path / name).is_symlink():
                _link(f"..data/{name}", self.path / name)
        self._forget(previous, kept=set(files))

    def _forget(self, previous: str | None, *, kept: set[str]) -> None:
        for entry in self.path.iterdir():
            if entry.is_symlink() and entry.name != "..data" and entry.name not in kept:
                entry.unlink()
        if previous is not None:
            shutil.rmtree(self.path / previous)


def _link(target: str, path: Path) -> None:
    new = path.with_name("..new")
    new.symlink_to(target)
    new.replace(path)
