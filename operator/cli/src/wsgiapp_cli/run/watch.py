"""Whether files have changed: the manifests of `wsgiapp run`, and code that lies in a folder.

They are looked at, not listened to: editors replace files, and network folders tell nothing.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

WATCH_S = 0.1
REST = 10  # looking takes at most a tenth of the time, however many files there are
NOT_CODE = {"__pycache__", "node_modules"}

# What of a file changes when it is written or replaced: time in ns, size, inode.
Snapshot = Mapping[Path, tuple[int, int, int]]


class Watch:
    """Tells when files have changed, and have then been left alone for a moment."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.code: Snapshot = {}
        self._files = files
        self._folder: Path | None = None
        self._seen = self._look()

    def watch_code(self, folder: Path | None) -> None:
        """Let *.py below `folder` count as well from now on; None: no longer."""
        if folder == self._folder:
            return
        self._folder = folder
        self.code = take_snapshot(python_files(folder)) if folder else {}
        self._seen = (self._seen[0], self.code)

    async def changed(self) -> None:
        """Return when the files differ from what they were at the last return."""
        previous = self._seen
        while True:
            began = time.monotonic()
            now = self._look()
            if now == previous and now != self._seen:
                self._seen = now
                return
            previous = now
            await asyncio.sleep(max(WATCH_S, REST * (time.monotonic() - began)))

    def _look(self) -> tuple[Snapshot, Snapshot]:
        if self._folder:
            self.code = take_snapshot(python_files(self._folder))
        return take_snapshot(self._files), self.code


def take_snapshot(paths: Sequence[Path] | Iterator[Path]) -> Snapshot:
    """Return what is seen of each file; nothing of one that is not there."""
    seen = {}
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            continue
        seen[path] = found.st_mtime_ns, found.st_size, found.st_ino
    return seen


def python_files(folder: Path) -> Iterator[Path]:
    """Yield *.py below `folder`, but in hidden folders and virtual environments."""
    for where, folders, files in os.walk(folder):
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        folders[:] = [name for name in folders if name not in NOT_CODE and name[0] != "."]
        yield from (Path(where, name) for name in files if name.endswith(".py"))
